"""Train every sparse architecture at an equal CPU budget, compare them and write the report.

    python experiments/train_architectures.py --data TRAIN [--data MORE] --validation DATA
    python experiments/train_architectures.py --report-only

Started again, it resumes. Every row trains in a process of its own, with one thread on a core of
its own. Its number of steps is fixed beforehand from the CPU seconds that a step takes while the
other cores do the same, and kept in budget.json. Then `sparsefield compare` scores all rows, and
architectures.json, .md and images/architectures are written into docs/results. --report-only
writes the page and the chart anew from architectures.json.
"""

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from architectures_report import draw_chart, write_tables

from sparsefield.cli import main as sparsefield
from sparsefield.core.devices import autocast_type, choose_device
from sparsefield.core.errors import InputError, unknown_name
from sparsefield.core.files import write_text
from sparsefield.core.version import code_version
from sparsefield.evaluation.report import write_report
from sparsefield.training.config import load_config
from sparsefield.training.run import Run

ROOT = Path(__file__).parent.parent


class Row(NamedTuple):
    """One architecture: a preset and settings in place of the preset's.

    A step that does the same work as that of another row, its `pace`, counts as long: between
    equals, the noise of a clock shall not decide who gets more steps.
    """

    preset: str
    overrides: tuple[str, ...] = ()
    pace: str = ""


# Hilbert, the preset's own order, is the row v2.
SCAN_ORDERS = {"given": "v2", "raster": "v2", "morton": "v2", "multi": ""}
# From nothing, and without what docs/results/family.md found to help.
PLAIN = ("model.near=0", "flow.residual=none", "flow.time_shift=2.0")
GROUPED = (*PLAIN, "model.layout=grouped")
ROWS = {
    "v1": Row("v1-small", GROUPED),
    "v2": Row("v2-small", GROUPED),
    "local": Row("local-small", PLAIN),
    "perceiver_io": Row("perceiver_io-small", PLAIN),
    "transformer": Row("transformer-small", PLAIN),
    "hybrid": Row("hybrid-small"),
    **{
        f"v2-{order}": Row("v2-small", (*GROUPED, f"model.order={order}"), pace)
        for order, pace in SCAN_ORDERS.items()
    },
}
REFERENCE = "v2"
# What all rows share. The preset keeps the model, what it predicts, and the learning rate.
COMMON = (
    "seed=0",
    "device=cpu",
    "precision=auto",
    "batch_size=16",
    "data.size=[32,32]",
    "data.limit=0",
    "data.validation=500",
    "data.density=[0.15,0.25]",
    "data.masks=fresh",
    "data.target=all",
    "data.flip=true",
    "flow.mean_fraction=0.5",
    "flow.contrast_weight=1.0",
    "optimizer.warmup=100",
    "optimizer.weight_decay=0.01",
    "optimizer.beta2=0.99",
    "optimizer.clip=1.0",
    "optimizer.ema=0.998",
    "epochs=1",
    "eval_every=1",
    "save_every=1000",
    "visualize_every=1000",
)
EVALUATION = (
    *("--split", "validation", "--limit", "1000", "--density", "0.2", "--size", "32", "32"),
    *("--samples", "4", "--samples-limit", "64", "--steps", "10"),
)
# Steps that do not count, because code is compiled and caches fill, and steps that do.
WARM_UP, MEASURED = 8, 24
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


