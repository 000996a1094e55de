"""The state of a training run, and its exact copy on disk."""

import copy
import hashlib
import math
import platform
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sparsefield.core.checks import check_finite
from sparsefield.core.errors import InputError
from sparsefield.core.files import dump_json, parse_json, write_tensors
from sparsefield.flow.flow import Flow
from sparsefield.nn.unet import MatrixConv
from sparsefield.training.config import OptimizerConfig

# What the state counts, and how it is written; a state of an older version lacks some.
NUMBERS: dict[str, type[int] | type[float]] = {
    "step": int,
    "best": float,
    "cpu_seconds": float,
    "origin": int,
    "per_epoch": int,
    "counted": int,
    "losses": float,
    "grad_norms": float,
}
NEEDED = ("step", "best", "cpu_seconds")


class TrainState:
    """Weights, averaged weights, optimiser and counts: all that a resumed run needs.

    Attributes:
        step: Steps taken.
        best: Best validation PSNR so far, in dB.
        cpu_seconds: Of all steps, over all processes that took part.
        origin: Step at which the first epoch would have begun in batches of today's size.
        per_epoch: Steps of an epoch; 0 if an older version saved the state.
        counted: Steps of the unfinished epoch in the sums that follow.
        losses: Sum of their losses.
        grad_norms: Sum of the norms of their gradients.
        environment: What the last digits depend on, see `describe_environment`.
        data: Fingerprint of the fields.

    Args:
        flow: The flow to train.
        config: Settings of the optimiser.
        freeze: Prefixes of backbone weights that are not trained.

    Raises:
        InputError: A prefix fits no weight.
    """

    def __init__(self, flow: Flow, config: OptimizerConfig, freeze: tuple[str, ...] = ()) -> None:
        self.flow = flow
        self.average: Flow = copy.deepcopy(flow).eval().requires_grad_(False)
        self.step = self.origin = self.per_epoch = self.counted = 0
        self.best = float("-inf")
        self.cpu_seconds = self.losses = self.grad_norms = 0.0
        self.environment: dict[str, str] = {}
        self.data = ""
        self.config = config
        for prefix in freeze:
            _freeze(flow, prefix)
        self.trained = {n: w for n, w in flow.named_parameters() if w.requires_grad}
        self.optimizers = _build_optimizers(flow, self.trained, config)

    def update(self, learning_rate: float) -> float:
        """Clip the gradients, step the optimiser and the average; return the gradient's norm.

        Nothing moves by a gradient that is not finite: its norm tells.
        """
        weights: list[Tensor] = list(self.trained.values())
        norm = float(nn.utils.clip_grad_norm_(weights, self.config.clip))
        if not math.isfinite(norm):
            self.forget_gradients()
            return norm
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        self.forget_gradients()
        self.step += 1
        self._move_average(weights)
        return norm

    def forget_gradients(self) -> None:
        """Drop the gradients of a step."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _move_average(self, weights: list[Tensor]) -> None:
        """Move the average towards the weights, faster at first: decay min(ema, (1+n)/(10+n))."""
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        average: list[Tensor] = [self.average.get_parameter(name) for name in self.trained]
        torch._foreach_lerp_(average, weights, 1 - decay)

    def check_finite(self) -> None:
        """Check that no step has broken the weights.

        Raises:
            InputError: A weight or its average is not finite.
        """
        for part in (self.flow, self.average):
            for name, weight in part.named_parameters():
                check_finite(f"the weights {name} after step {self.step}", weight.detach())

    def save(self, path: Path) -> None:
        """Write the whole state atomically.

        Raises:
            InputError: The file cannot be written.
        """
        metadata = {name: repr(kind(getattr(self, name))) for name, kind in NUMBERS.items()}
        metadata |= {"environment": dump_json(self.environment), "data": self.data}
        write_tensors(path, self.tensors(), metadata)

    def load(self, path: Path) -> None:
        """Restore the state bit for bit.

        Raises:
            InputError: The file is damaged or belongs to another model.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
            saved = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise _damaged(path, error) from error
        current = self.tensors()
        if _kinds(saved) != _kinds(current):
            raise InputError(f"{path} belongs to another model; choose another --run folder")
        self._read_numbers(metadata, path)
        for name, tensor in saved.items():
            try:
                check_finite(name, tensor)
            except InputError as error:
                raise _damaged(path, error) from error
        for name, tensor in current.items():
            tensor.copy_(saved[name])

    def _read_numbers(self, metadata: dict[str, str], path: Path) -> None:
        for name, kind in NUMBERS.items():
            if name in metadata or name in NEEDED:
                setattr(self, name, _number(metadata.get(name, ""), kind, name, path))
        environment = parse_json(metadata.get("environment", "{}"), str(path))
        if not isinstance(environment, dict):
            raise _damaged(path, "its environment is no object")
        self.environment = {str(key): str(value) for key, value in environment.items()}
        self.data = metadata.get("data", "")

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the state by name: weights, averages, moments."""
        tensors = {f"weights.{n}": w.data for n, w in self.flow.state_dict().items()}
        tensors |= {f"average.{n}": w.data for n, w in self.average.state_dict().items()}
        names: dict[Tensor, str] = {weight: name for name, weight in self.trained.items()}
        for optimizer in self.optimizers:
            for weight, moments in optimizer.state.items():
                for kind, moment in moments.items():
                    tensors[f"optimizer.{kind}.{names[weight]}"] = moment
        return tensors


def describe_environment(device: torch.device, autocast: torch.dtype | None) -> dict[str, str]:
    """Return what the last digits of a training run depend on, beside its settings.

    Sums are rounded in an order that the number of threads, the instructions of the processor and
    the version of the library decide.
    """
    return {
        "device": device.type,
        "precision": str(autocast or torch.float32).removeprefix("torch."),
        "threads": str(torch.get_num_threads()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "torch": torch.__version__.partition("+")[0],
    }


def fingerprint(parts: Iterable[np.ndarray]) -> str:
    """Return a hash of arrays: their types, shapes and values."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(f"{part.dtype} {part.shape};".encode())
        for item in part:
            digest.update(np.ascontiguousarray(item).data)
    return digest.hexdigest()


