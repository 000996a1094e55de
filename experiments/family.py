"""Train the family at its best, and what each of its settings brings, and write the page.

    python experiments/family.py --data TRAIN [--data MORE] --validation DATA [--rows ROW ...]
    python experiments/family.py --report

The first command trains and scores the rows one after another in one thread, each for its
CPU-minutes; started again, it resumes, and other rows may train beside it in another process. The
number of steps of a row is fixed from the CPU seconds of its first ones. The second command writes
results/family.json, docs/results/family.md and the figure anew from what is trained.
"""

import argparse
import json
import pickle
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from pages import (
    PAGES,
    RESULTS,
    compress_chart,
    difference,
    interval,
    markdown,
    read,
    share,
    short,
    update,
)

from sparsefield.core.version import code_version
from sparsefield.data.dataset import FieldDataset, open_dataset
from sparsefield.evaluation.comparison import Comparison, compare
from sparsefield.evaluation.differences import Differences, paired_differences
from sparsefield.evaluation.methods import Method, evaluate_mean, measure_baselines, measure_model
from sparsefield.evaluation.predictors import SamplingConfig
from sparsefield.evaluation.report import head, write_report
from sparsefield.evaluation.serialise import flatten, unflatten
from sparsefield.evaluation.task import Protocol
from sparsefield.figures.panels import save_figure
from sparsefield.flow.flow import Flow
from sparsefield.inference.model import Model
from sparsefield.inference.model import load as load_model
from sparsefield.training.config import TrainConfig, load_config
from sparsefield.training.data import TrainingData, follow_data, open_training_data
from sparsefield.training.loop import Trainer
from sparsefield.training.run import Run

SCRIPT = "family.py"
BEST = {
    "batch_size": "4",
    "flow.residual": "kriging",
    "flow.time_shift": "4.0",
    "model.near": "8",
    "model.layout": "joint",
    "data.flip": "all",
    "optimizer.name": "muon",
}
LONG, SHORT = 35.0, 2.0  # CPU-minutes
# A short run would end while the learning rate still rises.
BRIEF = {"optimizer.warmup": "40", "data.validation": "64"}


class Row(NamedTuple):
    """A preset, what differs from BEST, CPU-minutes, and whether its samples are scored."""

    preset: str
    settings: Mapping[str, str] = {}
    minutes: float = SHORT
    sampled: bool = False


def _off(**settings: str) -> Row:
    return Row("v1-small", BRIEF | {key.replace("__", "."): x for key, x in settings.items()})


