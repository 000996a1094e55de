"""The part of `sparsefield evaluate` that scores tables of scattered points."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sparsefield.cli import options
from sparsefield.cli.progress import duration
from sparsefield.cli.tables import new_table
from sparsefield.core.errors import InputError
from sparsefield.core.words import counted

if TYPE_CHECKING:
    from sparsefield.evaluation.scattered import BaselineScores, ScatteredReport
    from sparsefield.inference.universal import Interpolator
    from sparsefield.metrics.statistics import Estimate

COLUMNS = ("rmse", "mae", "crps", "log_score", "coverage50", "coverage90")


def evaluate_table(
    model: str,
    scoring: options.Scoring,
    column: dict[str, Any],
    *,
    baselines: str,
    json: Path | None,
) -> int:
    """Score an interpolator, and baselines beside it, on a column of a table.

    Args:
        model: Its name or path, or 'baselines'.
        scoring: Where the table is, and the seed of the folds.
        column: What `read_scattered` is told.
        baselines: Which baselines.
        json: Where the result goes.
    """
    from sparsefield.evaluation.baseline_scores import choose_baselines
    from sparsefield.evaluation.report import write_report
    from sparsefield.evaluation.scattered import evaluate_scattered, read_scattered

    loaded = None if model == "baselines" else _load(model)
    table = read_scattered(Path(scoring.data).expanduser(), seed=scoring.seed, **column)
    names = choose_baselines(baselines, table.dims, on_grid=False)
    if loaded is None and not names:
        raise InputError("there is nothing to score; leave --baselines none out")
    note = Console(stderr=True)
    report = evaluate_scattered(
        loaded, table, names, announce=lambda name: note.print(name, style="dim", highlight=False)
    )
    if json is not None:
        write_report(json, report)
    _show(report)
    return 0


def _load(name: str) -> "Interpolator":
    from sparsefield.inference.loading import load
    from sparsefield.inference.universal import Interpolator

    model = load(name)
    if not isinstance(model, Interpolator):
        raise InputError(
            f"model '{name}' is a flow on a grid; tables are scored for interpolators such as "
            "'universal'"
        )
    return model


def _show(report: "ScatteredReport") -> None:
    console = Console()
    split = "the table's split" if report.folds == 1 else counted(report.folds, "fold")
    rows = f"{counted(report.n_train, 'row')}, {report.n_test} hidden by {split}"
    console.print(f"{report.data}: {rows}")
    table = new_table(*(name.replace("_", " ") for name in COLUMNS), "seconds")
    if report.mean and report.predictive:
        own = vars(report.mean) | vars(report.predictive)
        table.add_row(report.model, *_cells(own), f"{report.seconds:.2f}")
    for name, row in report.baselines.items():
        table.add_row(name, *_cells(vars(row)), f"{row.seconds:.2f}")
    console.print(table)
    console.print(f"in the units of the data; {duration(report.seconds)}")
    if (kriging := report.baselines.get("kriging")) and kriging.rmse_ratio and kriging.crps_ratio:
        console.print(_compared(report.model, kriging))


def _cells(scores: "dict[str, Estimate | None]") -> list[str]:
    found = [scores[name] for name in COLUMNS]
    return ["" if score is None else f"{score.value:.4g}" for score in found]


def _compared(model: str, kriging: "BaselineScores") -> str:
    ratios = {"RMSE": kriging.rmse_ratio, "CRPS": kriging.crps_ratio}
    parts = [f"{k} {r.text('.3f')}" for k, r in ratios.items() if r]
    return f"{model} over fitted kriging: {', '.join(parts)}"
