"""The best linear estimate of a residual, which networks correct."""

from typing import NamedTuple

from torch import Tensor


class Estimate(NamedTuple):
    """What is known of the data x_1 from the noisy state alone, given mean and size.

    Attributes:
        data: Estimate (B, L, C) of the data.
        noisy: Noisy residual of unit size (B, L, C), for a network to read.
        gain: Share c in [0, 1] of the residual's variance in the state's, of the shape of the
            scale.
        unit: Size of what a network may add, of the shape of the scale.
    """

    data: Tensor
    noisy: Tensor
    gain: Tensor
    unit: Tensor


def estimate_residual(x_t: Tensor, t: Tensor, mean: Tensor, scale: Tensor) -> Estimate:
    r"""Return the posterior mean of the data for a Gaussian residual around a mean m.

    .. math::
        m + \frac{t s^2}{t^2 s^2 + (1 - t)^2}\,(x_t - t m), \qquad
        c = \frac{t^2 s^2}{t^2 s^2 + (1 - t)^2}

    A correction F of unit size is added as :math:`s \sqrt{c (1 - c)}\, F`; at t = 0 the mean
    remains, exactly.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        section 5, for scaling the input and output of a denoiser.

    Args:
        x_t: Noisy state (B, L, C), normalised.
        t: Times (B,) in [0, 1].
        mean: Posterior mean m (B, L, C).
        scale: Standard deviation s > 0 of the residual, (B, 1, 1) or (B, L, C).
    """
    time = t[:, None, None]
    noisy = x_t - time * mean
    variance = (time * scale).square() + (1 - time).square()
    gain = (time * scale).square() / variance
    wiener = time * scale.square() / variance * noisy
    unit = scale * (gain * (1 - gain)).sqrt()
    return Estimate(mean + wiener, noisy / variance.sqrt(), gain, unit)
