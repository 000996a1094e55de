"""sparsefield runs: list training runs."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import arg

from sparsefield.cli.status import Status
from sparsefield.core.errors import InputError

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 16  # characters of the course of the loss


def command(root: Annotated[Path, arg(metavar="DIR")] = Path("runs")) -> int:
    """List training runs.

    Args:
        root: Folder that holds the runs.
    """
    from sparsefield.training.run import find_runs

    runs = find_runs(root)
    if not runs:
        print(f"no runs in {root}")
        return 0
    console = Console()
    table = Table("run", "model", "state", box=None)
    for title in ("epoch", "step", "loss", "best val PSNR"):
        table.add_column(title, justify="right")
    if console.encoding.startswith("utf"):
        table.add_column("loss by epoch", no_wrap=True)
    for run in runs:
        table.add_row(*_row(Status(run))[: len(table.columns)])
    console.print(table)
    return 0


def _row(status: Status) -> list[str]:
    """Describe a run; one that another version left behind must not hide the others."""
    try:
        return _facts(status)
    except (InputError, OSError) as error:
        return [status.run.name, "", str(error)]


def _facts(status: Status) -> list[str]:
    last, psnr = status.last, status.best_psnr
    loss = last.get("loss")
    return [
        status.run.name,
        str(status.config.model["name"]),
        status.state,
        f"{status.epoch}" if status.config.steps else f"{status.epoch}/{status.config.epochs}",
        str(max(last.get("step", 0), status.saved_step)),
        f"{loss:.4f}" if loss is not None else "",
        "" if psnr is None else f"{psnr:.2f} dB",
        sparkline([line["loss"] for line in status.metrics if line.get("loss") is not None]),
    ]


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Return the course of numbers as bars, from the lowest of them to the highest.

    Each bar is the mean of as many neighbours as it takes to fit.

    Args:
        values: Finite numbers in order.
        width: Bars at most.
    """
    parts = min(width, len(values))
    cuts = [len(values) * part // parts for part in range(parts + 1)] if parts else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)
