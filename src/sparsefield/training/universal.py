"""Training of the universal interpolator: settings, state, loss and loop."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sparsefield.core.errors import InputError
from sparsefield.core.files import write_tensors
from sparsefield.models.universal import Features, Prediction, UniversalInterpolator
from sparsefield.training.universal_batches import Batch, UniversalBatches

GROSS = 3.0  # scores beyond so many of the reference's count by their logarithm
LEAST_STD = 1e-3  # of the reference, in standard deviations of the values


@dataclass(frozen=True)
class UniversalConfig:
    """Settings of a run.

    Attributes:
        steps: Steps of the optimiser.
        seed: Randomness of weights and items.
        window: Batches that are made at a time.
        repeats: Times that each of them is used before the next window.
        lr: Learning rate of Muon, for matrices; of AdamW for everything else `other_lr`.
        other_lr: Learning rate of biases, norms, tables and the head.
        weight_decay: Decay of matrices.
        warmup: Steps of linear warm-up, also after a start from weights without moments.
        decay: Last steps, over which the rate falls to zero; 0 leaves it, and the averaged
            weights take the place of a decay.
        ema: Decay of the averaged weights.
        clip: Largest norm of a gradient.
        half: Use bfloat16 products where the processor has them.
    """

    steps: int = 20000
    seed: int = 0
    window: int = 96
    repeats: int = 3
    lr: float = 3e-3
    other_lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 100
    decay: int = 0
    ema: float = 0.999
    clip: float = 1.0
    half: bool = True


class Losses(NamedTuple):
    """Parts of the loss, each a mean over a batch.

    Gross ones count less, see `bounded`.

    Attributes:
        log_score: Negative log density of new measurements, values standardised.
        crps: Their CRPS, in standard deviations of the reference.
        square: Squared error of the mean, in variances of the reference.
        field: Negative log density of the noise-free field.
    """

    log_score: Tensor
    crps: Tensor
    square: Tensor
    field: Tensor

    def total(self) -> Tensor:
        """Return what is minimised."""
        return self.log_score + self.crps + self.square / 4 + self.field / 10


def losses(said: Prediction, batch: Batch) -> Losses:
    """Score predictions; errors are relative to those that the averaged experts expect."""
    scale = reference_std(batch.features)
    square = ((said.value.mean - batch.target) / scale).square()
    miss = ((batch.clean - said.value.mean.detach()) / said.field_std).square() / 2
    field = (miss + said.field_std.log()).clamp_max(20)
    return Losses(
        -said.value.log_prob(batch.target).clamp_min(-20).mean(),
        bounded(said.value.crps(batch.target) / scale, GROSS).mean(),
        bounded(square, GROSS**2).mean(),
        torch.nan_to_num(field).mean(),
    )


def bounded(score: Tensor, most: float) -> Tensor:
    """Return scores at least 0, those beyond `most` by their logarithm.

    The experts are certain where a field is constant; a single edge would otherwise be the whole
    gradient of a batch.
    """
    return torch.where(score < most, score, most * (1 + (score.clamp_min(most) / most).log()))


def reference_std(x: Features) -> Tensor:
    """Return the standard deviation (B, Q) of the experts' average by tempered evidence."""
    share = (x.evidence / 2).softmax(1)[:, None]
    mean = (share * x.mean).sum(-1, keepdim=True)
    variance = (share * (x.var + (x.mean - mean).square())).sum(-1)
    return variance.sqrt().clamp_min(LEAST_STD)


