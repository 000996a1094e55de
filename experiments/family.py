"""Train the family at its best, and what each of its settings brings, and write the page.

    python experiments/family.py --data TRAIN [--data MORE] --validation DATA [--rows ROW ...]
    python experiments/family.py --report

The first command trains and scores the rows one after another in one thread, each for its
CPU-minutes; started again, it resumes, and other rows may train beside it in another process. The
number of steps of a row is fixed from the CPU seconds of its first ones. The second command writes
results/family.json, docs/results/family.md and the figure anew from what is trained.
"""

import argparse
import pickle
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from budget import describe_run, train_for
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

from sparsefield.data.dataset import FieldDataset, open_dataset
from sparsefield.evaluation.comparison import Comparison, compare
from sparsefield.evaluation.differences import Differences, paired_differences
from sparsefield.evaluation.methods import Method, measure_baselines, measure_model
from sparsefield.evaluation.predictors import SamplingConfig
from sparsefield.evaluation.report import head, write_report
from sparsefield.evaluation.serialise import flatten, unflatten
from sparsefield.evaluation.task import Protocol
from sparsefield.figures.panels import save_figure
from sparsefield.inference.model import Model
from sparsefield.inference.model import load as load_model
from sparsefield.training.config import TrainConfig, load_config
from sparsefield.training.data import open_training_data
from sparsefield.training.run import Run

SCRIPT = "family.py"
KRIGING, SPLINE = "local_kriging", "tps"
# What every row learns with, as far as its architecture has the setting.
SHARED = {"data.flip": "all", "optimizer.name": "muon", "batch_size": "4"}
FROM_NOTHING = {"flow.residual": "none", "flow.time_shift": "2.0"}
# Of architectures whose tokens may know what is near them.
TOKENS = FROM_NOTHING | {"model.near": "8"}
SEQUENCE = TOKENS | {"model.layout": "joint"}  # of those that read points in an order
FROM_KRIGING = {"flow.residual": "kriging", "flow.time_shift": "4.0"}
LONG, SHORT = 6.0, 2.5  # CPU-minutes
# A short run would end while the learning rate still rises.
BRIEF = {"optimizer.warmup": "40", "data.validation": "64"}


class Row(NamedTuple):
    """A preset, its settings, CPU-minutes, and whether its samples are scored."""

    preset: str
    settings: Mapping[str, str]
    minutes: float = LONG
    sampled: bool = True


def _row(preset: str, own: Mapping[str, str], **settings: str) -> Row:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return Row(preset, SHARED | BRIEF | own | named)


def _off(**settings: str) -> Row:
    row = _row("v1-small", SEQUENCE, **settings)
    return row._replace(minutes=SHORT, sampled=False)


