"""Samplers that choose their own steps."""

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.data.observation import Observation
from sparsefield.flow.flow import Flow
from sparsefield.samplers.base import NoiseFields, Sampler, SampleResult, Trajectory

# The solver ends here, and one Euler step follows: a data estimate has no velocity at t = 1.
_LAST = 1 - 1e-3


class DormandPrinceSampler(Sampler):
    r"""The Dormand-Prince method of order 5 with steps that keep the error below a tolerance.

    It is a reference for what an exact integration gives, and a fair price for it. Items are
    solved one by one, since steps that suit a whole batch would make an item depend on the others;
    `nfe` is the most that one of them took. It needs the package torchdiffeq.

    References:
        A family of embedded Runge-Kutta formulae (Dormand & Prince, 1980).

    Args:
        steps: Not used; the solver chooses.
        grid: Not used.
        tolerance: Relative and absolute error allowed per step, above 0.

    Raises:
        InputError: torchdiffeq is not installed, the tolerance is not above 0, or no step is
            short enough for it.
    """

    order = 5
    adaptive = True

    def __init__(
        self, steps: int = 10, grid: str | Sequence[float] = "trained", tolerance: float = 1e-4
    ) -> None:
        super().__init__(steps, grid)
        if not tolerance > 0:
            raise InputError(f"tolerance must be above 0, not {tolerance:g}")
        if find_spec("torchdiffeq") is None:
            raise InputError("dopri5 needs torchdiffeq: install sparsefield[adaptive]")
        self.tolerance = tolerance

    def time_grid(self, flow: Flow) -> Tensor:
        """Return the end of the solver between 0 and 1."""
        return torch.tensor([0, _LAST, 1], dtype=torch.float64)

    def step(self, flow: Trajectory, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """See `Sampler.step`."""
        from torchdiffeq import odeint

        if s >= 1:
            return x + (s - t).to(x.dtype) * flow.velocity(x, t)
        times = torch.stack([t, s]).to(x)
        try:
            path = odeint(
                lambda time, y: flow.velocity(y, time),
                x,
                times,
                method="dopri5",
                rtol=self.tolerance,
                atol=self.tolerance,
                options={"step_t": times[1:]},  # or it steps beyond the end and interpolates
            )
        except AssertionError as error:  # of torchdiffeq: no step is short enough
            raise InputError(
                f"dopri5 cannot keep to a tolerance of {self.tolerance:g}, because the model's "
                "velocity jumps; raise the tolerance"
            ) from error
        return path[-1]

    @torch.no_grad()
    def __call__(
        self,
        flow: Flow,
        noise: NoiseFields,
        coords: Tensor,
        obs: Observation,
        cell: Tensor | None = None,
    ) -> SampleResult:
        """See `Sampler.__call__`."""
        start = noise(0)
        results = []
        for item in range(len(start)):
            one = slice(item, item + 1)
            seen = Observation(obs.coords[one], obs.values[one], valid=obs.valid[one])
            side = None if cell is None else cell[one]
            own = partial(_only, start[one])
            results.append(super().__call__(flow, own, coords[one], seen, side))
        values = torch.cat([result.values for result in results])
        return SampleResult(values, max(result.nfe for result in results))


def _only(x_0: Tensor, number: int) -> Tensor:
    """Return the one field of source noise that a deterministic sampler asks for."""
    return x_0
