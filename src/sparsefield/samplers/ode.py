"""Deterministic samplers: they integrate the flow's velocity, dx/dt = v(x, t)."""

import torch
from torch import Tensor

from sparsefield.flow.path import Path
from sparsefield.samplers.base import ConditionedFlow, FixedStepSampler

# A time and what was estimated at it (B, L, C).
Estimate = tuple[Tensor, Tensor]


class Euler(FixedStepSampler):
    r"""The Euler method, :math:`x_s = x_t + (s - t)\, v(x_t, t)`, of order 1."""

    order = 1

    def step(
        self, flow: ConditionedFlow, x: Tensor, t: Tensor, s: Tensor, memory: None
    ) -> tuple[Tensor, None]:
        """See `FixedStepSampler.step`."""
        return x + (s - t).to(x.dtype) * flow.velocity(x, t), None


class Heun(FixedStepSampler):
    r"""Heun's method (the explicit trapezoidal rule), of order 2.

    .. math:: x_s = x_t + \tfrac{s - t}{2} \big(v(x_t, t) + v(\tilde x, s)\big), \qquad
        \tilde x = x_t + (s - t)\, v(x_t, t)

    The last step is an Euler step, because a data prediction gives no velocity at t = 1; one
    such step leaves the order at 2.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        Algorithm 1.
    """

    order = 2

    @classmethod
    def evaluations(cls, steps: int) -> int:
        """See `Sampler.evaluations`."""
        return 2 * steps - 1

    @classmethod
    def steps_within(cls, nfe: int) -> int:
        """See `Sampler.steps_within`."""
        return (nfe + 1) // 2

    def step(
        self, flow: ConditionedFlow, x: Tensor, t: Tensor, s: Tensor, memory: None
    ) -> tuple[Tensor, None]:
        """See `FixedStepSampler.step`."""
        width = (s - t).to(x.dtype)
        slope = flow.velocity(x, t)
        ahead = x + width * slope
        if s >= 1:
            return ahead, None
        return x + width / 2 * (slope + flow.velocity(ahead, s)), None


class AdamsBashforth(FixedStepSampler):
    r"""The two-step Adams-Bashforth method (`ab2`), of order 2 at one evaluation per step.

    .. math:: x_s = x_t + (s - t) \Big(v_t + \tfrac{s - t}{2 (t - r)} (v_t - v_r)\Big)

    where r is the time before t; the first step is an Euler step.

    References:
        Solving Ordinary Differential Equations I (Hairer et al., 1993), Eq. III.5.2 for variable
        steps.
    """

    order = 2

    def step(
        self, flow: ConditionedFlow, x: Tensor, t: Tensor, s: Tensor, memory: Estimate | None
    ) -> tuple[Tensor, Estimate]:
        """See `FixedStepSampler.step`."""
        velocity = slope = flow.velocity(x, t)
        if memory is not None:
            r, last = memory
            slope = velocity + ((s - t) / (2 * (t - r))).to(x.dtype) * (velocity - last)
        return x + (s - t).to(x.dtype) * slope, (t, velocity)


class Exponential(FixedStepSampler):
    r"""A two-step exponential integrator of the data estimate (`deis`), of order 2.

    On the linear path :math:`d(x / (1 - t)) = \hat x_1\, dt / (1 - t)^2`. With the estimate
    extrapolated linearly, :math:`\hat x_1(\tau) \approx \hat x_{1,t} + (\tau - t) D`, from times t
    and r before it,

    .. math:: x_s = \frac{1 - s}{1 - t} x_t + \frac{s - t}{1 - t} \hat x_{1,t}
        + \Big(s - t - (1 - s) \log\frac{1 - t}{1 - s}\Big) D, \qquad
        D = \frac{\hat x_{1,t} - \hat x_{1,r}}{t - r},

    which is exact in the state, takes one evaluation per step and ends in the estimate at t = 1.
    The state of another path, divided by :math:`\alpha + \sigma`, is that of the linear one. The
    first step takes D = 0 and is an Euler step.

    References:
        Fast Sampling of Diffusion Models with Exponential Integrator (Zhang & Chen, 2023), section
        3.2 with r = 1, for the extrapolation in time (there of the noise).
    """

    order = 2

    def step(
        self, flow: ConditionedFlow, x: Tensor, t: Tensor, s: Tensor, memory: Estimate | None
    ) -> tuple[Tensor, Estimate]:
        """See `FixedStepSampler.step`."""
        path = flow.path
        (now, total), (then, total_then) = (_on_linear_path(path, time) for time in (t, s))
        data = flow.data(x, t)
        left = 1 - then  # of the noise, 0 at the end
        ahead = left / (1 - now) * (x / total) + (then - now) / (1 - now) * data
        if memory is not None:
            r, last = memory
            reach = then - now - torch.xlogy(left, (1 - now) / left.clamp_min(1e-30))
            ahead = ahead + reach / (now - _on_linear_path(path, r)[0]) * (data - last)
        return (total_then * ahead).to(x.dtype), (t, data)


def _on_linear_path(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the time at which the linear path has the state of t, and the factor between them."""
    c = path.coefficients(t)
    return c.alpha / (c.alpha + c.sigma), c.alpha + c.sigma
