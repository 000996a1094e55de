"""sparsefield runs: list training runs."""

from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import arg

from sparsefield.cli.status import Status
from sparsefield.core.errors import InputError


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
    table = Table("run", "model", "state", box=None)
    for title in ("epoch", "step", "loss", "best val PSNR"):
        table.add_column(title, justify="right")
    for run in runs:
        table.add_row(*_row(Status(run)))
    Console().print(table)
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
    ]