# Pairs of V1 and V2 that differ in nothing but the architecture.
VERSIONS = {
    "from nothing": ("v1", "v2"),
    "from nothing, another seed": ("v1-seed-1", "v2-seed-1"),
    "from kriging": ("v1-kriging", "v2-kriging"),
    "from kriging, another seed": ("v1-kriging-seed-1", "v2-kriging-seed-1"),
}
# V2 along the Hilbert curve, and what is changed in it.
PARTS: dict[str, dict[str, str]] = {
    "v2": {},
    **{f"v2-{order}": {"model.order": order} for order in ("given", "raster", "morton", "multi")},
    "v2-once": {"model.iterations": "1"},
}
ROWS = {
    "v1": _row("v1-small", SEQUENCE),
    "v2": _row("v2-small", SEQUENCE),
    "v1-seed-1": _row("v1-small", SEQUENCE, seed="1"),
    "v2-seed-1": _row("v2-small", SEQUENCE, seed="1"),
    "v1-kriging": _row("v1-small", SEQUENCE | FROM_KRIGING),
    "v2-kriging": _row("v2-small", SEQUENCE | FROM_KRIGING),
    "v1-kriging-seed-1": _row("v1-small", SEQUENCE | FROM_KRIGING, seed="1"),
    "v2-kriging-seed-1": _row("v2-small", SEQUENCE | FROM_KRIGING, seed="1"),
    "transformer": _row("transformer-small", TOKENS),
    "local": _row("local-small", TOKENS),
    "perceiver_io": _row("perceiver_io-small", TOKENS),
    "hybrid": _row("hybrid-small", {}),
    "unet": _row("unet-small", {}),
    **{name: _row("v2-small", SEQUENCE | change) for name, change in PARTS.items() if change},
    "v1-short": _off(),
    "no-near": _off(model__near="0"),
    "grouped": _off(model__layout="grouped"),
    "batch-16": _off(batch_size="16"),
    "AdamW": _off(optimizer__name="adamw"),
    "thrice-the-rate": _off(optimizer__lr="3e-3"),
    "relative-error": _off(flow__contrast_weight="2.0"),
    "mirrored-only": _off(data__flip="auto"),
    "narrow": _off(model__width="64", model__layers="2"),
    "kriging": _off(**FROM_KRIGING),
}
ARCHITECTURES = ("transformer", "local", "perceiver_io", "hybrid", "unet")
DRAWN = ("v1", "v2", "v1-kriging", "v2-kriging", *ARCHITECTURES)
# What is compared with what, item by item; p-values are corrected over these.
RIVALS: dict[str, tuple[str, ...]] = {
    KRIGING: tuple(ROWS),
    **{old: (new,) for old, new in VERSIONS.values()},
    "v2": tuple(PARTS)[1:],
    "v1-short": tuple(name for name, row in ROWS.items() if row.minutes < LONG)[1:],
}
# What the prototypes claim of V2 over V1, without a measurement.
PROMISED = ("+3 to +5", "-70 to -80 %")
PROTOCOL = Protocol(0.2)
SCORED, SAMPLED, WATCHED = 300, 32, 32  # images
SAMPLING = SamplingConfig(samples=4, limit=SAMPLED, steps=10)


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
        train_row(name, options.runs / name, options.data)
        score_row(name, options.runs / name, validation(options.validation))
    return 0


def settings_of(name: str, data: list[str]) -> TrainConfig:
    """Return the settings of a row, its steps not yet fixed."""
    row = ROWS[name]
    config = load_config(row.preset, [f"{k}={x}" for k, x in row.settings.items()])
    return replace(config, data=replace(config.data, paths=tuple(data)))


def train_row(name: str, folder: Path, paths: list[str]) -> None:
    """Train a row to its last step, writing its score as a function of CPU time."""
    config = settings_of(name, paths)
    data = open_training_data(config)
    watched = data.validation.subset(range(WATCHED))
    train_for(ROWS[name].minutes, folder, config, data, watched, PROTOCOL)


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
    settings = SEQUENCE | FROM_KRIGING | tiny
    config = load_config("v1-small", [f"{key}={x}" for key, x in settings.items()])
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
        folder = runs / name
        if (folder / "scores.pickle").is_file():
            methods[name] = score_row(name, folder, fields)
            rows[name] = describe(name, folder, methods[name])
    methods |= score_baselines(runs, fields)
    comparison = compare(head(fields, PROTOCOL), methods, SPLINE)
    scores = {name: method.scores() for name, method in methods.items()}
    against = {
        rival: {key: flatten(x) for key, x in paired_differences(compared, rival).items()}
        for rival, names in RIVALS.items()
        if len(compared := {name: scores[name] for name in (rival, *names) if name in scores}) > 1
    }
    results = {"comparison": flatten(comparison), "against": against, "rows": rows}
    write_report(RESULTS / "family.json", results)


def describe(name: str, folder: Path, method: Method) -> dict[str, Any]:
    """Return how a row was trained."""
    row = {
        "preset": ROWS[name].preset,
        "settings": [f"{k}={x}" for k, x in ROWS[name].settings.items()],
    }
    row |= {"minutes": ROWS[name].minutes, "parameters": method.parameters}
    return row | describe_run(folder)


