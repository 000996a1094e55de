"""The one loop that integrates a flow from source noise to data."""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sparsefield.errors import InputError
from sparsefield.fields.observation import Observation
from sparsefield.flow.flow import Flow


class SampleResult(NamedTuple):
    """A sample and its price.

    Attributes:
        values: Data at t = 1 (B, L, C), normalised.
        nfe: Evaluations of the backbone per item.
    """

    values: Tensor
    nfe: int


class Velocity:
    """The velocity field of a flow at fixed queries and observations; counts its evaluations."""

    def __init__(self, flow: Flow, coords: Tensor, obs: Observation) -> None:
        self.flow, self.coords, self.obs = flow, coords, obs
        self.prepared = flow.prepare(coords, obs)
        self.nfe = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Return dx/dt (B, L, C) at state x (B, L, C) and scalar time t."""
        self.nfe += 1
        times = t.to(x).expand(x.shape[0])
        return self.flow.velocity(x, times, self.coords, self.obs, self.prepared)


class Sampler(ABC):
    """Integrate dx/dt = v(x, t) from t = 0 to t = 1.

    Args:
        steps: Steps of the time grid, at least 1.

    Raises:
        InputError: There is no step.
    """

    order: int

    def __init__(self, steps: int = 10) -> None:
        if steps < 1:
            raise InputError(f"a sampler needs at least 1 step, not {steps}")
        self.steps = steps

    def time_grid(self, flow: Flow) -> Tensor:
        """Return the times (steps + 1,) from 0 to 1, spaced as the flow was trained."""
        return flow.shift(torch.linspace(0, 1, self.steps + 1, dtype=torch.float64))

    @abstractmethod
    def step(self, velocity: Velocity, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Advance the state x (B, L, C) from time t to time s > t."""

    @torch.no_grad()
    def __call__(self, flow: Flow, x_0: Tensor, coords: Tensor, obs: Observation) -> SampleResult:
        """Carry source noise x_0 (B, L, C) at coords (B, L, P) to a sample given observations."""
        velocity = Velocity(flow, coords, obs)
        grid = self.time_grid(flow)
        x = x_0
        for t, s in pairwise(grid):
            x = self.step(velocity, x, t, s)
        return SampleResult(x, velocity.nfe)
