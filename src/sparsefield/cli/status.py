"""What a run folder says about its run."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsefield.core.errors import InputError, unknown_name

if TYPE_CHECKING:
    from sparsefield.training.config import TrainConfig
    from sparsefield.training.run import Run


@dataclass(frozen=True)
class Status:
    """The state of a run, as its files tell it.

    Args:
        run: The run.
    """

    run: "Run"

    @cached_property
    def config(self) -> "TrainConfig":
        """Settings of the run."""
        return self.run.read_config()

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """One entry per finished epoch."""
        return self.run.read_metrics()

    @property
    def last(self) -> dict[str, Any]:
        """Entry of the last finished epoch, empty before the first."""
        return self.metrics[-1] if self.metrics else {}

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return int(self.last.get("epoch", 0))

    @property
    def finished(self) -> bool:
        """Whether all epochs, or all steps, are done."""
        if self.config.steps:
            return self.last.get("step", 0) >= self.config.steps
        return self.epoch >= self.config.epochs

    @property
    def progress(self) -> str:
        """Finished epochs, or steps, of all."""
        if self.config.steps:
            return f"step {self.last.get('step', 0)} of {self.config.steps}"
        return f"epoch {self.epoch} of {self.config.epochs}"

    @property
    def best_psnr(self) -> float | None:
        """Highest validation PSNR in dB so far."""
        values = [line["val_psnr"] for line in self.metrics if line.get("val_psnr") is not None]
        return max(values, default=None)

    @property
    def saved_step(self) -> int:
        """Step from which the run would resume."""
        from sparsefield.training.state import saved_step

        return saved_step(self.run.resume_file)

    @property
    def state(self) -> str:
        """One of "training (process N)", "finished" and "stopped"."""
        if self.run.owner() is not None:
            return f"training (process {self.run.pid() or 'unknown'})"
        return "finished" if self.finished else "stopped"

    @property
    def seconds_left(self) -> float | None:
        """Time to the end at the speed of the last epoch; unknown before one is done."""
        rate = self.last.get("images_per_second")
        if not rate or not self.epoch:
            return None
        whole = self.config.steps or self.last["step"] / self.epoch * self.config.epochs
        steps = whole - self.last["step"]
        return steps * self.config.batch_size / float(rate)


def find_run(name: str) -> "Run":
    """Return a run by its folder, or by its name below runs/.

    Raises:
        InputError: There is no such run.
    """
    from sparsefield.training.run import RUNS, Run, find_runs

    for folder in (Path(name), RUNS / name):
        if Run(folder).exists():
            return Run(folder)
    known = [run.name for run in find_runs()]
    if known:
        raise unknown_name("run", name, known)
    raise InputError(f"no run at {name}: it has no config.json")
