"""Deterministic samplers."""

from torch import Tensor

from sparsefield.samplers.base import Sampler, Velocity


class EulerSampler(Sampler):
    r"""The Euler method, :math:`x_s = x_t + (s - t)\, v(x_t, t)`, of order 1."""

    order = 1

    def step(self, velocity: Velocity, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """See `Sampler.step`."""
        return x + (s - t).to(x.dtype) * velocity(x, t)


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

    def step(self, velocity: Velocity, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """See `Sampler.step`."""
        width = (s - t).to(x.dtype)
        slope = velocity(x, t)
        ahead = x + width * slope
        if s >= 1:
            return ahead
        return x + width / 2 * (slope + velocity(ahead, s))
