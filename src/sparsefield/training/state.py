"""The state of a training run, and its exact copy on disk."""

import copy
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sparsefield.core.errors import InputError
from sparsefield.core.files import write_tensors
from sparsefield.flow.flow import Flow
from sparsefield.training.config import OptimizerConfig


class TrainState:
    """Weights, averaged weights, optimiser and step count: all that a resumed run needs.

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
        self.step = 0
        self.best = float("-inf")
        self.cpu_seconds = 0.0  # of all steps, over all processes that took part
        self.config = config
        for prefix in freeze:
            _freeze(flow, prefix)
        self.trained = {n: w for n, w in flow.named_parameters() if w.requires_grad}
        self.optimizer = torch.optim.AdamW(
            _decay_groups(flow, self.trained, config.weight_decay),
            lr=config.lr,
            betas=(0.9, config.beta2),
            fused=True,
        )
        self._initialise_moments()

    def update(self, learning_rate: float) -> float:
        """Clip the gradients, step the optimiser and the average; return the gradient's norm."""
        weights: list[Tensor] = list(self.trained.values())
        norm = nn.utils.clip_grad_norm_(weights, self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._move_average(weights)
        return float(norm)

    @torch.no_grad()
    def _move_average(self, weights: list[Tensor]) -> None:
        """Move the average towards the weights, faster at first: decay min(ema, (1+n)/(10+n))."""
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        average: list[Tensor] = [self.average.get_parameter(name) for name in self.trained]
        torch._foreach_lerp_(average, weights, 1 - decay)

    def save(self, path: Path) -> None:
        """Write the whole state atomically.

        Raises:
            InputError: The file cannot be written.
        """
        numbers = {"step": self.step, "best": self.best, "cpu_seconds": self.cpu_seconds}
        metadata = {name: repr(number) for name, number in numbers.items()}
        write_tensors(path, self._tensors(), metadata)

    def load(self, path: Path) -> None:
        """Restore the state bit for bit.

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
            raise InputError(f"{path} belongs to another model; choose another --run folder")
        for name, tensor in current.items():
            tensor.copy_(saved[name])
        self.step, self.best = int(metadata["step"]), float(metadata["best"])
        self.cpu_seconds = float(metadata["cpu_seconds"])

    def _initialise_moments(self) -> None:
        """Create the moments of every weight, also of those that no step has moved yet."""
        for weight in self.trained.values():
            self.optimizer.state[weight] = {
                "step": torch.zeros((), device=weight.device),
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
            }

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"weights.{n}": w.data for n, w in self.flow.state_dict().items()}
        tensors |= {f"average.{n}": w.data for n, w in self.average.state_dict().items()}
        for name, weight in self.trained.items():
            for kind, moment in self.optimizer.state[weight].items():
                tensors[f"optimizer.{kind}.{name}"] = moment
        return tensors


def _freeze(flow: Flow, prefix: str) -> None:
    weights = [w for n, w in flow.named_parameters() if n.startswith(f"backbone.{prefix}")]
    if not weights:
        raise InputError(f"freeze: no weight of this model starts with '{prefix}'")
    for weight in weights:
        weight.requires_grad_(False)


def _decay_groups(
    flow: Flow, weights: dict[str, nn.Parameter], weight_decay: float
) -> list[dict[str, object]]:
    """Decay the matrices of linear maps; leave everything else alone."""
    linear = [f"{name}.weight" for name, part in flow.named_modules() if type(part) is nn.Linear]
    decayed = weights.keys() & set(linear)
    return [
        {"params": [w for n, w in weights.items() if n in decayed], "weight_decay": weight_decay},
        {"params": [w for n, w in weights.items() if n not in decayed], "weight_decay": 0.0},
    ]
