"""What samplers have in common, and the loop of those whose steps are fixed beforehand."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.flow.backbone import Query
from sparsefield.flow.flow import Flow
from sparsefield.flow.path import Path

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
    """A sample and what it took.

    Attributes:
        values: Data at t = 1 (B, L, C), normalised.
        nfe: Evaluations of the backbone per item.
    """

    values: Tensor
    nfe: int


class ConditionedFlow:
    """A flow at a fixed query: what a sampler asks of it, with its evaluations counted.

    Args:
        flow: The flow.
        noise: Independent fields of source noise by their number.
        query: Queries and observations.
        prepared: What `flow.prepare` returned for the query; computed here if None.

    Attributes:
        nfe: Evaluations of the backbone so far.
    """

    def __init__(
        self, flow: Flow, noise: NoiseFields, query: Query, *, prepared: Any = None
    ) -> None:
        self.nfe = 0
        self._flow, self._query, self._noise, self._used = flow, query, noise, 0
        self._prepared = flow.prepare(query) if prepared is None else prepared

    @property
    def path(self) -> Path:
        """Path between noise and data."""
        return self._flow.path

    def start(self) -> Tensor:
        """Return the state (B, L, C) at the flow's `first_time`, from the 0-th source noise."""
        return self._flow.start(self._noise(0), self._query, self._prepared)

    def data(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the data estimate (B, L, C) at state x (B, L, C) and scalar time t."""
        self.nfe += 1
        return self._flow.denoise(x, _times(x, t), self._query, self._prepared)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Return dx/dt (B, L, C) at state x (B, L, C) and scalar time t."""
        return self._flow.velocity_of(self.data(x, t), x, _times(x, t))

    def noise_of(self, data: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return the noise (B, L, C) in state x that a data estimate at time t leaves."""
        return self._flow.noise_of(data, x, _times(x, t))

    def fresh_noise(self) -> Tensor:
        """Return a field of source noise (B, L, C) that was not used before."""
        self._used += 1
        return self._noise(self._used)


class Sampler(ABC):
    """Integrate a flow from source noise at t = 0, or its `first_time`, to data at t = 1.

    Attributes:
        order: Power of the step size with which the error falls. For stochastic samplers it is the
            error of mean and variance.
        stochastic: Whether fresh noise enters on the way.
        adaptive: Whether it chooses its own steps.
    """

    order: int
    stochastic = False
    adaptive = False

    @abstractmethod
    def __call__(
        self, flow: Flow, noise: NoiseFields, query: Query, *, prepared: Any = None
    ) -> SampleResult:
        """Carry source noise to samples given observations.

        Args:
            flow: The flow.
            noise: Returns independent fields of source noise (B, L, C) by their number. The 0-th
                is where the samples start, see `Flow.start`.
            query: Queries and observations.
            prepared: What `flow.prepare` returned for the query; computed here if None.

        Returns:
            Samples (B, L, C), normalised, and the evaluations that each took.
        """

    @classmethod
    def evaluations(cls, steps: int) -> int:
        """Return how many evaluations so many steps, at least 1, take.

        For adaptive samplers it is a guess.
        """
        return steps

    @classmethod
    def steps_within(cls, nfe: int) -> int:
        """Return the most steps that take at most so many evaluations, at least 1."""
        return nfe


class FixedStepSampler(Sampler):
    """A sampler whose times are known beforehand; subclasses say what happens between two.

    Args:
        steps: Steps of the time grid, at least 1; not used where times are given.
        grid: A name in GRIDS, or the times themselves (steps + 1,), rising from 0 to 1. `trained`
            spaces times as in training, `uniform` equally, `cosine` densely at both ends, `late`
            densely towards the data. For a flow that has a `first_time`, they are moved linearly
            to begin there.

    Raises:
        InputError: There is no step, or the grid is unknown or not rising from 0 to 1.
    """

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

    def __repr__(self) -> str:
        """Name the sampler and its settings."""
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"

    def time_grid(self, flow: Flow) -> Tensor:
        """Return the times (steps + 1,) from the flow's `first_time` to 1."""
        if isinstance(self.grid, str):
            u = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
            return flow.delay(GRIDS[self.grid](flow, u))
        return flow.delay(torch.tensor(self.grid, dtype=torch.float64))

    @abstractmethod
    def step(
        self, flow: ConditionedFlow, x: Tensor, t: Tensor, s: Tensor, memory: Any
    ) -> tuple[Tensor, Any]:
        """Advance the state from time t to time s > t.

        Args:
            flow: The flow at the query.
            x: State (B, L, C) at time t.
            t: Time now, a scalar.
            s: Time of the next state, a scalar.
            memory: What the step before returned beside its state; None in the first step.

        Returns:
            The state (B, L, C) at time s, and what the next step needs to know of this one.
        """

    @torch.no_grad()
    def __call__(
        self, flow: Flow, noise: NoiseFields, query: Query, *, prepared: Any = None
    ) -> SampleResult:
        """See `Sampler.__call__`."""
        conditioned = ConditionedFlow(flow, noise, query, prepared=prepared)
        x, memory = conditioned.start(), None
        for t, s in pairwise(self.time_grid(flow)):
            x, memory = self.step(conditioned, x, t, s, memory)
        return SampleResult(x, conditioned.nfe)


def _times(x: Tensor, t: Tensor) -> Tensor:
    return t.to(x).expand(x.shape[0])


def _rises(times: Sequence[float]) -> bool:
    ends = len(times) > 1 and times[0] == 0 and times[-1] == 1
    return ends and all(t < s for t, s in pairwise(times))
