"""Invertible scaling between physical values and those a network sees."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError


@dataclass(frozen=True)
class Normalizer:
    """Per-channel affine scaling, `u = (v - offset) / scale`.

    Args:
        offset: Value that maps to 0, one per channel, in physical units.
        scale: Physical size of one normalised unit, one per channel, above 0.
        low: Smallest physical value, if values are bounded.
        high: Largest physical value, if values are bounded.

    Raises:
        InputError: Lengths differ, an offset or a scale is not finite, a scale is not positive, or
            the bounds are not in order.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Check the parameters, which may come from a file."""
        if len(self.offset) != len(self.scale) or not self.offset:
            raise InputError(
                f"a normalizer needs one offset and one scale per channel, "
                f"got {len(self.offset)} and {len(self.scale)}"
            )
        if not all(0 < scale < math.inf for scale in self.scale):
            raise InputError(f"normalizer scales must be positive and finite, got {self.scale}")
        if not all(map(math.isfinite, self.offset)):
            raise InputError(f"normalizer offsets must be finite, got {self.offset}")
        low, high = self.bounds
        if not low < high:
            raise InputError(f"normalizer bounds must be in order, got {self.low} and {self.high}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest physical value, infinite where there is none."""
        low = -math.inf if self.low is None else self.low
        return low, math.inf if self.high is None else self.high

    @classmethod
    def unit_range(cls, channels: int) -> "Normalizer":
        """Return the scaling of images, [0, 1] to [-1, 1]."""
        return cls((0.5,) * channels, (0.5,) * channels, low=0.0, high=1.0)

    @classmethod
    def fit(cls, values: np.ndarray | Tensor) -> "Normalizer":
        """Return the scaling to zero mean and unit variance in each channel.

        Args:
            values: Field values, shape (..., C); a constant channel is only shifted, and rows
                with NaN do not count.
        """
        flat = torch.as_tensor(values).reshape(-1, values.shape[-1]).double()
        flat = flat[~flat.isnan().any(dim=1)]
        scale = flat.std(dim=0, correction=0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return cls(tuple(flat.mean(dim=0).tolist()), tuple(scale.tolist()))

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return len(self.offset)

    def apply(self, values: Tensor) -> Tensor:
        """Return normalised values for physical ones, shape (..., C)."""
        return (values - values.new_tensor(self.offset)) / values.new_tensor(self.scale)

    def invert(self, values: Tensor) -> Tensor:
        """Return physical values for normalised ones, shape (..., C)."""
        return values * values.new_tensor(self.scale) + values.new_tensor(self.offset)

    def clip(self, values: Tensor) -> Tensor:
        """Return physical values moved into [low, high], where those are known."""
        if self.low is None and self.high is None:
            return values
        return values.clamp(self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters in a form that JSON keeps."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Normalizer":
        """Return the normalizer that `to_dict` described, also after a round trip through JSON.

        Raises:
            InputError: Something is missing, or is no number.
        """
        try:
            low, high = (
                None if data[key] is None else float(data[key]) for key in ("low", "high")
            )
            return cls(_numbers(data["offset"]), _numbers(data["scale"]), low, high)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"a normalizer needs lists of numbers offset and scale, and low and high ({error})"
            ) from error


def _numbers(values: list[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