ROWS = {
    "v1": Row("v1-small", minutes=LONG, sampled=True),
    "v2": Row("v2-small", minutes=12.0, sampled=True),
    "v1 short": _off(),
    "v2 short": Row("v2-small", BRIEF),
    "narrow": _off(model__width="64", model__layers="2"),
    "no residual": _off(flow__residual="none"),
    "no near": _off(model__near="0"),
    "grouped": _off(model__layout="grouped"),
    "batch 16": _off(batch_size="16"),
    "AdamW": _off(optimizer__name="adamw"),
    "relative error": _off(flow__contrast_weight="2.0"),
    "mirrored only": _off(data__flip="auto"),
}
KRIGING, SPLINE = "local_kriging", "tps"
# What the prototypes claim of V2 over V1, without a measurement.
PROMISED = ("+3 to +5", "-70 to -80 %")
PROTOCOL = Protocol(0.2)
SCORED, SAMPLED, WATCHED = 300, 32, 32  # images
SAMPLING = SamplingConfig(samples=4, limit=SAMPLED, steps=10)
WARM_UP, MEASURED = 4, 12  # steps


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", default=[], metavar="D")
    parser.add_argument("--validation", type=Path, metavar="D")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    parser.add_argument("--runs", type=Path, default=Path("runs/family"))
    parser.add_argument("--report", action="store_true", help="write the page, train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.report:
        if options.validation:
            collect(options.runs, options.validation)
        draw_curves(read("family")["rows"], PAGES / "images" / "family.png")
        return update(PAGES / "family.md", SCRIPT, parts(read("family")))
    for name in options.rows:
        train_row(name, options.runs / name.replace(" ", "-"), options.data)
        score_row(name, options.runs / name.replace(" ", "-"), validation(options.validation))
    return 0


def settings_of(name: str, data: list[str]) -> TrainConfig:
    """Return the settings of a row, its steps not yet fixed."""
    row = ROWS[name]
    config = load_config(row.preset, [f"{k}={x}" for k, x in {**BEST, **row.settings}.items()])
    return replace(config, data=replace(config.data, paths=tuple(data)))


def train_row(name: str, folder: Path, paths: list[str]) -> None:
    """Train a row to its last step, writing its score as a function of CPU time."""
    run, config = Run(folder), settings_of(name, paths)
    data = open_training_data(config)
    config = follow_data(config, data)
    steps = run.read_config().steps if run.exists() else count_steps(name, config, data)
    config = replace(config, steps=steps)
    with run.claim():
        trainer = Trainer(config, run, data, lambda progress: watch.note())
        watch = Watch(trainer, data.validation.subset(range(WATCHED)), ROWS[name].minutes * 8)
        trainer.begin([])
        watch.note()
        trainer.run_all()
        watch.note(last=True)


def count_steps(name: str, config: TrainConfig, data: TrainingData) -> int:
    """Return how many steps fit into the minutes of a row."""
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            replace(config, steps=WARM_UP + MEASURED), Run(Path(folder)), data, lambda _: None
        )
        for _ in range(WARM_UP):
            trainer.run_step()
        before = trainer.state.cpu_seconds
        for _ in range(MEASURED):
            trainer.run_step()
    each = (trainer.state.cpu_seconds - before) / MEASURED
    steps = max(1, int(60 * ROWS[name].minutes / each))
    print(f"{name}: {each:.2f} CPU s a step, {steps} steps", flush=True)
    return steps


class Watch:
    """Writes how well the averaged weights of a run do, now and then, into curve.jsonl.

    Args:
        trainer: The run.
        fields: Held-out fields.
        every: CPU seconds between two scores.
    """

    def __init__(self, trainer: Trainer, fields: FieldDataset, every: float) -> None:
        self.trainer, self.fields, self.every = trainer, fields, every
        self.file = trainer.run.folder / "curve.jsonl"
        self.due = trainer.state.cpu_seconds
        if trainer.state.step and not self.file.is_file():
            self._write(trainer.spec.build().eval(), step=0, cpu_seconds=0.0)

    def note(self, *, last: bool = False) -> None:
        """Score the weights if it is time."""
        state = self.trainer.state
        if state.cpu_seconds < self.due and not last:
            return
        self.due = state.cpu_seconds + self.every
        self._write(state.average, step=state.step, cpu_seconds=state.cpu_seconds)

    def _write(self, flow: Flow, **counts: float) -> None:
        model = Model("now", flow, self.trainer.spec)
        psnr = evaluate_mean(model, self.fields, PROTOCOL).scores["psnr"].mean()
        line = counts | {"psnr": float(psnr)}
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(self.trainer.run.name, line, flush=True)


def validation(path: Path) -> FieldDataset:
    """Return the images that every row is scored on."""
    return open_dataset(path, "validation", SCORED, size=(32, 32))


def score_row(name: str, folder: Path, fields: FieldDataset) -> Method:
    """Score the last weights of a row, or read what was scored before."""
    file = folder / "scores.pickle"
    if not file.is_file():
        model = load_model(Run(folder).latest)
        method = measure(model, fields, sampled=ROWS[name].sampled)
        method.checkpoint = folder.name
        file.write_bytes(pickle.dumps(method))
    return pickle.loads(file.read_bytes())


