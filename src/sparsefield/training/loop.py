"""The training loop: batches in, checkpoints, metrics and figures out."""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from types import FrameType

import numpy as np
import torch

from sparsefield.core.devices import autocast_type, choose_device
from sparsefield.core.errors import InputError
from sparsefield.evaluation.charts import save_training_figure
from sparsefield.evaluation.methods import evaluate_mean
from sparsefield.evaluation.task import Protocol
from sparsefield.flow.backbone import Query
from sparsefield.flow.objectives import contrast_weights, flow_matching_loss
from sparsefield.inference.checkpoint import ModelSpec, load_checkpoint, resolve, save_checkpoint
from sparsefield.inference.model import Model
from sparsefield.nn.recompute import recompute_blocks
from sparsefield.training.batches import Batch, TrainingBatches
from sparsefield.training.config import TrainConfig, follow_run
from sparsefield.training.data import TrainingData, follow_data, open_training_data
from sparsefield.training.run import Run
from sparsefield.training.state import TrainState


@dataclass(frozen=True)
class Progress:
    """What a progress display shows."""

    step: int
    steps: int
    epoch: int
    loss: float
    images_per_second: float
    seconds_left: float
    psnr: float | None


class Stopped(Exception):
    """The run was asked to end; its state is saved."""


def train(
    config: TrainConfig, run: Run, report: Callable[[Progress], None] = lambda progress: None
) -> None:
    """Train a model in a run folder, from the start or from where a previous call ended.

    Args:
        config: Settings.
        run: Folder of the run.
        report: Called after every step.

    Raises:
        InputError: Data or settings are unusable, or a file cannot be written.
        Stopped: A signal asked for the end; the same call continues.
    """
    if run.exists():
        config = follow_run(config, run.read_config())
    data = open_training_data(config)
    config = follow_data(config, data)
    with run.claim():
        run.write_config(config)
        Trainer(config, run, data, report).run_all()