class Job(NamedTuple):
    """A training run that is to be done: its command, its folder, its last step."""

    name: str
    arguments: tuple[str, ...]
    run: Run
    steps: int


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", default=[], metavar="D")
    parser.add_argument("--validation", metavar="D")
    parser.add_argument("--minutes", type=float, default=20.0, help="CPU-minutes of each row")
    parser.add_argument("--jobs", type=int, default=2, help="rows at a time, one core each")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="ROW")
    parser.add_argument("--runs", type=Path, default=Path("runs/architectures"))
    parser.add_argument("--out", type=Path, default=ROOT, help="results and docs lie there")
    parser.add_argument("--report-only", "--figures-only", action="store_true")
    options = parser.parse_args(arguments)
    try:
        if not options.report_only:
            measure(options)
        write_page(options.out)
    except InputError as error:
        print(f"train_architectures: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
    return 0


def measure(options: argparse.Namespace) -> None:
    """Train and compare all rows, and write the results as JSON."""
    check(options)
    data = tuple(argument for path in options.data for argument in ("--data", path))
    cores = choose_cores(options.jobs)
    with children_end_with_us():
        budget = calibrate(options, data, cores)
        run_jobs([training_job(name, budget, options.runs, data) for name in options.rows], cores)
    comparison = compare(options)
    rows = {name: describe(name, budget, options.runs, comparison) for name in options.rows}
    results = {"minutes": options.minutes, "validation": Path(options.validation).name}
    results |= {"rows": rows, "comparison": comparison}
    write_report(options.out / "results" / "architectures.json", results)


def check(options: argparse.Namespace) -> None:
    """Refuse before hours of work what could not be done after them."""
    if not options.data or not options.validation:
        raise InputError("--data and --validation are needed")
    if not options.minutes > 0:
        raise InputError(f"--minutes must be above 0, not {options.minutes:g}")
    for name in options.rows:
        if name not in ROWS:
            raise unknown_name("row", name, list(ROWS))
        load_config(ROWS[name].preset, [*COMMON, *ROWS[name].overrides])
    for path in (*options.data, options.validation):
        if not Path(path).expanduser().exists():
            raise InputError(f"no data at {path}")


def choose_cores(jobs: int) -> list[int]:
    """Return as many cores as there are rows at a time.

    Raises:
        InputError: There are too few.
    """
    cores = usable_cores()
    if not 1 <= jobs <= len(cores):
        raise InputError(f"--jobs must be between 1 and {len(cores)}, the cores here, not {jobs}")
    return cores[:jobs]


def usable_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def calibrate(
    options: argparse.Namespace, data: tuple[str, ...], cores: Sequence[int]
) -> dict[str, Any]:
    """Return steps and commit of every row; measured once, then kept in budget.json.

    Raises:
        InputError: The file was made for another budget.
    """
    file = options.runs / "budget.json"
    budget = json.loads(file.read_text()) if file.is_file() else {}
    budget = budget or {"minutes": options.minutes, "rows": {}}
    if budget["minutes"] != options.minutes:
        raise InputError(
            f"{file} holds steps for {budget['minutes']:g} minutes; choose another --runs folder"
        )
    for name in options.rows:
        if name in budget["rows"]:
            continue
        pace = budget["rows"].get(ROWS[name].pace)
        budget["rows"][name] = pace or measure_pace(name, options, data, cores)
        write_text(file, json.dumps(budget, indent=2) + "\n")
    return budget


def measure_pace(
    name: str, options: argparse.Namespace, data: tuple[str, ...], cores: Sequence[int]
) -> dict[str, Any]:
    """Return how long a step of a row takes and how many fit into its minutes."""
    seconds = seconds_per_step(name, options.runs / "calibration", data, cores)
    steps = max(1, math.floor(60 * options.minutes / seconds))
    print(f"{name}: {seconds:.3f} CPU s per step, {steps} steps", flush=True)
    return {"seconds_per_step": seconds, "steps": steps, "commit": code_version()}


def seconds_per_step(
    name: str, folder: Path, data: tuple[str, ...], cores: Sequence[int]
) -> float:
    """Return the mean CPU seconds of a row's step, while every core trains the same row.

    Runs differ in their seed, and so in which steps are at t = 0, which cost some models less.
    """
    shutil.rmtree(folder, ignore_errors=True)
    batch = load_config(ROWS[name].preset, [*COMMON, *ROWS[name].overrides]).batch_size
    limit = math.ceil((WARM_UP + 1) * batch / (len(data) // 2))
    settings = (f"data.limit={limit}", f"data.validation={batch}", "eval_every=1000000")
    jobs = [
        training_job(name, None, folder, data, f"{name}-{seed}", (*settings, f"seed={seed}"))
        for seed in range(len(cores))
    ]
    run_jobs(jobs, cores)
    logs = [job.run.read_metrics() for job in jobs]
    shutil.rmtree(folder)
    return sum(_slope(log) for log in logs) / len(logs)


def _slope(log: Sequence[Mapping[str, Any]]) -> float:
    """Return CPU seconds per step after the first epoch of WARM_UP steps."""
    first, last = log[0], log[-1]
    return (last["cpu_seconds"] - first["cpu_seconds"]) / (last["step"] - first["step"])


def training_job(
    name: str,
    budget: Mapping[str, Any] | None,
    folder: Path,
    data: tuple[str, ...],
    run_name: str = "",
    settings: tuple[str, ...] = (),
) -> Job:
    """Return the plain `sparsefield train` of a row, or of its calibration without a budget."""
    row, run = ROWS[name], Run(folder / (run_name or name))
    steps = budget["rows"][name]["steps"] if budget else WARM_UP + MEASURED
    overrides = (*COMMON, *row.overrides, *settings, f"steps={steps}")
    arguments = ("train", row.preset, *overrides, *data, "--run", str(run.folder))
    return Job(run.name, arguments, run, steps)


def run_jobs(jobs: Sequence[Job], cores: Sequence[int]) -> None:
    """Run training jobs, one per core at a time, until all have ended.

    Raises:
        InputError: A job failed, or was stopped before its last step.
    """
    waiting = [job for job in jobs if not is_done(job)]
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or running:
            for core in cores:
                if core not in running and waiting:
                    job = waiting.pop(0)
                    running[core] = job, start(job, core)
            time.sleep(0.1)
            for core, (_, process) in list(running.items()):
                if process.poll() is not None:
                    del running[core]
    finally:
        for _, process in running.values():
            process.terminate()  # it saves its state first
        for _, process in running.values():
            process.wait()
    failed = [job for job in jobs if not is_done(job)]
    if failed:
        raise InputError("; ".join(f"{job.name}: {last_words(job)}" for job in failed))


def start(job: Job, core: int) -> "subprocess.Popen[bytes]":
    """Start a job on a core, with one thread and a log in its run folder."""
    job.run.folder.mkdir(parents=True, exist_ok=True)
    print(f"{job.name}: {job.steps} steps on core {core}, log in {job.run.log_file}", flush=True)
    with job.run.log_file.open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sparsefield.cli", *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | ONE_THREAD,
        )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, {core})  # before it has started any thread
    return process


def is_done(job: Job) -> bool:
    log = job.run.read_metrics()
    return bool(log) and log[-1]["step"] >= job.steps


def last_words(job: Job) -> str:
    lines = job.run.log_file.read_text().split("\n") if job.run.log_file.is_file() else []
    return next((line for line in reversed(lines) if line.strip()), "no output")


@contextmanager
def children_end_with_us() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does, so that the children save and end too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Compare all rows and the baselines, draw the figures, and return the report.

    Raises:
        InputError: The comparison failed; it has said why.
    """
    file = options.runs / "comparison.json"
    reference = REFERENCE if REFERENCE in options.rows else options.rows[0]
    command = ["compare", *(f"{name}={options.runs / name}" for name in options.rows)]
    command += ["--reference", reference, "--data", str(options.validation), *EVALUATION]
    command += ["--device", "cpu", "--json", str(file), "--figures", str(images(options.out))]
    if sparsefield(command):
        raise InputError("the comparison failed")
    return without_folders(json.loads(file.read_text()))


def without_folders(report: dict[str, Any]) -> dict[str, Any]:
    """Call checkpoints by the names of their runs: where they lie means nothing elsewhere."""
    for row in report["contestants"].values():
        if row.get("checkpoint"):
            row["checkpoint"] = Path(row["checkpoint"]).name
    return report


def describe(
    name: str, budget: Mapping[str, Any], runs: Path, comparison: Mapping[str, Any]
) -> dict[str, Any]:
    """Return how a row was trained."""
    run = Run(runs / name)
    config, log = run.read_config(), run.read_metrics()
    precision = autocast_type(config.precision, choose_device(config.device))
    return {
        "preset": ROWS[name].preset,
        "overrides": list(ROWS[name].overrides),
        "parameters": comparison["contestants"][name]["parameters"],
        "prediction": config.flow.prediction,
        "lr": config.optimizer.lr,
        "batch_size": config.batch_size,
        "steps": log[-1]["step"],
        "images": log[-1]["step"] * config.batch_size,
        "cpu_seconds": log[-1]["cpu_seconds"],
        "seconds_per_step_expected": budget["rows"][name]["seconds_per_step"],
        "seed": config.seed,
        "device": config.device,
        "precision": str(precision or "torch.float32").removeprefix("torch."),
        "commit": budget["rows"][name]["commit"],
        "data": [Path(path).name for path in config.data.paths],
    }


def write_page(folder: Path) -> None:
    """Write the chart, and the tables of the page where there is one, from the results alone."""
    results, pages = folder / "results", folder / "docs" / "results"
    if not (results / "architectures.json").is_file():
        raise InputError(f"no results at {results / 'architectures.json'}; train first")
    draw_chart(results, pages)
    if (pages / "architectures.md").is_file():
        write_tables(results, pages, check=False)


def images(folder: Path) -> Path:
    return folder / "docs" / "results" / "images" / "architectures"


if __name__ == "__main__":
    sys.exit(main())
