"""Progress on a terminal as a bar, anywhere else as a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from sparsefield.training.loop import Progress

SECONDS_TO_FIRST_LINE, SECONDS_BETWEEN_LINES = 5.0, 30.0


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
    """Show how many fields are done and about how long the rest takes.

    On a terminal it is a bar, elsewhere a line on stderr now and then: work that is done within
    seconds prints none.

    Yields:
        The function that counts more of them.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield LineCounter(label, total)
        return
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task(label, total=total)
        yield lambda count: bars.advance(task, count)


class LineCounter:
    """Print what is done of a whole: once early, which tells how long it takes, and now and then.

    Args:
        label: What is counted.
        total: How many there are.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, label: str, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.label, self.total, self.clock = label, total, clock
        self.done = 0
        self.start = clock()
        self.due = self.start + SECONDS_TO_FIRST_LINE

    def __call__(self, count: int) -> None:
        """Count some more, and print a line if it is time for one."""
        self.done += count
        now = self.clock()
        if now < self.due or not 0 < self.done < self.total:
            return
        left = (now - self.start) * (self.total - self.done) / self.done
        text = f"{self.label} {self.done:,}/{self.total:,}  about {duration(left)} left"
        print(text, file=sys.stderr, flush=True)
        self.due = now + SECONDS_BETWEEN_LINES


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
