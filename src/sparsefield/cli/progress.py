"""Progress on a terminal as a bar, anywhere else as a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from sparsefield.training.loop import Progress

SECONDS_BETWEEN_LINES = 30.0


def duration(seconds: float) -> str:
    """Return a time in words, `42 s`, `3 min 20 s` or `1 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@contextmanager
def count_fields(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many fields are done; yields the function that counts more of them."""
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(label, total=total)
        yield lambda count: bars.advance(task, count)


@contextmanager
def show_training() -> Iterator[Callable[["Progress"], None]]:
    """Show a training run; yields the function that takes its progress after each step."""
    if not sys.stdout.isatty():
        yield LinePrinter()
        return
    columns = (BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
    with Bars(*columns) as bars:
        task = bars.add_task("training", total=None, text="preparing")
        yield lambda p: bars.update(task, completed=p.step, total=p.steps, text=describe(p))


class LinePrinter:
    """Print progress at the first and the last step, and every half minute between."""

    def __init__(self) -> None:
        self.last = float("-inf")

    def __call__(self, progress: "Progress") -> None:
        """Print the progress if it is time for a line."""
        now = time.monotonic()
        if progress.step == progress.steps or now - self.last > SECONDS_BETWEEN_LINES:
            print(f"step {progress.step}/{progress.steps}  {describe(progress)}", flush=True)
            self.last = now


def describe(progress: "Progress") -> str:
    """Return the state of a training run in one line."""
    parts = [
        f"epoch {progress.epoch}",
        f"loss {progress.loss:.4f}",
        f"{progress.images_per_second:.0f} images/s",
        f"{duration(progress.seconds_left)} left",
    ]
    if progress.psnr is not None:
        parts.insert(2, f"val PSNR {progress.psnr:.2f} dB")
    return "  ".join(parts)
