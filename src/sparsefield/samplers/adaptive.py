"""Samplers that choose their own steps."""

from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.flow.backbone import Query, take_item
from sparsefield.flow.flow import Flow
from sparsefield.samplers.base import ConditionedFlow, NoiseFields, Sampler, SampleResult

# The solver ends here, and one Euler step follows: a data estimate has no velocity at t = 1.
_LAST = 1 - 1e-3


class DormandPrince(Sampler):
    r"""The Dormand-Prince method (`dopri5`) of order 5, with steps chosen by a tolerance.

    It is a reference for what an exact integration gives. Items are solved one by one, because
    steps that suit a whole batch would make an item depend on the others. `nfe` is the largest
    number of evaluations that an item took. It needs the package torchdiffeq.

    References:
        A family of embedded Runge-Kutta formulae (Dormand & Prince, 1980).

    Args:
        tolerance: Relative and absolute error allowed per step, above 0, in normalised values.

    Raises:
        InputError: torchdiffeq is not installed, the tolerance is not above 0, or, when it is
            called, no step is short enough for the tolerance.
    """

    order = 5
    adaptive = True

    def __init__(self, tolerance: float = 1e-4) -> None:
        if not tolerance > 0:
            raise InputError(f"tolerance must be above 0, not {tolerance:g}")
        if find_spec("torchdiffeq") is None:
            raise InputError("dopri5 needs torchdiffeq: install sparsefield[adaptive]")
        self.tolerance = tolerance

    def __repr__(self) -> str:
        """Name the sampler and its tolerance."""
        return f"DormandPrince(tolerance={self.tolerance:g})"

    @torch.no_grad()
    def __call__(
        self, flow: Flow, noise: NoiseFields, query: Query, *, prepared: Any = None
    ) -> SampleResult:
        """See `Sampler.__call__`."""
        start = noise(0)
        prepared = flow.prepare(query) if prepared is None else prepared
        results = [
            self._solve(flow, *take_item((start, query, prepared), item))
            for item in range(len(start))
        ]
        values = torch.cat([result.values for result in results])
        return SampleResult(values, max(result.nfe for result in results))

    def _solve(self, flow: Flow, x: Tensor, query: Query, prepared: Any) -> SampleResult:
        """Integrate one item from its noise x (1, L, C)."""
        conditioned = ConditionedFlow(flow, partial(_only, x), query, prepared=prepared)
        first, last = torch.tensor([flow.first_time, _LAST], dtype=torch.float64)
        x = self._integrate(conditioned, conditioned.start(), first, last)
        x = x + (1 - last).to(x.dtype) * conditioned.velocity(x, last)
        return SampleResult(x, conditioned.nfe)

    def _integrate(self, flow: ConditionedFlow, x: Tensor, begin: Tensor, end: Tensor) -> Tensor:
        """Return the state at time `end` that starts from x at time `begin`."""
        from torchdiffeq import odeint

        times = torch.stack([begin, end]).to(x)
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


def _only(x_0: Tensor, number: int) -> Tensor:
    """Return the one field of source noise that a deterministic sampler asks for."""
    return x_0
