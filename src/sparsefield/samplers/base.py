"""The one loop that integrates a flow from source noise to data."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.data.observation import Observation
from sparsefield.flow.flow import Flow

# The k-th independent field of source noise (B, L, C); the 0-th is where a sample starts.
NoiseFields = Callable[[int], Tensor]

# From uniform u in [0, 1] to times in [0, 1].
GRIDS: dict[str, Callable[[Flow, Tensor], Tensor]] = {
    "trained": lambda flow, u: flow.shift(u),
    "uniform": lambda flow, u: u,
    "cosine": lambda flow, u: (torch.pi / 2 * u).sin().square(),
    "late": lambda flow, u: 1 - (1 - u).square(),
}


class SampleResult(NamedTuple):
    """A sample and its price.

    Attributes:
        values: Data at t = 1 (B, L, C), normalised.
        nfe: Evaluations of the backbone per item.
    """

    values: Tensor
    nfe: int


class Trajectory:
    """A flow at fixed queries and observations: what samplers ask of it, counted.

    Attributes:
        nfe: Evaluations of the backbone so far.
        last_data: The latest time and data estimate, None before the first.
        last_velocity: The latest time and velocity, None before the first.
    """

    def __init__(
        self,
        flow: Flow,
        noise: NoiseFields,
        coords: Tensor,
        obs: Observation,
        cell: Tensor | None = None,
    ) -> None:
        self.flow, self.coords, self.obs, self.cell = flow, coords, obs, cell
        self.prepared = flow.prepare(coords, obs, cell)
        self.nfe = 0
        self.last_data: tuple[Tensor, Tensor] | None = None
        self.last_velocity: tuple[Tensor, Tensor] | None = None
        self._noise, self._fields = noise, 0

    def data(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the data estimate (B, L, C) at state x (B, L, C) and scalar time t."""
        self.nfe += 1
        where = self.coords, self.obs, self.prepared, self.cell
        data = self.flow.denoise(x, _times(x, t), *where)
        self.last_data = t, data
        return data

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Return dx/dt (B, L, C) at state x (B, L, C) and scalar time t."""
        velocity = self.flow.velocity_of(self.data(x, t), x, _times(x, t))
        self.last_velocity = t, velocity
        return velocity

    def fresh_noise(self) -> Tensor:
        """Return a field of source noise (B, L, C) that was not used before."""
        self._fields += 1
        return self._noise(self._fields)


class Sampler(ABC):
    """Integrate a flow from t = 0 to t = 1.

    Args:
        steps: Steps of the time grid, at least 1.
        grid: A name in GRIDS, or the times themselves (steps + 1,), rising from 0 to 1. `trained`
            spaces them as in training, `uniform` equally, `cosine` densely at both ends, `late`
            towards the data.

    Attributes:
        order: The error falls as steps to the power of minus this; for stochastic samplers that of
            mean and variance.
        stochastic: Fresh noise enters on the way.
        adaptive: It chooses its own steps.

    Raises:
        InputError: There is no step, or the grid is unknown or not rising from 0 to 1.
    """

    order: int
    stochastic = False
    adaptive = False

    def __init__(self, steps: int = 10, grid: str | Sequence[float] = "trained") -> None:
        if steps < 1:
            raise InputError(f"a sampler needs at least 1 step, not {steps}")
        if isinstance(grid, str):
            if grid not in GRIDS:
                raise unknown_name("grid", grid, list(GRIDS))
        elif not _rises(grid):
            raise InputError(f"a grid of times must rise from 0 to 1, not {list(grid)}")
        self.steps = steps if isinstance(grid, str) else len(grid) - 1
        self.grid = grid

    @classmethod
    def evaluations(cls, steps: int) -> int:
        """Return how many evaluations so many steps take."""
        return steps

    @classmethod
    def steps_within(cls, nfe: int) -> int:
        """Return the most steps that take at most so many evaluations."""
        return nfe

    def time_grid(self, flow: Flow) -> Tensor:
        """Return the times (steps + 1,) from 0 to 1."""
        if isinstance(self.grid, str):
            return GRIDS[self.grid](
                flow, torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
            )
        return torch.tensor(self.grid, dtype=torch.float64)

    @abstractmethod
    def step(self, flow: Trajectory, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Advance the state x (B, L, C) from time t to time s > t."""

    @torch.no_grad()
    def __call__(
        self,
        flow: Flow,
        noise: NoiseFields,
        coords: Tensor,
        obs: Observation,
        cell: Tensor | None = None,
    ) -> SampleResult:
        """Carry source noise, evaluated at coords (B, L, P), to a sample given observations."""
        trajectory = Trajectory(flow, noise, coords, obs, cell)
        x = noise(0)
        for t, s in pairwise(self.time_grid(flow)):
            x = self.step(trajectory, x, t, s)
        return SampleResult(x, trajectory.nfe)


def _times(x: Tensor, t: Tensor) -> Tensor:
    return t.to(x).expand(x.shape[0])


def _rises(times: Sequence[float]) -> bool:
    ends = len(times) > 1 and times[0] == 0 and times[-1] == 1
    return ends and all(t < s for t, s in pairwise(times))
