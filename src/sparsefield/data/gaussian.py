"""Stationary Gaussian fields in closed form: covariance, samples, posterior, likelihood."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.spatial.distance import cdist

from sparsefield.core.errors import InputError, unknown_name

KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exponential": lambda r: np.exp(-r),
    "matern32": lambda r: (1 + math.sqrt(3) * r) * np.exp(-math.sqrt(3) * r),
    "matern52": lambda r: (1 + math.sqrt(5) * r + 5 / 3 * r**2) * np.exp(-math.sqrt(5) * r),
    "gaussian": lambda r: np.exp(-(r**2) / 2),
}

# Candidates of a fit: noise variances, and lengths in units of the mean nearest distance.
NUGGETS = (1e-6, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
LENGTHS = 2.0 ** np.arange(-1, 6.5, 0.5)
# Candidates of a fit with known noise, in units of the variance of the values.
VARIANCES = 2.0 ** np.arange(-6, 3.5, 0.5)


@dataclass(frozen=True, eq=False)
class GaussianField:
    """Gaussian field `f ~ N(mean, variance k(|x - x'| / length))`, measured with noise.

    A measurement is `f(x) + e` with `e ~ N(0, nugget variance)`. Channels are independent and
    share the correlation.

    Reference: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equations
    2.25, 2.26 and 4.14 to 4.17.

    Args:
        length: correlation length, in the units of the coordinates, above 0.
        variance: variance of the field, above 0, one for all channels or one each, shape (C,).
        nugget: noise variance as a fraction of the field's, at least 0.
        mean: mean of the field, one for all channels or one each, shape (C,).
        kernel: a name in `KERNELS`.

    Raises:
        InputError: if the kernel is unknown, or the length or the nugget is out of range.
    """

    length: float
    variance: float | np.ndarray = 1.0
    nugget: float = 0.0
    mean: float | np.ndarray = 0.0
    kernel: str = "matern32"

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.kernel not in KERNELS:
            raise unknown_name("kernel", self.kernel, list(KERNELS))
        if self.length <= 0 or self.nugget < 0:
            raise InputError(
                f"a Gaussian field needs length > 0 and nugget >= 0, got {self.length} and "
                f"{self.nugget}"
            )

    def correlation(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return `k(|a_i - b_j| / length)`, shape (I, J), for points of shape (I, P), (J, P)."""
        return KERNELS[self.kernel](cdist(a, b) / self.length)

    def sample(self, coords: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return draws of one channel of the field without noise, shape (S, L).

        The cost is that of a Cholesky factor of the L x L covariance: exact, for small grids.

        Args:
            coords: positions, shape (L, P).
            count: number of draws S.
            rng: source of randomness.
        """
        # A nugget of 1e-9 keeps the factor finite and is below what a float32 field can show.
        factor = replace(self, nugget=1e-9)._factor(coords)
        unit = rng.standard_normal((count, len(coords))) @ factor.T
        return self.mean + np.sqrt(self.variance) * unit

    def posterior(
        self, coords: np.ndarray, values: np.ndarray, query: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the field given measurements.

        `mean + k_*^T (K + nugget I)^-1 (v - mean)`; the deviation is of `f`, without noise.

        Args:
            coords: measured positions, shape (M, P).
            values: measurements, shape (M, C).
            query: positions to predict, shape (L, P).

        Returns:
            Mean and standard deviation, each of shape (L, C).
        """
        factor = self._factor(coords)
        white = solve_triangular(factor, values - self.mean, lower=True)
        # Blocks bound the memory of large queries: 2^24 doubles are 128 MiB.
        blocks = np.array_split(query, math.ceil(len(query) * len(coords) / 2**24))
        means, spreads = [], []
        for block in blocks:
            cross = solve_triangular(factor, self.correlation(coords, block), lower=True)
            means.append(cross.T @ white)
            spreads.append(np.sqrt(np.maximum(1 - (cross**2).sum(axis=0), 0)))
        spread = np.concatenate(spreads)[:, None] * np.sqrt(self.variance)
        mean = self.mean + np.concatenate(means)
        return mean, np.broadcast_to(spread, mean.shape)

    def posterior_covariance(self, coords: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Return the covariance of the field at query points given measurements elsewhere.

        Args:
            coords: measured positions, shape (M, P).
            query: positions to predict, shape (L, P).

        Returns:
            Covariance of one channel in units of its variance, shape (L, L).
        """
        cross = solve_triangular(self._factor(coords), self.correlation(coords, query), lower=True)
        return self.correlation(query, query) - cross.T @ cross

    def _factor(self, coords: np.ndarray) -> np.ndarray:
        """Return the lower Cholesky factor of the measurements' correlation."""
        correlation = self.correlation(coords, coords)
        correlation[np.diag_indices_from(correlation)] += self.nugget
        try:
            return cholesky(correlation, lower=True)
        except LinAlgError as error:
            raise InputError(
                f"{len(coords)} points are too close together for length {self.length:g} with "
                f"nugget {self.nugget:g}; raise the nugget"
            ) from error


def fit_gaussian_field(
    coords: np.ndarray, values: np.ndarray, kernel: str = "matern32"
) -> GaussianField:
    """Return the Gaussian field of maximum likelihood for measurements.

    Mean and variance of each channel have a closed form (generalised least squares). Length and
    nugget are shared by the channels and climb the likelihood over `NUGGETS` and `LENGTHS`, the
    latter in units of the mean distance to the nearest neighbour.

    Reference: Rasmussen and Williams (2006), equation 5.8, with the variance profiled out.

    Args:
        coords: measured positions, all different, shape (M, P).
        values: measurements, shape (M, C).
        kernel: a name in `KERNELS`.

    Returns:
        The fitted field, with `mean` and `variance` of shape (C,).
    """
    distance = cdist(coords, coords)
    spacing = _nearest_spacing(distance)

    @cache
    def correlation(i: int) -> np.ndarray:
        return KERNELS[kernel](distance / (LENGTHS[i] * spacing))

    @cache
    def fit(i: int, j: int) -> _Fit:
        return _profile(correlation(i) + NUGGETS[j] * np.eye(len(coords)), values)

    i, j = _climb(lambda i, j: fit(i, j).log_likelihood, (len(LENGTHS), len(NUGGETS)))
    best = fit(i, j)
    return GaussianField(LENGTHS[i] * spacing, best.variance, NUGGETS[j], best.mean, kernel)


def fit_measured_field(
    coords: np.ndarray, values: np.ndarray, noise: float, kernel: str = "matern32"
) -> GaussianField:
    """Return the Gaussian field of maximum likelihood for measurements with a known error.

    The mean has a closed form. Length and variance climb the likelihood over `LENGTHS`, in units
    of the mean distance to the nearest neighbour, and over `VARIANCES`, in units of the values'.

    Reference: Rasmussen and Williams (2006), equation 5.8.

    Args:
        coords: measured positions, all different, shape (M, P).
        values: measurements of one channel, shape (M, 1).
        noise: standard deviation of the error, above 0, in the units of the values.
        kernel: a name in `KERNELS`.

    Returns:
        The fitted field, with a `nugget` that is the known error's.
    """
    distance = cdist(coords, coords)
    spacing = _nearest_spacing(distance)
    scale = max(float(values.var()), noise**2)

    @cache
    def correlation(i: int) -> np.ndarray:
        return KERNELS[kernel](distance / (LENGTHS[i] * spacing))

    @cache
    def fit(i: int, j: int) -> _Fit:
        variance = VARIANCES[j] * scale
        nugget = noise**2 / variance + 1e-9
        return _profile(correlation(i) + nugget * np.eye(len(coords)), values, variance)

    i, j = _climb(lambda i, j: fit(i, j).log_likelihood, (len(LENGTHS), len(VARIANCES)))
    best = fit(i, j)
    nugget = noise**2 / float(best.variance)
    return GaussianField(LENGTHS[i] * spacing, best.variance, nugget, best.mean, kernel)


class _Fit(NamedTuple):
    """Likelihood of a correlation, with the mean and the variance that maximise it."""

    log_likelihood: float
    mean: np.ndarray
    variance: np.ndarray


def _profile(
    correlation: np.ndarray, values: np.ndarray, variance: np.ndarray | None = None
) -> _Fit:
    """Maximise the likelihood of measurements over the mean, and the variance if none is given,
    of each channel."""
    count, channels = values.shape
    factor = cholesky(correlation, lower=True)
    white = solve_triangular(factor, np.column_stack([np.ones(count), values]), lower=True)
    ones, data = white[:, :1], white[:, 1:]
    mean = (ones * data).sum(axis=0) / (ones**2).sum()
    residual = ((data - ones * mean) ** 2).mean(axis=0)
    if variance is None:
        # A constant channel says nothing on length and nugget: any positive variance will do.
        variance = np.maximum(residual, 1e-12 * (values**2).mean() + np.finfo(float).tiny)
    log_determinant = 2 * np.log(np.diag(factor)).sum()
    misfit = count * (np.log(variance) + residual / variance).sum()
    likelihood = -(misfit + channels * log_determinant) / 2
    return _Fit(float(likelihood), mean, variance)


def _nearest_spacing(distance: np.ndarray) -> float:
    """Return the mean distance of points to their nearest neighbours, 1 for a single point."""
    if len(distance) == 1:
        return 1.0
    others = distance + np.diag(np.full(len(distance), np.inf))
    return float(others.min(axis=0).mean())


def _climb(score: Callable[[int, int], float], shape: tuple[int, int]) -> tuple[int, int]:
    """Return a cell of a grid that no neighbour beats, climbing from the centre."""
    best = (shape[0] // 2, shape[1] // 2)
    while True:
        rows, columns = (
            range(max(at - 1, 0), min(at + 2, size)) for at, size in zip(best, shape, strict=True)
        )
        leader = max(product(rows, columns), key=lambda cell: score(*cell))
        if score(*leader) <= score(*best):
            return best
        best = leader
