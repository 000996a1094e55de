"""The training loop: batches in, checkpoints, metrics and figures out."""

import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import torch

from sparsefield.core.devices import autocast_type, choose_device
from sparsefield.core.errors import InputError
from sparsefield.core.launch import refuse_several
from sparsefield.data.scattered import ScatteredDataset
from sparsefield.evaluation.charts import save_training_figure
from sparsefield.evaluation.methods import evaluate_mean
from sparsefield.evaluation.task import Protocol
from sparsefield.flow.backbone import Query
from sparsefield.flow.objectives import contrast_weights, flow_matching_loss
from sparsefield.inference.checkpoint import ModelSpec, load_checkpoint, resolve, save_checkpoint
from sparsefield.inference.model import Model
from sparsefield.models import FITTED
from sparsefield.nn.recompute import recompute_blocks
from sparsefield.training.batches import Batch, TrainingBatches
from sparsefield.training.changes import (
    FLAG,
    ROUNDING,
    Change,
    check_changes,
    describe_changes,
    find_changes,
)
from sparsefield.training.config import TrainConfig, config_to_dict, follow_run
from sparsefield.training.data import TrainingData, follow_data, open_training_data
from sparsefield.training.fitting import fit
from sparsefield.training.parallel import Group, join
from sparsefield.training.run import Run
from sparsefield.training.state import (
    TrainState,
    describe_environment,
    fingerprint,
    saved_step,
)

ALONE = Group()


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


class Diverged(InputError):
    """The loss, a gradient, the weights or a score are not finite; the saved state is sound."""


def train(
    config: TrainConfig,
    run: Run,
    report: Callable[[Progress], None] = lambda progress: None,
    *,
    allow_changes: bool = False,
    notify: Callable[[str], None] = lambda line: None,
) -> None:
    """Train a model in a run folder, from the start or from where a previous call ended.

    Nothing is written before all that can be refused has been checked.

    Args:
        config: Settings.
        run: Folder of the run.
        report: Called after every step.
        allow_changes: Go on from the saved state with other settings, see `check_changes`.
        notify: Called with a line for everything that differs from when the state was saved.

    Raises:
        InputError: Data or settings are unusable, or a file cannot be written.
        Diverged: The loss or the weights became infinite.
        Stopped: A signal asked for the end; the same call continues.
    """
    if config.model["name"] in FITTED:
        refuse_several(f"{config.model['name']} is fitted")
        fit(config, run, notify)
        return
    with ExitStack() as held:
        group = held.enter_context(join(config.device))
        with group.together():
            group.check_batch(config.batch_size)
            if run.exists() and run.has_results():
                config = follow_run(config, run.read_config())
            data = open_training_data(config)
            config = follow_data(config, data)
            if group.leads:
                held.enter_context(run.claim())
        with group.together():
            changes = find_changes(run.read_config(), config) if run.exists() else []
            if run.has_results():
                check_changes(changes, str(run.folder), allow_changes)
            trainer = Trainer(config, run, data, report, group=group)
        for line in describe_changes(changes, run.has_results()) + trainer.notes:
            notify(line)
        trainer.begin(changes)
        trainer.run_all()


