"""Measurements with an error: what the true values at the measured points may be."""

from collections.abc import Sequence

import numpy as np
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.gaussian import GaussianField, fit_measured_field
from sparsefield.data.observation import Observation

# The covariance of so many points takes 200 MB, its factor seconds.
MOST_POINTS = 5000


def true_values(
    obs: Observation,
    noise: float | Sequence[float],
    draws: int = 0,
    seed: int = 0,
    priors: Sequence[GaussianField] | None = None,
) -> list[Observation]:
    r"""Return the expected true values at the measured points, and draws of them.

    For measurements :math:`y = f + e`, :math:`e \sim N(0, \sigma^2)`, of a Gaussian field,

    .. math:: f \mid y \sim N\big(m + K (K + \sigma^2)^{-1} (y - m),\;
        K - K (K + \sigma^2)^{-1} K\big).

    A model that takes exact observations is thereby one for noisy ones, by the law of total
    probability, :math:`p(x \mid y) = \int p(x \mid f)\, p(f \mid y)\, df`: given f, the
    measurements say nothing more.

    Reference: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equations
    2.22 to 2.24.

    Args:
        obs: Measurements of one field, coords (M, P) and values (M, C), all valid.
        noise: Standard deviation of the error, above 0, in the units of the values; one number,
            or one per channel.
        draws: Number of draws S.
        seed: Seed of the draws, at least 0; a draw does not depend on how many there are.
        priors: Fields of each channel; fitted by maximum likelihood if None.

    Returns:
        1 + S observations with the coordinates of `obs`: expectation, then draws.

    Raises:
        InputError: The noise does not fit, or there are too many points.
    """
    sigma = _per_channel(noise, obs.channels)
    if obs.count > MOST_POINTS:
        raise InputError(
            f"noise can be taken out of {MOST_POINTS} measurements at most, not {obs.count}; "
            "thin them out, or pass noise=0"
        )
    coords, values = obs.coords.double().numpy(), obs.values.double().numpy()
    columns = []
    for c in range(obs.channels):
        column = values[:, c : c + 1]
        prior = priors[c] if priors else fit_measured_field(coords, column, sigma[c])
        rng = [np.random.default_rng([seed, draw, c]) for draw in range(draws)]
        columns.append(_posterior(prior, coords, column, rng))
    results = torch.from_numpy(np.stack(columns, axis=-1)).to(obs.values.dtype)
    return [Observation(obs.coords, result) for result in results]


def _posterior(
    prior: GaussianField,
    coords: np.ndarray,
    values: np.ndarray,
    rng: Sequence[np.random.Generator],
) -> np.ndarray:
    """Return the expectation and one draw per generator of f at the coordinates (1 + S, M)."""
    mean = prior.posterior(coords, values, coords)[0][:, 0]
    covariance = float(np.ravel(prior.variance)[0]) * prior.posterior_covariance(coords, coords)
    scales, axes = np.linalg.eigh(covariance)  # it may be singular: two points may be as one
    root = axes * np.sqrt(scales.clip(0))
    return np.stack([mean, *(mean + root @ each.standard_normal(len(mean)) for each in rng)])


def _per_channel(noise: float | Sequence[float], channels: int) -> np.ndarray:
    sigma = np.atleast_1d(np.asarray(noise, dtype=float))
    if sigma.shape not in ((1,), (channels,)):
        raise InputError(f"noise takes one number or {channels}, not {sigma.size}")
    if not (np.isfinite(sigma).all() and (sigma > 0).all()):
        raise InputError(f"noise must be a finite number above 0, not {noise}")
    return np.broadcast_to(sigma, channels)
