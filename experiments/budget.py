"""Train for so many CPU-minutes of one thread, and keep the curve of the score."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sparsefield.core.version import code_version
from sparsefield.data.dataset import FieldDataset
from sparsefield.evaluation.methods import evaluate_mean
from sparsefield.evaluation.task import Protocol
from sparsefield.flow.flow import Flow
from sparsefield.inference.model import Model
from sparsefield.training.config import TrainConfig
from sparsefield.training.data import TrainingData, follow_data
from sparsefield.training.loop import Trainer
from sparsefield.training.run import Run

WARM_UP, MEASURED = 4, 12  # steps
NOTES = 8  # of the score, along a run


class Watch:
    """Writes how well the averaged weights of a run do, now and then, into curve.jsonl.

    Args:
        trainer: The run.
        fields: Fields to score.
        protocol: How they are observed.
        every: CPU seconds between two scores.
    """

    def __init__(
        self, trainer: Trainer, fields: FieldDataset, protocol: Protocol, every: float
    ) -> None:
        self.trainer, self.fields, self.protocol, self.every = trainer, fields, protocol, every
        self.file = trainer.run.folder / "curve.jsonl"
        self.due = trainer.state.cpu_seconds

    def note(self, *, last: bool = False) -> None:
        """Score the weights if it is time."""
        state = self.trainer.state
        if state.cpu_seconds < self.due and not last:
            return
        self.due = state.cpu_seconds + self.every
        self._write(state.average, step=state.step, cpu_seconds=state.cpu_seconds)

    def _write(self, flow: Flow, **counts: float) -> None:
        model = Model("now", flow, self.trainer.spec)
        psnr = evaluate_mean(model, self.fields, self.protocol).scores["psnr"].mean()
        line = counts | {"psnr": float(psnr)}
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(self.trainer.run.name, line, flush=True)


def train_for(
    minutes: float,
    folder: Path,
    config: TrainConfig,
    data: TrainingData,
    fields: FieldDataset,
    protocol: Protocol,
) -> None:
    """Train a run to its last step; one that was stopped goes on.

    Args:
        minutes: CPU-minutes, from which the steps are fixed at the start.
        folder: Folder of the run.
        config: Its settings, but for the steps.
        data: What it learns from.
        fields: What its curve is scored on.
        protocol: How they are observed.
    """
    run = Run(folder)
    config = follow_data(config, data)
    steps = run.read_config().steps if run.exists() else count_steps(minutes, config, data)
    config = replace(config, steps=steps)
    with run.claim():
        trainer = Trainer(config, run, data, lambda progress: watch.note())
        watch = Watch(trainer, fields, protocol, 60 * minutes / NOTES)
        trainer.begin([])
        watch.note()
        trainer.run_all()
        watch.note(last=True)


def count_steps(minutes: float, config: TrainConfig, data: TrainingData) -> int:
    """Return how many steps fit into so many CPU-minutes."""
    with TemporaryDirectory() as folder:
        short = replace(config, steps=WARM_UP + MEASURED)
        trainer = Trainer(short, Run(Path(folder)), data, lambda _: None)
        for _ in range(WARM_UP):
            trainer.run_step()
        before = trainer.state.cpu_seconds
        for _ in range(MEASURED):
            trainer.run_step()
    each = (trainer.state.cpu_seconds - before) / MEASURED
    steps = max(1, int(60 * minutes / each))
    print(f"{each:.2f} CPU s a step, {steps} steps", flush=True)
    return steps


def describe_run(folder: Path) -> dict[str, Any]:
    """Return how a run was trained, with its curve."""
    run = Run(folder)
    config, log = run.read_config(), run.read_metrics()
    environment = run.read_history()[-1]["environment"]
    lines = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    curve = sorted({line["step"]: line for line in lines}.values(), key=lambda x: x["step"])
    return {
        "steps": log[-1]["step"],
        "images": log[-1]["step"] * config.batch_size,
        "cpu_seconds": log[-1]["cpu_seconds"],
        "instructions": environment["instructions"],
        "precision": environment["precision"],
        "seed": config.seed,
        "data": [Path(path).name for path in config.data.paths],
        "commit": code_version(),
        **{f"curve_{key}": [line[key] for line in curve] for key in curve[0]},
    }