class Trainer:
    """One process's share of a run: state, data, clock.

    Args:
        config: Settings.
        run: Folder of the run.
        data: Fields to learn from and to choose the best weights by.
        report: Called after every step.
        group: The processes that take part.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: Run,
        data: TrainingData,
        report: Callable[[Progress], None],
        *,
        group: Group = ALONE,
    ) -> None:
        self.config, self.run, self.report, self.group = config, run, report, group
        self.validation = data.validation
        self.fields = [part.values for part in data if part is not None]
        self.device = choose_device(config.device)
        self.autocast = autocast_type(config.precision, self.device)
        self.spec = config.spec(data.training.normalizer, data.training.shape)
        torch.manual_seed(config.seed)
        flow = self.spec.build().to(self.device)
        resumes = run.resume_file.is_file()
        if config.init and not resumes:
            _take_weights(flow, config.init)
        self.state = TrainState(flow, config.optimizer, config.freeze)
        if config.recompute:
            recompute_blocks(self.state.flow)
        self.batches = TrainingBatches(data.training, config, data.finer)
        self.psnr: float | None = None
        self.stop_requested = False
        self.notes: list[str] = []
        if resumes:
            self._resume()

    @property
    def steps(self) -> int:
        """Step at which the run ends."""
        whole = self.state.origin + self.config.epochs * self.batches.steps_per_epoch
        return self.config.steps or whole

    def _resume(self) -> None:
        """Load the saved state, and note what makes the rest of the run differ.

        Raises:
            InputError: The state is damaged, of another model, of other fields or beyond the end.
        """
        state, per_epoch = self.state, self.batches.steps_per_epoch
        state.load(self.run.resume_file)
        self._check_fields()
        if state.per_epoch not in (0, per_epoch):
            finished = (state.step - state.origin) // state.per_epoch
            state.origin = state.step - finished * per_epoch
            state.counted, state.losses, state.grad_norms = 0, 0.0, 0.0
        if state.step > self.steps:
            raise InputError(
                f"{self.config.length} end before step {state.step}, at which {self.run.folder} "
                "was saved; set epochs or steps to more"
            )
        now = self._environment()
        changed = [
            f"{name} {state.environment[name]} -> {value}"
            for name, value in now.items()
            if state.environment.get(name, value) != value
        ]
        if changed:
            self.notes.append(f"changed: {', '.join(changed)}; {ROUNDING}")

    def _check_fields(self) -> None:
        if self.state.data not in ("", self._fingerprint):
            raise InputError(
                f"the data {', '.join(self.config.data.paths)} hold other fields than those that "
                f"{self.run.folder} was trained on; restore them, or start another --run folder "
                f"with init={self.run.folder}"
            )

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.fields)

    def _environment(self) -> dict[str, str]:
        described = describe_environment(self.device, self.autocast)
        return described | {"processes": str(self.group.size)}

    def begin(self, changes: Sequence[Change]) -> None:
        """Write the settings, and a line of history on this process and what it changes.

        Raises:
            InputError: The processes do not start from the same, or a file cannot be written.
        """
        self.state.per_epoch = self.batches.steps_per_epoch
        self.state.environment = self._environment()
        self.state.data = self._fingerprint
        start = (config_to_dict(self.config), self.state.data, self.state.step)
        self.group.check_same("settings, data or saved step", start)
        self.group.align(self.state.tensors().values())
        with self.group.together():
            if self.group.leads:
                self._record(changes)

    def _record(self, changes: Sequence[Change]) -> None:
        self.run.rewind_metrics(self.state.step)
        self.run.append_history(
            pid=os.getpid(),
            step=self.state.step,
            environment=self.state.environment,
            changes={change.key: [change.before, change.now] for change in changes},
        )
        self.run.write_config(self.config)

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
        state, per_epoch = self.state, self.batches.steps_per_epoch
        epoch, first = (state.step - state.origin) // per_epoch, state.step
        start = saved = time.monotonic()
        end = min(state.origin + (epoch + 1) * per_epoch, self.steps)
        while state.step < end:
            # Before a step, never after the last one: only `_finish_epoch` saves a whole epoch.
            if self.group.any(self.stop_requested):  # a signal may come while the group agrees
                with self.group.together():
                    self._save_state()
                raise Stopped
            if time.monotonic() - saved > self.config.resume_every:
                self._save_state()
                saved = time.monotonic()
            loss, norm = self.run_step()
            state.counted += 1
            state.losses += loss
            state.grad_norms += norm
            rate = (state.step - first) / (time.monotonic() - start)
            self._report(epoch, loss, rate)
        self._finish_epoch(epoch + 1, rate)

    def run_step(self) -> tuple[float, float]:
        """Take one step; return the loss and the norm of its gradient.

        Raises:
            Diverged: The loss or a gradient is not finite; the weights have not moved.
        """
        step, start = self.state.step, time.process_time()
        position = step - self.state.origin
        whole, rows = self.batches(position), self.group.share(self.config.batch_size)
        weights = contrast_weights(whole.obs, self.config.flow.contrast_weight)
        weights = weights[rows.start : rows.stop].to(self.device) / self.config.batch_size
        loss = (weights * self._losses(_to_device(whole.rows(rows), self.device))).sum()
        loss.backward()
        value = self.group.add_gradients(self.state.trained.values(), loss.detach())
        if not math.isfinite(value):
            self.state.forget_gradients()
            raise self._diverged(f"the loss of step {step} is {value}")
        rate = learning_rate(self.config, position, self.steps - self.state.origin)
        norm = self.state.update(rate)
        if not math.isfinite(norm):
            raise self._diverged(f"the gradient of step {step} has norm {norm}")
        # The processes have equal shares.
        self.state.cpu_seconds += self.group.size * (time.process_time() - start)
        return value, norm

    def _losses(self, batch: Batch) -> torch.Tensor:
        """Return the loss (B,) of each row."""
        flow = self.state.flow
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            t = flow.delay(flow.shift(batch.u))
            query = Query(batch.coords, batch.obs, batch.cell)
            return flow_matching_loss(flow, batch.x_0, batch.x_1, t, query, batch.known)

    def _finish_epoch(self, epoch: int, rate: float) -> None:
        """Validate, plot, save and log as often as the settings say."""
        self.group.align(self.state.tensors().values())
        self._check_weights()
        state, whole = self.state, self.steps - self.state.origin
        due = {
            name: epoch % every == 0 or self.state.step >= self.steps
            for name, every in (
                ("evaluate", self.config.eval_every),
                ("keep", self.config.save_every),
                ("plot", self.config.visualize_every),
            )
        }
        line = {
            "step": state.step,
            "epoch": epoch,
            "loss": state.losses / max(1, state.counted),
            "grad_norm": state.grad_norms / max(1, state.counted),
            "lr": learning_rate(self.config, state.step - 1 - state.origin, whole),
            "images_per_second": rate * self.config.batch_size,
            "cpu_seconds": state.cpu_seconds,
        }
        model = self._model()
        if due["evaluate"]:
            line |= self._validate(model)
        state.counted, state.losses, state.grad_norms = 0, 0.0, 0.0
        with self.group.together():
            if self.group.leads:
                self._write(self.run.latest, model)
                if due["keep"]:
                    self._write(self.run.epoch(epoch), model)
                if due["plot"]:
                    self._plot(model, epoch)
                self.run.append_metrics(**line)
            self._save_state()

    def _validate(self, model: Model) -> dict[str, float]:
        scores = self.group.score(
            len(self.validation),
            lambda items: (
                evaluate_mean(model, self.validation, self._protocol(), items=items).scores
            ),
        )
        means = {f"val_{name}": float(values.mean()) for name, values in scores.items()}
        self.psnr = means["val_psnr"]
        if not self.psnr > -math.inf:
            raise self._diverged(f"validation at step {self.state.step} scores {self.psnr} dB")
        if self.psnr > self.state.best:
            self.state.best = self.psnr
            if self.group.leads:
                self._write(self.run.best, model)
        return means

    def _write(self, path: Path, model: Model) -> None:
        save_checkpoint(path, model.spec, self.state.average.backbone.state_dict())

    def _plot(self, model: Model, epoch: int) -> None:
        """Plot rows of truth, observed points, target points, prediction and full field."""
        # Without the extra `plot` training goes on; points without a grid make no picture.
        if find_spec("matplotlib") is None or isinstance(self.validation, ScatteredDataset):
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
        series = getattr(self.validation, "series", None)
        card |= {} if series is None else series.card()
        spec = ModelSpec(**{**vars(self.spec), "card": card})
        return Model(self.run.name, self.state.average, spec)

    def _check_weights(self) -> None:
        try:
            self.state.check_finite()
        except InputError as error:
            raise self._diverged(str(error)) from error

    def _diverged(self, what: str) -> Diverged:
        step, rate = saved_step(self.run.resume_file), self.config.optimizer.lr
        again = f"run again with a lower optimizer.lr than {rate:g}"
        if self.run.resume_file.is_file():
            advice = f"the state saved at step {step} is sound: {again} and {FLAG}"
        else:
            advice = f"no state was saved yet: {again}"
        return Diverged(f"training has diverged: {what}; {advice}")

    def _save_state(self) -> None:
        self._check_weights()
        if self.group.leads:
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
    parts = {name: part.to(device) for name, part in vars(batch).items() if part is not None}
    return Batch(**parts)