class UniversalState:
    """Weights, averaged weights, moments and the number of steps.

    Args:
        model: The network to train.
        config: Settings.
    """

    def __init__(self, model: UniversalInterpolator, config: UniversalConfig) -> None:
        self.model, self.config = model, config
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.step = 0
        self.cpu_seconds = 0.0
        matrices = dict(_matrices(model))
        others = {n: p for n, p in model.named_parameters() if n not in matrices}
        self.muon = torch.optim.Muon(
            matrices.values(),
            lr=config.lr,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self.adam = torch.optim.AdamW(others.values(), lr=config.other_lr, weight_decay=0.0)
        for weight in matrices.values():
            self.muon.state[weight] = {"momentum_buffer": torch.zeros_like(weight)}
        for weight in others.values():
            self.adam.state[weight] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
            }

    def update(self) -> float:
        """Clip the gradients, step the optimisers and the average; return the gradient's norm."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        factor = rate_factor(self.config, self.step)
        for optimizer, rate in ((self.muon, self.config.lr), (self.adam, self.config.other_lr)):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
            for average, weight in pairs:
                average.lerp_(weight, 1 - decay)
        return float(norm)

    def save(self, path: Path) -> None:
        """Write everything atomically.

        Raises:
            InputError: The file cannot be written.
        """
        numbers = {"step": self.step, "cpu_seconds": self.cpu_seconds}
        write_tensors(path, self._tensors(), {k: repr(v) for k, v in numbers.items()})

    def load(self, path: Path) -> None:
        """Restore everything bit for bit.

        Raises:
            InputError: The file is damaged or belongs to another model.
        """
        try:
            saved = load_file(path)
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is damaged: {error}; delete it to start again") from error
        current = self._tensors()
        if {n: t.shape for n, t in saved.items()} != {n: t.shape for n, t in current.items()}:
            raise InputError(f"{path} belongs to another model; choose another run folder")
        for name, tensor in current.items():
            tensor.copy_(saved[name])
        self.step, self.cpu_seconds = int(metadata["step"]), float(metadata["cpu_seconds"])

    def _tensors(self) -> dict[str, Tensor]:
        names = {id(p): n for n, p in self.model.named_parameters()}
        tensors = {f"weights.{n}": p.data for n, p in self.model.named_parameters()}
        tensors |= {f"average.{n}": p.data for n, p in self.average.named_parameters()}
        for optimizer in (self.muon, self.adam):
            for weight, moments in optimizer.state.items():
                for kind, moment in moments.items():
                    tensors[f"{kind}.{names[id(weight)]}"] = moment
        return tensors


def _matrices(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the weights of linear maps between hidden layers, which Muon is for."""
    return [
        (f"{name}.weight", part.weight)
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and name != "head"
    ]


def rate_factor(config: UniversalConfig, step: int) -> float:
    """Return the factor of the learning rates: warm-up, constant, and at the end a decay."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    return rise * min(1.0, (config.steps - step) / max(1, config.decay))


class Report(NamedTuple):
    """Where a run stands."""

    step: int
    items: int
    log_score: float
    crps: float
    cpu_seconds: float


def train_universal(
    config: UniversalConfig,
    batches: UniversalBatches,
    folder: Path,
    model: UniversalInterpolator,
    report: Callable[[Report, UniversalState], None],
    until: float = math.inf,
) -> UniversalState:
    """Train, from the start or from where a previous call ended.

    Batches come in windows; each window is made once, used `repeats` times in random orders, and
    forgotten. What a step sees is a function of the seed and its number: on one thread a resumed
    run goes on bit for bit.

    Args:
        config: Settings.
        batches: Where batches come from.
        folder: Keeps the state.
        model: The network, with weights to start from.
        report: Called after every window, with the state saved.
        until: Time of day, as of `time.time`, at which to stop after a step.
    """
    state = UniversalState(model, config)
    path = folder / "state.safetensors"
    if path.exists():
        state.load(path)
    per_window = config.window * config.repeats
    half = config.half and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    while state.step < config.steps and time.time() < until:
        window, done = divmod(state.step, per_window)
        start = time.process_time()
        made = [batches[window * config.window + i] for i in range(config.window)]
        scores = []
        for number in _order(config, window)[done:]:
            scores.append(_step(state, made[number], half))
            if state.step >= config.steps or time.time() >= until:
                break
        state.cpu_seconds += time.process_time() - start
        state.save(path)
        items = (window + 1) * sum(len(b.target) for b in made)
        log_score, crps = np.mean(scores, axis=0)
        report(Report(state.step, items, log_score, crps, state.cpu_seconds), state)
    return state


def _order(config: UniversalConfig, window: int) -> Sequence[int]:
    """Return the batches of a window in the order in which steps use them."""
    rng = np.random.default_rng((config.seed, window, 1))
    orders = [rng.permutation(config.window) for _ in range(config.repeats)]
    return np.concatenate(orders).tolist()


def _step(state: UniversalState, batch: Batch, half: bool) -> tuple[float, float]:
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        said = state.model(batch.features)
    parts = losses(said, batch)
    total = parts.total()
    if bool(total.isfinite()):
        total.backward()
    state.update()
    return parts.log_score.item(), parts.crps.item()


def describe(config: UniversalConfig) -> dict[str, object]:
    """Return the settings of a run for a model card."""
    return asdict(config)
