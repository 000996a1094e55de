"""The inputs of a scan, and the steps around the recurrence that the PyTorch backends share."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class ScanInputs(NamedTuple):
    """The arguments of `selective_scan` that define its result."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    h0: Tensor | None
    reverse: bool
    softplus: bool = True

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """The inputs that are tensors, in order."""
        return self[:9]

    @property
    def state_dtype(self) -> torch.dtype:
        """The precision of the state: float64 for float64 input, float32 for all others."""
        return torch.float64 if self.u.dtype == torch.float64 else torch.float32


def step_sizes(x: ScanInputs) -> Tensor:
    """Return the step sizes, softplus(delta + delta_bias) or that sum itself, (B, L, D)."""
    delta = x.delta.to(x.state_dtype)
    delta = delta if x.delta_bias is None else delta + x.delta_bias.to(delta)
    return F.softplus(delta) if x.softplus else delta


def initial_state(x: ScanInputs) -> Tensor:
    """Return h0, or zeros, in the precision of the state, shape (B, D, N)."""
    if x.h0 is None:
        return x.u.new_zeros(len(x.u), *x.A.shape, dtype=x.state_dtype)
    return x.h0.to(x.state_dtype)


def skip_and_gate(y: Tensor, x: ScanInputs) -> Tensor:
    """Return (y + D u) silu(z) in the type of u, shape (B, L, D)."""
    if x.D is not None:
        y = y + x.D.to(y) * x.u.to(y)
    if x.z is not None:
        y = y * F.silu(x.z.to(y))
    return y.to(x.u)