def measure(model: Model, fields: FieldDataset, *, sampled: bool) -> Method:
    """Score the mean of a model, and its samples if they are asked for."""
    start = time.process_time()
    config = SAMPLING if sampled else replace(SAMPLING, samples=0)
    method = measure_model(model, fields, PROTOCOL, config=config)
    method.seconds = time.process_time() - start
    return method


def local_kriging(fields: FieldDataset) -> Method:
    """Score the interpolation whose residual the rows predict: it is a model never trained."""
    tiny = {"model.width": "16", "model.layers": "1", "model.heads": "2", "model.features": "4"}
    config = load_config("v1-small", [f"{key}={x}" for key, x in (BEST | tiny).items()])
    spec = config.spec(fields.normalizer, fields.shape)
    model = Model(KRIGING, spec.build().eval(), spec)
    method = measure(model, fields, sampled=True)
    method.kind, method.model = "baseline", KRIGING
    method.checkpoint = method.parameters = None
    return method


def score_baselines(runs: Path, fields: FieldDataset) -> dict[str, Method]:
    """Score the interpolations, or read what was scored before."""
    found = {}
    for name in (KRIGING, SPLINE, "nearest"):
        file = runs / f"{name}.pickle"
        if not file.is_file():
            if name == KRIGING:
                made = local_kriging(fields)
            else:
                made = measure_baselines(fields, PROTOCOL, [name], config=SAMPLING)[name]
            file.write_bytes(pickle.dumps(made))
            print(name, f"{made.seconds:.0f} s", flush=True)
        found[name] = pickle.loads(file.read_bytes())
    return found


def collect(runs: Path, path: Path) -> None:
    """Compare all rows that are trained with the baselines, and write the results."""
    fields, methods, rows = validation(path), {}, {}
    for name in ROWS:
        folder = runs / name.replace(" ", "-")
        if (folder / "scores.pickle").is_file():
            methods[name] = score_row(name, folder, fields)
            rows[name] = describe(name, Run(folder), methods[name])
    methods |= score_baselines(runs, fields)
    comparison = compare(head(fields, PROTOCOL), methods, SPLINE)
    scores = {name: method.scores() for name, method in methods.items()}
    against = {
        rival: {key: flatten(x) for key, x in paired_differences(scores, rival).items()}
        for rival in (KRIGING, "v1", "v1 short")
        if rival in scores
    }
    results = {"comparison": flatten(comparison), "against": against, "rows": rows}
    write_report(RESULTS / "family.json", results)


def describe(name: str, run: Run, method: Method) -> dict[str, Any]:
    """Return how a row was trained."""
    config, log = run.read_config(), run.read_metrics()
    lines = [json.loads(line) for line in (run.folder / "curve.jsonl").read_text().splitlines()]
    curve = sorted({line["step"]: line for line in lines}.values(), key=lambda x: x["step"])
    start = run.read_history()[-1]
    return {
        "preset": ROWS[name].preset,
        "settings": {**BEST, **ROWS[name].settings},
        "minutes": ROWS[name].minutes,
        "parameters": method.parameters,
        "steps": log[-1]["step"],
        "images": log[-1]["step"] * config.batch_size,
        "cpu_seconds": log[-1]["cpu_seconds"],
        "environment": start["environment"],
        "seed": config.seed,
        "data": [Path(path).name for path in config.data.paths],
        "commit": code_version(),
        **{f"curve_{key}": [line[key] for line in curve] for key in curve[0]},
    }


