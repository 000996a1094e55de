"""sparsefield monitor: show how a run is doing."""

import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sparsefield.cli.options import RunName
from sparsefield.cli.progress import duration
from sparsefield.cli.status import Status, find_run

if TYPE_CHECKING:
    from sparsefield.training.run import Run

COLUMNS = ("epoch", "step", "loss", "val_psnr", "val_ssim", "lr", "images_per_second")
EPOCHS, LOG_LINES, LOG_BYTES = 8, 5, 10_000


def command(run: RunName, follow: bool = False) -> int:
    """Show the state of a run, its last epochs, the time left and the end of its log.

    Args:
        follow: Go on until the run ends; ctrl-C leaves the run alone.
    """
    found = find_run(run)
    if not follow:
        Console().print(_view(found))
        return 0
    with Live(_view(found), auto_refresh=False) as live:
        while found.owner() is not None:
            time.sleep(1)
            live.update(_view(found), refresh=True)
    return 0


def _view(run: "Run") -> Group:
    status = Status(run)
    title = f"{run.folder}: {status.state}, {status.progress}"
    left = status.seconds_left
    if left is not None and not status.finished:
        title += f", {duration(left)} left after it"
    parts: list[Table | Text] = [Text(title, style="bold")]
    if status.metrics:
        parts.append(_epochs(status))
    parts += [Text(line, style="dim") for line in _log_tail(run)]
    return Group(*parts)


def _epochs(status: Status) -> Table:
    table = Table(box=None)
    for name in COLUMNS:
        table.add_column(name.replace("_", " ").replace("per", "/"), justify="right")
    for line in status.metrics[-EPOCHS:]:
        values = [line.get(name) for name in COLUMNS]
        table.add_row(*("" if value is None else f"{value:.4g}" for value in values))
    return table


def _log_tail(run: "Run") -> list[str]:
    if not run.log_file.is_file():
        return []
    with run.log_file.open("rb") as log:
        log.seek(max(0, run.log_file.stat().st_size - LOG_BYTES))
        return log.read().decode(errors="replace").splitlines()[-LOG_LINES:]
