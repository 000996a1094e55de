"""What training minimises."""

import torch
from torch import Tensor

from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Query
from sparsefield.flow.flow import OF_NOISE, Flow


def flow_matching_loss(
    flow: Flow,
    x_0: Tensor,
    x_1: Tensor,
    t: Tensor,
    query: Query,
    known: Tensor | None = None,
) -> Tensor:
    r"""Conditional flow matching, written for the data estimate.

    .. math::
        w(t)\, \|\hat x_1 - x_1\|^2, \qquad
        w(t) = \frac{\alpha_t^2 + k^2 \sigma_t^2}{k^2 \sigma_t^2},

    averaged over points and channels, where k is the flow's `time_shift`. The weight is 1 at
    t = 0, where the minimiser is the posterior mean, and undoes the shrinking of the error
    towards t = 1; for k = 1 and velocity prediction on the linear path,
    :math:`\hat x_1 - x_1 = (1 - t)(\hat v - v)` makes it the plain velocity loss up to a factor
    between 1/2 and 1.

    For predictions of noise and score the weight is :math:`w(t) = \alpha_t^2 / \sigma_t^2`, which
    makes the loss the squared error in the noise,

    .. math:: \|\hat x_0 - x_0\|^2 = \sigma_t^2\, \|\hat s - s\|^2,

    that of denoising diffusion and of denoising score matching. The weight above would multiply
    it by :math:`\sigma_t^2 / \alpha_t^2`, so that times near 0 were all that is learnt.

    References:
        Flow Matching for Generative Modeling (Lipman et al., 2023), Eq. 9.
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Eq. 14, for noise.
        Generative Modeling by Estimating Gradients of the Data Distribution (Song & Ermon, 2019),
        Eq. 6 with the weight of section 4.2, for the score.

    Args:
        flow: The flow to train.
        x_0: Source noise (B, L, C).
        x_1: Data (B, L, C), normalised.
        t: Times (B,) in [0, 1).
        query: Queries and observations.
        known: Points whose data are known (B, L); all by default. The others do not count.

    Returns:
        Loss per item (B,).
    """
    x_t = flow.path.interpolate(x_0, x_1, t)
    squared = (flow.denoise(x_t, t, query) - x_1).square().mean(dim=2)
    error = squared.mean(dim=1) if known is None else _mean_where(squared, known)
    c = flow.path.coefficients(t)
    signal, noise = c.alpha.square(), c.sigma.square()
    if flow.prediction not in OF_NOISE:
        noise = (flow.time_shift * c.sigma).square()
        signal = signal + noise
    return error * signal / noise.clamp_min(torch.finfo(t.dtype).tiny)


def _mean_where(values: Tensor, counted: Tensor) -> Tensor:
    """Return means (B,) of the values (B, L) that count; 0 of none."""
    weight = counted.to(values.dtype)
    return (weight * values).sum(dim=1) / weight.sum(dim=1).clamp_min(1)


def contrast_weights(obs: Observation, power: float) -> Tensor:
    r"""Weigh fields by the deviation of their observed values, :math:`\mathrm{std}^{-p}`, mean 1.

    A weight that is a function of the observations alone moves capacity between fields, but not
    the minimiser: the posterior mean stays the posterior mean. PSNR, a mean of logarithms, counts
    relative errors; p = 2 would make the loss count them too.

    Args:
        obs: Batched observations, normalised.
        power: Exponent p, at least 0; 0 weighs all fields equally.

    Returns:
        Weights (B,).
    """
    weight = obs.valid[..., None].to(obs.values.dtype)
    count = weight.sum(1, keepdim=True)
    centre = (obs.values * weight).sum(1, keepdim=True) / count
    variance = ((obs.values - centre).square() * weight).sum(1) / count[:, 0]
    weights = (variance.mean(-1) + 1e-3).pow(-power / 2)
    return weights / weights.mean()