class Trainer:
    """One process's share of a run: state, data, clock.

    Args:
        config: Settings.
        run: Folder of the run.
        data: Fields to learn from and to choose the best weights by.
        report: Called after every step.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: Run,
        data: TrainingData,
        report: Callable[[Progress], None],
    ) -> None:
        self.config, self.run, self.report = config, run, report
        self.validation = data.validation
        self.device = choose_device(config.device)
        self.autocast = autocast_type(config.precision, self.device)
        self.spec = config.spec(data.training.normalizer, data.training.shape)
        torch.manual_seed(config.seed)
        flow = self.spec.build().to(self.device)
        if config.init:
            _take_weights(flow, config.init)
        self.state = TrainState(flow, config.optimizer, config.freeze)
        if config.recompute:
            recompute_blocks(self.state.flow)
        self.batches = TrainingBatches(data.training, config, data.finer)
        self.steps = config.steps or config.epochs * self.batches.steps_per_epoch
        self.psnr: float | None = None
        self.stop_requested = False
        if run.resume_file.is_file():
            self.state.load(run.resume_file)
            run.rewind_metrics(self.state.step)

    def run_all(self) -> None:
        """Train to the end; on SIGTERM or SIGINT save the state and raise `Stopped`."""
        signals = (signal.SIGTERM, signal.SIGINT)
        handlers = {number: signal.signal(number, self._request_stop) for number in signals}
        try:
            while self.state.step < self.steps:
                self._run_epoch()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _run_epoch(self) -> None:
        """Run to the end of the current epoch, saving the state now and then."""
        per_epoch = self.batches.steps_per_epoch
        epoch = self.state.step // per_epoch
        losses, grad_norms, first = [], [], self.state.step
        start = saved = time.monotonic()
        end = min((epoch + 1) * per_epoch, self.steps)
        while self.state.step < end:
            # Before a step, never after the last one: only `_finish_epoch` saves a whole epoch.
            if self.stop_requested or time.monotonic() - saved > self.config.resume_every:
                self._save_state()
                saved = time.monotonic()
            if self.stop_requested:
                raise Stopped
            loss, norm = self.run_step()
            losses.append(loss)
            grad_norms.append(norm)
            rate = (self.state.step - first) / (time.monotonic() - start)
            self._report(epoch, loss, rate)
        self._finish_epoch(epoch + 1, float(np.mean(losses)), float(np.mean(grad_norms)), rate)

    def run_step(self) -> tuple[float, float]:
        """Take one step; return the loss and the norm of its gradient.

        Raises:
            InputError: The loss is not finite.
        """
        step, start = self.state.step, time.process_time()
        batch = _to_device(self.batches(step), self.device)
        flow = self.state.flow
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            t = flow.shift(batch.u)
            query = Query(batch.coords, batch.obs, batch.cell)
            losses = flow_matching_loss(flow, batch.x_0, batch.x_1, t, query)
            weights = contrast_weights(batch.obs, self.config.flow.contrast_weight)
            loss = (weights * losses).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(
                f"the loss of step {step} is {value}; lower optimizer.lr and run again: "
                "the last saved state is sound"
            )
        loss.backward()
        norm = self.state.update(learning_rate(self.config, step, self.steps))
        self.state.cpu_seconds += time.process_time() - start
        return value, norm

    def _finish_epoch(self, epoch: int, loss: float, grad_norm: float, rate: float) -> None:
        """Validate, draw, save and log as often as the settings say."""
        due = {
            name: epoch % every == 0 or self.state.step >= self.steps
            for name, every in (
                ("evaluate", self.config.eval_every),
                ("keep", self.config.save_every),
                ("draw", self.config.visualize_every),
            )
        }
        line = {
            "step": self.state.step,
            "epoch": epoch,
            "loss": loss,
            "grad_norm": grad_norm,
            "lr": learning_rate(self.config, self.state.step - 1, self.steps),
            "images_per_second": rate * self.config.batch_size,
            "cpu_seconds": self.state.cpu_seconds,
        }
        model = self._model()
        if due["evaluate"]:
            line |= self._validate(model)
        weights = self.state.average.backbone.state_dict()
        save_checkpoint(self.run.latest, model.spec, weights)
        if due["keep"]:
            save_checkpoint(self.run.epoch(epoch), model.spec, weights)
        if due["draw"]:
            self._draw(model, epoch)
        self.run.append_metrics(**line)
        self._save_state()

    def _validate(self, model: Model) -> dict[str, float]:
        scores = evaluate_mean(model, self.validation, self._protocol()).scores
        means = {f"val_{name}": float(values.mean()) for name, values in scores.items()}
        self.psnr = means["val_psnr"]
        if self.psnr > self.state.best:
            self.state.best = self.psnr
            weights = self.state.average.backbone.state_dict()
            save_checkpoint(self.run.best, model.spec, weights)
        return means

    def _draw(self, model: Model, epoch: int) -> None:
        """Draw rows of truth, observed points, target points, prediction and full field."""
        if find_spec("matplotlib") is None:  # the extra `plot`, which training can do without
            return
        target, path = self.config.data.target, self.run.figure(epoch)
        protocol = self._protocol()
        save_training_figure(model, self.validation, protocol, target=target, path=path)

    def _protocol(self) -> Protocol:
        """Observe validation fields at the middle of the densities that are trained on."""
        return Protocol(sum(self.config.data.density) / 2, self.config.seed)

    def _model(self) -> Model:
        card = {
            "data": list(self.config.data.paths),
            "steps": self.state.step,
            "batch_size": self.config.batch_size,
            "seed": self.config.seed,
        }
        spec = ModelSpec(**{**vars(self.spec), "card": card})
        return Model(self.run.name, self.state.average, spec)

    def _save_state(self) -> None:
        self.state.save(self.run.resume_file)

    def _report(self, epoch: int, loss: float, rate: float) -> None:
        self.report(
            Progress(
                step=self.state.step,
                steps=self.steps,
                epoch=epoch + 1,
                loss=loss,
                images_per_second=rate * self.config.batch_size,
                seconds_left=(self.steps - self.state.step) / rate,
                psnr=self.psnr,
            )
        )

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = True


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the rate of a step: linear warm-up, then half a cosine to zero."""
    warmup = min(config.optimizer.warmup, steps // 2)
    if step < warmup:
        return config.optimizer.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.optimizer.lr * (1 + math.cos(math.pi * progress)) / 2


def _take_weights(flow: torch.nn.Module, checkpoint: str) -> None:
    """Copy every weight that has the same name and shape in a checkpoint.

    Raises:
        InputError: The checkpoint is unusable, or shares no weight.
    """
    source = load_checkpoint(resolve(checkpoint))[0].state_dict()
    target = flow.state_dict()
    shared = {n: w for n, w in source.items() if n in target and target[n].shape == w.shape}
    if not shared:
        raise InputError(f"init: {checkpoint} shares no weight with this model")
    flow.load_state_dict(shared, strict=False)


def _to_device(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    return Batch(**{name: part.to(device) for name, part in vars(batch).items()})
