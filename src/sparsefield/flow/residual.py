"""Interpolations of the observations, whose residual a flow can transport."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sparsefield.core.errors import unknown_name
from sparsefield.data.observation import Observation
from sparsefield.nn.neighbourhood import Neighbourhood, find_neighbourhood

# Correlation length and nugget of local kriging, in mean spacings and in variances.
LENGTH, NUGGET = 1.0, 1e-3
# Smallest size of a residual in units of its level, and least variances: of the observed values,
# and of the level in units of that.
_SMALLEST, _LEAST_SPREAD, _LEAST_LEVEL = 0.1, 1e-6, 1e-4


class Weights(NamedTuple):
    """How neighbours are averaged.

    Attributes:
        share: Weights (B, L, K), 0 where there is no neighbour.
        size: Size (B, L, 1) of the error, in units of its typical size.
    """

    share: Tensor
    size: Tensor


class Standard(NamedTuple):
    """Observations in standard units, the way back, and how well one says another.

    Attributes:
        obs: Observations whose values have mean 0 per channel and variance 1 over all.
        centre: Mean of the observed values (B, 1, C).
        std: Standard deviation of the observed values (B, 1, 1).
        level: Typical size (B, 1, 1) of a residual in standard units: the root mean square error
            of each observation, interpolated from the others.
    """

    obs: Observation
    centre: Tensor
    std: Tensor
    level: Tensor


class Interpolated(NamedTuple):
    """An interpolation of the observations at the queries.

    Attributes:
        mean: Interpolated values (B, L, C).
        size: Typical size (B, L, 1) of the residual around them, above 0.
    """

    mean: Tensor
    size: Tensor


def nearest_weights(hood: Neighbourhood) -> Weights:
    """Take the value of the nearest observation."""
    share = torch.zeros_like(hood.geometry[..., 0])
    share[..., :1] = 1
    return Weights(share, torch.ones_like(hood.geometry[:, :, 0, :1]))


def inverse_distance_weights(hood: Neighbourhood) -> Weights:
    """Average by the inverse third power of the distance.

    References:
        A two-dimensional interpolation function for irregularly-spaced data (Shepard, 1968).
    """
    return Weights(hood.weights(power=3.0), torch.ones_like(hood.geometry[:, :, 0, :1]))


def kriging_weights(hood: Neighbourhood) -> Weights:
    r"""Weigh neighbours by ordinary kriging from them alone.

    .. math:: w = K^{-1}(k + \mu 1), \qquad s^2 = 1 - k^\top K^{-1} k + \mu (1 - 1^\top K^{-1} k),
        \qquad \mu = \frac{1 - 1^\top K^{-1} k}{1^\top K^{-1} 1}

    The covariance is a Matern one of smoothness 3/2, whose length is LENGTH mean spacings.

    References:
        Statistics for Spatial Data (Cressie, 1993), section 3.2.
    """
    offset = hood.geometry[..., :-3]
    exists = torch.ones_like(offset[..., 0])
    if hood.hidden is not None:
        exists = exists.masked_fill(hood.hidden, 0.0)
    away = _matern(offset.norm(dim=-1)) * exists
    between = _matern(torch.cdist(offset, offset, compute_mode="donot_use_mm_for_euclid_dist"))
    between = between * exists[..., None] * exists[..., None, :]
    factor = torch.linalg.cholesky(between + torch.diag_embed(1 - exists + NUGGET))
    simple, ones = torch.cholesky_solve(torch.stack([away, exists], -1), factor).unbind(-1)
    missing = 1 - simple.sum(-1, keepdim=True)
    multiplier = missing / ones.sum(-1, keepdim=True).clamp_min(1e-6)
    variance = 1 - (away * simple).sum(-1, keepdim=True) + missing * multiplier
    return Weights(simple + ones * multiplier, variance.clamp_min(0).sqrt())


def _matern(distance: Tensor) -> Tensor:
    """Return the Matern correlation of smoothness 3/2 at distances in mean spacings."""
    scaled = 3**0.5 * distance / LENGTH
    return (1 + scaled) * (-scaled).exp()


class Interpolation(NamedTuple):
    """A way to interpolate.

    Attributes:
        neighbours: Neighbours of a point.
        weigh: Returns how they are averaged.
    """

    neighbours: int
    weigh: Callable[[Neighbourhood], Weights]


INTERPOLATIONS: dict[str, Interpolation] = {
    "nearest": Interpolation(1, nearest_weights),
    "inverse_distance": Interpolation(8, inverse_distance_weights),
    "kriging": Interpolation(12, kriging_weights),
}
# What the residual of a flow can be taken from, and "none" for the values themselves.
RESIDUALS = ("none", *INTERPOLATIONS)


def standardise(name: str, obs: Observation) -> Standard:
    """Bring batched observations (B, M, ...) to standard units for the interpolation `name`.

    Raises:
        InputError: The name is not in INTERPOLATIONS.
    """
    centre, std = _spread(obs)
    values = (obs.values - centre) / std
    standard = Observation(obs.coords, values, valid=obs.valid, grid=obs.grid)
    return Standard(standard, centre, std, _level(_find(name), standard))


def interpolate(name: str, standard: Standard, coords: Tensor) -> Interpolated:
    """Interpolate standardised observations at coords (B, L, P), in their first units.

    Raises:
        InputError: The name is not in INTERPOLATIONS.
    """
    interpolation, obs = _find(name), standard.obs
    hood = find_neighbourhood(coords, obs.coords, obs.valid, interpolation.neighbours)
    mean, size = _average(interpolation, hood, obs.values)
    size = standard.level * size.clamp_min(_SMALLEST)
    return Interpolated(standard.centre + standard.std * mean, standard.std * size)


def _find(name: str) -> Interpolation:
    if name not in INTERPOLATIONS:
        raise unknown_name("residual", name, list(INTERPOLATIONS))
    return INTERPOLATIONS[name]


def _spread(obs: Observation) -> tuple[Tensor, Tensor]:
    """Return mean (B, 1, C) and standard deviation (B, 1, 1) of the valid values."""
    weight = obs.valid[..., None].to(obs.values.dtype)
    count = weight.sum(1, keepdim=True)
    centre = (obs.values * weight).sum(1, keepdim=True) / count
    variance = ((obs.values - centre).square() * weight).sum(1, keepdim=True) / count
    return centre, (variance.mean(-1, keepdim=True) + _LEAST_SPREAD).sqrt()


def _level(interpolation: Interpolation, obs: Observation) -> Tensor:
    """Return the root mean square error (B, 1, 1) of each observation from the others.

    Errors count in units of the size that the interpolation expects of them.
    """
    hood = find_neighbourhood(obs.coords, obs.coords, obs.valid, interpolation.neighbours + 1)
    others = hood.without_first()
    if not others.index.shape[2]:
        return torch.ones_like(obs.values[:, :1, :1])
    mean, size = _average(interpolation, others, obs.values)
    error = ((obs.values - mean) / size.clamp_min(_SMALLEST)).square().mean(-1, keepdim=True)
    weight = obs.valid[..., None].to(error.dtype)
    return (
        ((weight * error).sum(1, keepdim=True) / weight.sum(1, keepdim=True))
        .add(_LEAST_LEVEL)
        .sqrt()
    )


def _average(
    interpolation: Interpolation, hood: Neighbourhood, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Return averages (B, L, C) of the neighbours' values (B, M, C), and sizes (B, L, 1)."""
    with torch.autocast(values.device.type, enabled=False):
        share, size = interpolation.weigh(hood)
        share = share.nan_to_num(0.0)  # of a point without any neighbour
        return (share[..., None] * hood.gather(values)).sum(dim=2), size