def parts(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what writes each table of the page."""
    report = unflatten(Comparison, results["comparison"])
    against = {
        rival: {name: unflatten(Differences, x) for name, x in entries.items()}
        for rival, entries in results["against"].items()
    }
    rows = results["rows"]
    return {
        "scores": lambda: score_table(report, against[KRIGING]),
        "versions": lambda: versions_table(against),
        "orders": lambda: orders_table(report, against.get("v2", {})),
        "settings": lambda: settings_table(rows, report, against.get("v1-short", {})),
        "training": lambda: training_table(rows),
    }


def score_table(report: Comparison, over_kriging: Mapping[str, Differences]) -> str:
    """Write the long rows, best PSNR first, and their gains over both interpolations."""
    lines = []
    for name in report.ranking:
        if name in ROWS and ROWS[name].minutes < LONG:
            continue
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


def versions_table(against: Mapping[str, Mapping[str, Differences]]) -> str:
    """Write V2 against V1 beside what the prototypes promise."""
    lines = []
    for start, (old, new) in VERSIONS.items():
        if entry := against.get(old, {}).get(new):
            samples = share(entry, "sample_speckle")
            lines.append([start, difference(entry, "psnr", 3), share(entry, "speckle"), samples])
    lines.append(["promised", *PROMISED, ""])
    head = ["V2 - V1", "PSNR, dB", "residual energy of the mean", "of one sample"]
    return markdown(head, lines)


def orders_table(report: Comparison, over_hilbert: Mapping[str, Differences]) -> str:
    """Write V2 along each order, and with one iteration, against V2 along the Hilbert curve."""
    lines = [
        [
            "`" + " ".join(changes_of(name, "v2") or ["model.order=hilbert"]) + "`",
            interval(report.methods[name].mean, "psnr", 2),
            difference(over_hilbert.get(name), "psnr", 3),
            share(over_hilbert[name], "speckle") if name in over_hilbert else "",
        ]
        for name in report.ranking
        if name in PARTS
    ]
    return markdown(["V2 with", "PSNR, dB", "PSNR - v2, dB", "residual energy of the mean"], lines)


def settings_table(
    rows: Mapping[str, Any], report: Comparison, over_short: Mapping[str, Differences]
) -> str:
    """Write what each setting brings to V1: the loss of the runs that lack it."""
    lines = []
    for name in (name for name in rows if ROWS[name].minutes < LONG):
        changes = " ".join(f"`{change}`" for change in changes_of(name, "v1-short"))
        psnr = interval(report.methods[name].mean, "psnr", 2)
        gain = difference(over_short.get(name), "psnr", 3)
        lines.append([name, changes, f"{rows[name]['images']:,}", psnr, gain])
    head = ["row", "what differs", "images seen", "PSNR, dB", "PSNR - v1-short, dB"]
    return markdown(head, lines)


def changes_of(name: str, base: str) -> list[str]:
    """Return the settings in which a row differs from another one."""
    own, others = ROWS[name].settings, ROWS[base].settings
    return [f"{key}={x}" for key, x in own.items() if others.get(key) != x]


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
            f"{row['instructions']}, {row['precision']}",
            f"`{short(row['commit'])}`",
        ]
        for name, row in rows.items()
    ]
    head = ["row", "parameters", "steps", "images", "CPU minutes of training"]
    head += ["seed", "instructions", "scored by commit"]
    return markdown(head, lines)


def draw_curves(rows: Mapping[str, Any], path: Path) -> None:
    """Draw the score of each architecture as a function of CPU time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, row in rows.items():
        if name not in DRAWN:
            continue
        minutes = [seconds / 60 for seconds in row["curve_cpu_seconds"]]
        dashes = "--" if "kriging" in name else "-"
        axes.plot(minutes, row["curve_psnr"], f".{dashes}", label=name)
    axes.set(xlabel="CPU minutes", ylabel=f"PSNR of {WATCHED} held-out images, dB")
    axes.legend(fontsize="small", ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)
    compress_chart(path)


if __name__ == "__main__":
    sys.exit(main())