def parts(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what writes each table of the page."""
    report = unflatten(Comparison, results["comparison"])
    against = {
        rival: {name: unflatten(Differences, x) for name, x in entries.items()}
        for rival, entries in results["against"].items()
    }
    return {
        "scores": lambda: score_table(report, against[KRIGING]),
        "settings": lambda: settings_table(results["rows"], against),
        "versions": lambda: versions_table(report, against),
        "training": lambda: training_table(results["rows"]),
    }


def score_table(report: Comparison, over_kriging: Mapping[str, Differences]) -> str:
    """Write all methods, best PSNR first, and their gains over both interpolations."""
    lines = []
    for name in report.ranking:
        method = report.methods[name]
        shown = f"*{name}* (baseline)" if report.is_baseline(name) else name
        lines.append(
            [
                shown,
                interval(method.mean, "psnr", 2),
                interval(method.mean, "ssim", 3),
                interval(method.mean, "speckle", 0, 1e6),
                interval(method.samples, "crps", 4),
                interval(method.samples, "speckle", 0, 1e6),
                difference(report.differences.get(name), "psnr"),
                difference(over_kriging.get(name), "psnr", 3),
            ]
        )
    head = ["", "PSNR, dB", "SSIM", "residual, 1e-6", "CRPS", "one sample: residual, 1e-6"]
    return markdown([*head, f"PSNR - {SPLINE}, dB", f"PSNR - {KRIGING}, dB"], lines)


def settings_table(
    rows: Mapping[str, Any], against: Mapping[str, Mapping[str, Differences]]
) -> str:
    """Write what each setting brings to V1: the gains of the runs that lack it."""
    lines = []
    for name in (name for name in rows if rows[name]["minutes"] == SHORT):
        own = {**BEST, **BRIEF}
        changed = {k: x for k, x in rows[name]["settings"].items() if own.get(k) != x}
        shown = " ".join(
            [f"`{rows[name]['preset']}`", *(f"`{k}={x}`" for k, x in changed.items())]
        )
        gains = [difference(against[KRIGING].get(name), "psnr", 3)]
        gains += [difference(against.get("v1 short", {}).get(name), "psnr", 3)]
        lines.append([name, shown, f"{rows[name]['images']:,}", *gains])
    titles = [f"PSNR - {rival}, dB" for rival in (KRIGING, "v1 short")]
    return markdown(["row", "what differs", "images seen", *titles], lines)


def versions_table(report: Comparison, against: Mapping[str, Mapping[str, Differences]]) -> str:
    """Write V2 against V1 beside what the prototypes promise."""
    lines = []
    for old, new in (("v1", "v2"), ("v1 short", "v2 short")):
        entry = against.get(old, {}).get(new)
        if entry is None:
            lines.append([f"{new} - {old}", "not trained", "", *PROMISED])
        else:
            cells = [difference(entry, "psnr", 3), share(entry, "speckle")]
            lines.append([f"{new} - {old}", *cells, *PROMISED])
    head = ["", "PSNR, dB", "residual energy of the mean"]
    return markdown([*head, *(f"{title}, promised" for title in head[1:])], lines)


def training_table(rows: Mapping[str, Any]) -> str:
    """Write how each row was trained."""
    lines = [
        [
            name,
            f"{row['parameters']:,}",
            f"{row['steps']:,}",
            f"{row['images']:,}",
            f"{row['cpu_seconds'] / 60:.1f}",
            str(row["seed"]),
            f"{row['environment']['instructions']}, {row['environment']['precision']}",
            f"`{short(row['commit'])}`",
        ]
        for name, row in rows.items()
    ]
    head = ["row", "parameters", "steps", "images", "CPU minutes of training"]
    head += ["seed", "instructions", "scored by commit"]
    return markdown(head, lines)


def draw_curves(rows: Mapping[str, Any], path: Path) -> None:
    """Draw the score of each row that was watched from its start, as a function of CPU time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, row in rows.items():
        if row["curve_step"][0]:
            continue  # watched from later on
        minutes = [seconds / 60 for seconds in row["curve_cpu_seconds"]]
        axes.plot(minutes, row["curve_psnr"], ".-", label=name)
    axes.set(
        xscale="symlog", xlabel="CPU minutes", ylabel=f"PSNR of {WATCHED} held-out images, dB"
    )
    axes.legend(fontsize="small", ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)
    compress_chart(path)


if __name__ == "__main__":
    sys.exit(main())
