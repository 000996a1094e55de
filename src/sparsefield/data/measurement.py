"""Measurements with an error: readings of one place, and what the true values may be."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.gaussian import GaussianField
from sparsefield.data.likelihood import fit_gaussian_field
from sparsefield.data.observation import Observation
from sparsefield.data.repeats import places

# The covariance of so many points takes 200 MB, its factor seconds.
MOST_POINTS = 5000
# Of more points a random part is fitted to.
FIT_POINTS = 1500
# The prior is smooth: what varies below the spacing of the points is the stated error.
NO_NUGGET = (1e-8,)


class Places(NamedTuple):
    """Measurements with the readings of each place made one.

    Attributes:
        coords: Places (K, P), in order of appearance.
        values: Mean of the readings (K, C), weighted by `1 / noise^2` where it is stated.
        noise: Standard deviation of that mean's error (K, C); None for exact readings.
        place: Which place each reading is of (M,).
    """

    coords: np.ndarray
    values: np.ndarray
    noise: np.ndarray | None
    place: np.ndarray


def merge_readings(
    coords: np.ndarray,
    values: np.ndarray,
    noise: np.ndarray | None = None,
    *,
    within: float = 0.0,
) -> Places:
    r"""Return the mean of the readings of each place, and its error.

    Of readings :math:`y_i = f + e_i`, :math:`e_i \sim N(0, \sigma_i^2)`, this is all that they say
    on f:

    .. math:: \bar y = \sigma^2 \sum_i y_i / \sigma_i^2, \qquad
        \sigma^{-2} = \sum_i \sigma_i^{-2}.

    An exact reading outweighs every other one; several have equal weights.

    Args:
        coords: Measured positions (M, P).
        values: Measurements (M, C).
        noise: Standard deviation of each error (M, C), at least 0; None for exact readings.
        within: Distance below which two positions are one place; 0 for equal ones.
    """
    _, first, place = np.unique(places(coords, within), return_index=True, return_inverse=True)
    count = len(first)
    if count == len(coords):
        return Places(coords, values, noise, place)
    even = np.ones((len(coords), 1))
    centres = _means(coords, even, place, first)
    if noise is None:
        return Places(centres, _means(values, even, place, first), None, place)
    least = np.full((count, values.shape[1]), np.inf)
    np.minimum.at(least, place, noise)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = np.where(noise == 0, 1.0, (least[place] / noise) ** 2)
    means = _means(values, weights, place, first)
    return Places(centres, means, least / np.sqrt(_sums(weights, place, count)), place)


def _means(
    rows: np.ndarray, weights: np.ndarray, place: np.ndarray, first: np.ndarray
) -> np.ndarray:
    """Return weighted means (K, D) of the rows (M, D) of each place.

    They are taken of differences from the first row, so that equal rows keep their last bit.
    """
    excess = _sums(weights * (rows - rows[first][place]), place, len(first))
    return rows[first] + excess / _sums(weights, place, len(first))


def _sums(rows: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """Return the sum (K, D) of the rows (M, D) of each place."""
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, place, rows)
    return sums


def true_values(
    obs: Observation,
    noise: float | Sequence[float] | np.ndarray | None = None,
    samples: int = 0,
    *,
    seed: int = 0,
    priors: Sequence[GaussianField] | None = None,
) -> list[Observation]:
    r"""Return the expected true values at the measured points, and samples of them.

    For measurements :math:`y = f + e`, :math:`e_i \sim N(0, \sigma_i^2)`, of a Gaussian field,
    with :math:`S = \mathrm{diag}(\sigma_i^2)`,

    .. math:: f \mid y \sim N\big(m + K (K + S)^{-1} (y - m),\;
        K - K (K + S)^{-1} K\big).

    A model that takes exact observations is thereby one for noisy ones, by the law of total
    probability, :math:`p(x \mid y) = \int p(x \mid f)\, p(f \mid y)\, df`: given f, the
    measurements say nothing more. Several readings of one place have one true value.

    Reference: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equations
    2.22 to 2.24.

    Args:
        obs: Measurements of one field, coords (M, P) and values (M, C), all valid.
        noise: Standard deviation of the errors in the units of the values: one number, one per
            channel (C,), or one per value (M, C), at least 0; the observation's own if None.
        samples: Number of samples S.
        seed: Seed of the samples, at least 0; a sample does not depend on how many there are.
        priors: Fields of each channel; fitted by maximum likelihood if None.

    Returns:
        1 + S observations with the coordinates of `obs`: expectation, then samples.

    Raises:
        InputError: The noise does not fit, or there are too many points.
    """
    sigma = _each_value(obs.noise if noise is None else noise, obs)
    coords, values = obs.coords.double().numpy(), obs.values.double().numpy()
    merged = merge_readings(coords, values, sigma)
    if len(merged.coords) > MOST_POINTS:
        raise InputError(
            f"noise can be taken out of {MOST_POINTS} measurements at most, not "
            f"{len(merged.coords)}; thin them out, or state no noise"
        )
    columns = []
    for c in range(obs.channels):
        rng = [np.random.default_rng([seed, sample, c]) for sample in range(samples)]
        columns.append(_posterior(merged, c, priors[c] if priors else None, rng))
    results = torch.from_numpy(np.stack(columns, axis=-1)[:, merged.place])
    return [Observation(obs.coords, result) for result in results.to(obs.values.dtype)]


def _posterior(
    places: Places,
    channel: int,
    prior: GaussianField | None,
    rng: Sequence[np.random.Generator],
) -> np.ndarray:
    """Return the expectation and one sample per generator of f at the places (1 + S, K)."""
    assert places.noise is not None
    values, noise = places.values[:, channel : channel + 1], places.noise[:, channel]
    if not noise.any():
        return np.repeat(values.T, 1 + len(rng), axis=0)
    prior = prior or _prior(places.coords, values, noise)
    mean = prior.posterior(places.coords, values, places.coords, noise=noise)[0][:, 0]
    covariance = prior.posterior_covariance(places.coords, places.coords, noise)
    scales, axes = np.linalg.eigh(float(np.ravel(prior.variance)[0]) * covariance)
    root = axes * np.sqrt(scales.clip(0))  # it may be singular: two points may be as one
    return np.stack([mean, *(mean + root @ each.standard_normal(len(mean)) for each in rng)])


def _prior(coords: np.ndarray, values: np.ndarray, noise: np.ndarray) -> GaussianField:
    part = np.random.default_rng(0).permutation(len(coords))[:FIT_POINTS]
    return fit_gaussian_field(
        coords[part], values[part], noise[part], kernels=("matern32",), shares=NO_NUGGET
    )


def _each_value(
    noise: float | Sequence[float] | np.ndarray | torch.Tensor | None, obs: Observation
) -> np.ndarray:
    """Return the standard deviation of each value's error (M, C)."""
    sigma = np.asarray(0.0 if noise is None else noise, dtype=float)
    shape = (obs.count, obs.channels)
    if sigma.shape not in ((), (1,), (obs.channels,), shape):
        raise InputError(
            f"noise takes one number, {obs.channels} or {' x '.join(map(str, shape))}, not "
            f"{' x '.join(map(str, sigma.shape))}"
        )
    if not (np.isfinite(sigma).all() and (sigma >= 0).all()):
        raise InputError(f"noise must be finite and at least 0, not {noise}")
    return np.broadcast_to(sigma, shape)