def saved_step(path: Path) -> int:
    """Return the step of a state on disk, without its tensors; 0 if there is no sound one."""
    try:
        with safe_open(path, framework="pt") as file:
            return int(_number((file.metadata() or {}).get("step", ""), int, "step", path))
    except (OSError, SafetensorError, ValueError):
        return 0


def _number(text: str, kind: type[int] | type[float], name: str, path: Path) -> int | float:
    """Read a number of the metadata."""
    try:
        number = kind(text)
    except (ValueError, OverflowError) as error:
        raise _damaged(path, f"its {name} is {text[:50]!r}") from error
    lowest = 0 if kind is int and name != "origin" else -math.inf
    largest = 2**62 if kind is int else math.inf
    strange = abs(number) >= largest and name != "best"  # which is infinite before the first
    if number != number or number < lowest or strange:
        raise _damaged(path, f"its {name} is {text[:50]}")
    return number


def _kinds(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _damaged(path: Path, reason: object) -> InputError:
    return InputError(f"{path} is damaged: {reason}; delete it to start again")


def _freeze(flow: Flow, prefix: str) -> None:
    weights = [w for n, w in flow.named_parameters() if n.startswith(f"backbone.{prefix}")]
    if not weights:
        raise InputError(f"freeze: no weight of this model starts with '{prefix}'")
    for weight in weights:
        weight.requires_grad_(False)


def _build_optimizers(
    flow: Flow, weights: dict[str, nn.Parameter], config: OptimizerConfig
) -> list[torch.optim.Optimizer]:
    """Return the optimisers that share the weights, with moments of all of them.

    Muon takes the matrices between hidden layers: those of linear maps and of convolutions that
    are kept as such, but for the first and the last one of the flow. It is scaled so that one
    learning rate suits both.

    References:
        Muon is scalable for LLM training (Liu et al., 2025), section 2.2, for the scale.
    """
    linear = [name for name in _linear_weights(flow) if name in weights]
    hidden = linear[1:-1] if config.name == "muon" else []
    rest = {name: weight for name, weight in weights.items() if name not in hidden}
    decayed = [rest.pop(name) for name in linear if name in rest]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": list(rest.values()), "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)
    for group in adam.param_groups:
        for weight in group["params"]:
            adam.state[weight] = _adam_moments(weight)
    if not hidden:
        return [adam]
    muon = torch.optim.Muon(
        [weights[name] for name in hidden],
        lr=config.lr,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    for name in hidden:
        muon.state[weights[name]] = {"momentum_buffer": torch.zeros_like(weights[name])}
    return [adam, muon]


def _linear_weights(flow: Flow) -> list[str]:
    return [
        f"{name}.weight"
        for name, part in flow.named_modules()
        if type(part) in (nn.Linear, MatrixConv)
    ]


def _adam_moments(weight: Tensor) -> dict[str, Tensor]:
    """Return moments at 0: also those of weights that no step has moved yet are saved."""
    return {
        "step": torch.zeros((), device=weight.device),
        "exp_avg": torch.zeros_like(weight),
        "exp_avg_sq": torch.zeros_like(weight),
    }
