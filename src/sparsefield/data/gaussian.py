"""Stationary Gaussian fields in closed form: covariance, samples, posterior."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.spatial.distance import cdist

from sparsefield.core.errors import InputError, unknown_name


def _matern32(r: np.ndarray) -> np.ndarray:
    """Return `(1 + s) exp(-s)` with s = sqrt(3) r, in place: copies take longer."""
    s = math.sqrt(3) * r
    decay = np.exp(-s)
    s += 1
    s *= decay
    return s


KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exponential": lambda r: np.exp(-r),
    "matern32": _matern32,
    "matern52": lambda r: (1 + math.sqrt(5) * r + 5 / 3 * r**2) * np.exp(-math.sqrt(5) * r),
    "gaussian": lambda r: np.exp(-(r**2) / 2),
}

# Numbers of a block of a covariance between queries and measurements: 2^24 doubles are 128 MiB.
BLOCK = 2**24


@dataclass(frozen=True, eq=False)
class GaussianField:
    """Gaussian field `f ~ N(mean, variance k(|x - x'| / length))`, measured with an error.

    A measurement is `f(x) + e`. The error has variance `nugget variance`, plus the square of the
    standard deviation that was stated for the measurement, if any. Channels are independent and
    share the correlation.

    Reference: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equations
    2.25, 2.26 and 4.14 to 4.17.

    Args:
        length: Correlation length in the units of the coordinates, above 0.
        variance: Variance of the field, at least 0, one for all channels or one each (C,).
        nugget: Variance of the error as a fraction of the field's, at least 0.
        mean: Mean of the field, one for all channels or one each (C,).
        kernel: A name in `KERNELS`.

    Raises:
        InputError: The kernel is unknown, or the length or the nugget is out of range.
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
        """Return `k(|a_i - b_j| / length)` (I, J) for points (I, P) and (J, P)."""
        return KERNELS[self.kernel](cdist(a, b) / self.length)

    def sample(self, coords: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return samples (S, L) of one channel of the field, without error.

        The cost is that of a Cholesky factor of the L x L covariance: exact, for small grids.

        Args:
            coords: Positions (L, P).
            count: Number of samples S.
            rng: Source of randomness.

        Raises:
            InputError: Points are too close together to be told apart.
        """
        # A nugget of 1e-9 keeps the factor finite and is below what a float32 field can show.
        factor = replace(self, nugget=1e-9).factor(coords)
        unit = rng.standard_normal((count, len(coords))) @ factor.T
        return self.mean + np.sqrt(self.variance) * unit

    def posterior(
        self,
        coords: np.ndarray,
        values: np.ndarray,
        query: np.ndarray,
        *,
        noise: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the field given measurements.

        `mean + k_*^T (K + E)^-1 (v - mean)`, with the error's variance E on the diagonal in units
        of the field's.

        Args:
            coords: Measured positions (M, P).
            values: Measurements (M, C).
            query: Positions to predict (L, P).
            noise: Stated standard deviation of each measurement's error (M,), in the units of the
                values; None for the nugget alone.

        Returns:
            Mean and standard deviation of `f`, without error, each (L, C).

        Raises:
            InputError: See `factor`.
        """
        factor = self.factor(coords, noise)
        white = solve_triangular(factor, values - self.mean, lower=True)
        means, deviations = [], []
        for block in query_blocks(query, len(coords)):
            cross = solve_triangular(factor, self.correlation(coords, block), lower=True)
            means.append(cross.T @ white)
            explained = np.einsum("ml,ml->l", cross, cross)
            deviations.append(np.sqrt(np.maximum(1 - explained, 0)))
        std = np.concatenate(deviations)[:, None] * np.sqrt(self.variance)
        mean = self.mean + np.concatenate(means)
        return mean, np.broadcast_to(std, mean.shape)

    def posterior_covariance(
        self, coords: np.ndarray, query: np.ndarray, noise: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the covariance (L, L) of the field at queries, in units of its variance.

        Args:
            coords: Measured positions (M, P).
            query: Positions to predict (L, P).
            noise: Stated standard deviation of each measurement's error (M,), or None.

        Raises:
            InputError: See `factor`.
        """
        factor = self.factor(coords, noise)
        cross = solve_triangular(factor, self.correlation(coords, query), lower=True)
        return self.correlation(query, query) - cross.T @ cross

    def factor(self, coords: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Return the lower Cholesky factor (M, M) of the measurements' covariance.

        Args:
            coords: Measured positions (M, P).
            noise: Stated standard deviation of each measurement's error (M,), or None.

        Returns:
            The factor in units of the field's variance.

        Raises:
            InputError: Points are too close together to be told apart, or errors are stated for
                channels of several variances, which have several factors.
        """
        correlation = self.correlation(coords, coords)
        correlation[np.diag_indices_from(correlation)] += self._errors(noise)
        try:
            return cholesky(correlation, lower=True)
        except LinAlgError as error:
            raise InputError(
                f"{len(coords)} points are too close together for length {self.length:g} with "
                f"nugget {self.nugget:g}; raise the nugget"
            ) from error

    def _errors(self, noise: np.ndarray | None) -> float | np.ndarray:
        """Return the error variance of each measurement in units of the field's."""
        if noise is None:
            return self.nugget
        if np.size(self.variance) != 1:
            raise InputError(
                "stated errors need a field of one variance; take channels one by one"
            )
        return self.nugget + noise**2 / float(np.ravel(self.variance)[0])


def query_blocks(query: np.ndarray, count: int) -> list[np.ndarray]:
    """Return queries (L, P) in blocks whose covariance with so many points fits into memory."""
    return np.array_split(query, max(1, math.ceil(len(query) * count / BLOCK)))
