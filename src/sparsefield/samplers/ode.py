"""Deterministic samplers: they integrate the flow's velocity, dx/dt = v(x, t)."""

from torch import Tensor

from sparsefield.samplers.base import Sampler, Trajectory


class EulerSampler(Sampler):
    r"""The Euler method, :math:`x_s = x_t + (s - t)\, v(x_t, t)`, of order 1."""

    order = 1

    def step(self, flow: Trajectory, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """See `Sampler.step`."""
        return x + (s - t).to(x.dtype) * flow.velocity(x, t)


class HeunSampler(Sampler):
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

    def step(self, flow: Trajectory, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """See `Sampler.step`."""
        width = (s - t).to(x.dtype)
        slope = flow.velocity(x, t)
        ahead = x + width * slope
        if s >= 1:
            return ahead
        return x + width / 2 * (slope + flow.velocity(ahead, s))


class AdamsBashforthSampler(Sampler):
    r"""The two-step Adams-Bashforth method, of order 2 at one evaluation per step.

    .. math:: x_s = x_t + (s - t) \Big(v_t + \tfrac{s - t}{2 (t - r)} (v_t - v_r)\Big)

    where r is the time before t; the first step is an Euler step.

    References:
        Solving Ordinary Differential Equations I (Hairer et al., 1993), Eq. III.5.2 for variable
        steps.
    """

    order = 2

    def step(self, flow: Trajectory, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """See `Sampler.step`."""
        before = flow.last_velocity
        slope = flow.velocity(x, t)
        if before is not None:
            r, last = before
            slope = slope + ((s - t) / (2 * (t - r))).to(x.dtype) * (slope - last)
        return x + (s - t).to(x.dtype) * slope
