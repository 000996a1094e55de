"""Gaussian fields fitted to measurements by restricted maximum likelihood."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtrs
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist, squareform

from sparsefield.data.gaussian import KERNELS, GaussianField

# Matern smoothness 3/2 comes first: the others start from where it ends.
MATERN = ("matern32", "exponential", "matern52")
# Candidates of the nugget as a share of the whole variance; the fit goes between them.
SHARES = (1e-8, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 0.95, 0.99, 0.999)
# Candidates of the whole variance where errors are stated, in units of the values'.
VARIANCES = tuple(2.0 ** np.arange(-6, 4, 0.5))
# Steps per doubling of the length.
PER_DOUBLING = 2
# Starts on each axis of a search.
STARTS = 3
# A likelihood that is not greater by this is as great: rounding must not choose.
GREATER = 1e-6

# Indices of the candidates on each axis; fractions lie between two.
Cell = tuple[float, ...]
Shape = tuple[int, ...]
Score = Callable[[Cell], float]


class Covariance(NamedTuple):
    """Covariance `total ((1 - share) k(r / length) + share [r = 0])` of measurements.

    Attributes:
        kernel: A name in `KERNELS`.
        length: Correlation length in the units of the coordinates.
        share: Nugget as a share of the whole variance, in [0, 1).
        total: Variance of field and nugget; None where it follows from the measurements.
    """

    kernel: str
    length: float
    share: float
    total: float | None = None


class Fit(NamedTuple):
    """Likelihood of a covariance, with the mean and the variance that go with it.

    Attributes:
        likelihood: Logarithm of the restricted likelihood, up to a constant.
        mean: Mean of each channel (C,), by generalised least squares.
        variance: Variance of field and nugget of each channel (C,).
    """

    likelihood: float
    mean: np.ndarray
    variance: np.ndarray


def fit_gaussian_field(
    coords: np.ndarray,
    values: np.ndarray,
    noise: np.ndarray | None = None,
    *,
    kernels: Sequence[str] = MATERN,
    shares: Sequence[float] = SHARES,
) -> GaussianField:
    """Return the Gaussian field of greatest restricted likelihood for measurements.

    The mean of each channel has a closed form. So has its variance, unless errors are stated.
    Kernel, length and nugget are shared by the channels and climb the likelihood from several
    starts. A constant channel says nothing on them and gets the variance 0.

    Reference: Stein, Interpolation of Spatial Data (1999), section 6.4.

    Args:
        coords: Measured positions, all different, (M, P).
        values: Measurements (M, C); one channel if errors are stated.
        noise: Stated standard deviation of each measurement's error (M,), in the units of the
            values; None if none is stated.
        kernels: Names in `KERNELS` to choose from.
        shares: Candidates of the nugget, as shares of the whole variance, rising.

    Returns:
        The fitted field, with `mean` and `variance` (C,).
    """
    scale = 1.0 if noise is None else float(values.var() + np.mean(noise**2))
    varying = values[:, np.ptp(values, axis=0) > 0] if noise is None else values
    axes = candidates(coords, shares, None if noise is None else scale)
    likelihood = RestrictedLikelihood(coords, varying, noise)
    best = search(lambda each: likelihood(each).likelihood, kernels, axes)
    whole = RestrictedLikelihood(coords, values, noise)(best)
    nugget = best.share / (1 - best.share)
    return GaussianField(
        best.length, (1 - best.share) * whole.variance, nugget, whole.mean, best.kernel
    )


class RestrictedLikelihood:
    """Restricted likelihood of a covariance for measurements, by one dense factor.

    Args:
        coords: Measured positions, all different, (M, P).
        values: Measurements (M, C).
        noise: Stated standard deviations of the errors (M,), or None.
    """

    def __init__(
        self, coords: np.ndarray, values: np.ndarray, noise: np.ndarray | None = None
    ) -> None:
        """Take distances once for all covariances."""
        self.distance = pdist(coords)
        self.data = np.column_stack([np.ones(len(values)), values])
        self.errors = None if noise is None else noise**2

    def __call__(self, covariance: Covariance) -> Fit:
        """Return the likelihood of a covariance, -inf if it is numerically singular."""
        # Fortran sees the symmetric matrix transposed, and may overwrite it without a copy.
        factor, failed = dpotrf(
            self._matrix(covariance).T, lower=True, clean=False, overwrite_a=True
        )
        if failed:
            nothing = np.zeros(self.data.shape[1] - 1)
            return Fit(-math.inf, nothing, nothing)
        white, _ = dtrtrs(factor, self.data, lower=True)
        return _profile(white, 2 * np.log(np.diag(factor)).sum(), covariance.total)

    def _matrix(self, covariance: Covariance) -> np.ndarray:
        """Return the covariance of the measurements over the whole variance (M, M)."""
        correlation = KERNELS[covariance.kernel](self.distance / covariance.length)
        matrix = squareform((1 - covariance.share) * correlation)
        errors = 0 if self.errors is None else self.errors / covariance.total
        matrix[np.diag_indices_from(matrix)] = 1 + errors
        return matrix


def _profile(white: np.ndarray, log_determinant: float, total: float | None) -> Fit:
    """Maximise over the mean of whitened data (M, 1 + C), and over the variance if none is given.

    The first column holds the whitened ones.
    """
    ones, data = white[:, :1], white[:, 1:]
    information = float((ones**2).sum())
    mean = (ones * data).sum(axis=0) / information
    squares = ((data - ones * mean) ** 2).sum(axis=0)
    contrasts = len(white) - 1
    variance = squares / max(contrasts, 1) if total is None else np.full_like(mean, total)
    # A channel that follows the covariance without any residual has no variance to speak of.
    safe = np.maximum(variance, np.finfo(float).tiny)
    misfit = (contrasts * np.log(safe) + squares / safe).sum()
    determinants = len(mean) * (log_determinant + math.log(information))
    return Fit(float(-(misfit + determinants) / 2), mean, variance)


def candidates(
    coords: np.ndarray, shares: Sequence[float] = SHARES, scale: float | None = None
) -> list[np.ndarray]:
    """Return the axes of a search: logarithms of lengths, of odds of shares, and of variances.

    Lengths go from half the mean distance to the nearest point to twice the extent of all.

    Args:
        coords: Measured positions, all different, (M, P).
        shares: Candidates of the nugget.
        scale: Unit of the candidate variances; None where the variance has a closed form.
    """
    if len(coords) > 1:
        low = float(cKDTree(coords).query(coords, 2)[0][:, 1].mean()) / 2
        high = 4 * math.sqrt(((coords - coords.mean(axis=0)) ** 2).sum(axis=1).mean())
    else:
        low = high = 1.0
    steps = math.ceil(PER_DOUBLING * math.log2(max(high / low, 1))) + 1
    odds = np.array([math.log(share / (1 - share)) for share in shares])
    axes = [math.log(low) + np.arange(steps) * math.log(2) / PER_DOUBLING, odds]
    return axes if scale is None else [*axes, np.log(scale) + np.log(VARIANCES)]


def search(
    score: Callable[[Covariance], float], kernels: Sequence[str], axes: Sequence[np.ndarray]
) -> Covariance:
    """Return the covariance of greatest score between candidates.

    The first kernel climbs from the best of several starts, the others from where it ends. The
    kernel whose parabola is highest is searched to the end, and between the candidates.

    Args:
        score: Score of a covariance.
        kernels: Names in `KERNELS`.
        axes: What `candidates` returned.
    """
    shape = tuple(len(axis) for axis in axes)
    surfaces = {
        kernel: cache(lambda cell, kernel=kernel: score(_covariance(kernel, axes, cell)))
        for kernel in kernels
    }
    start = _start(surfaces[kernels[0]], shape)
    first = _climb(surfaces[kernels[0]], start, partial(_beside, shape=shape))
    ends = {
        kernel: _climb(at, first, partial(_beside, shape=shape)) for kernel, at in surfaces.items()
    }
    heights = {kernel: _height(surfaces[kernel], end, shape) for kernel, end in ends.items()}
    best = kernels[0]
    for kernel, height in heights.items():
        best = kernel if height > heights[best] + GREATER else best
    at = surfaces[best]
    cell = _climb(at, ends[best], partial(_around, shape=shape))
    top = _summit(at, cell, shape)
    return _covariance(best, axes, top if at(top) > at(cell) + GREATER else cell)


def _covariance(kernel: str, axes: Sequence[np.ndarray], cell: Cell) -> Covariance:
    length, odds, *total = (
        float(np.interp(at, np.arange(len(axis)), axis))
        for at, axis in zip(cell, axes, strict=True)
    )
    share = 1 / (1 + math.exp(-odds))
    return Covariance(kernel, math.exp(length), share, math.exp(total[0]) if total else None)


def _start(score: Score, shape: Shape) -> Cell:
    """Return the best of some cells that are spread over a grid."""
    spread = [np.linspace(0, n - 1, STARTS + 2).round()[1:-1].astype(int).tolist() for n in shape]
    cells = list(product(*spread))
    return _leader(score, cells[0], cells)


def _climb(score: Score, start: Cell, near: Callable[[Cell], list[Cell]]) -> Cell:
    """Return a cell of a grid that none of those near it beats."""
    best = start
    while (leader := _leader(score, best, near(best))) != best:
        best = leader
    return best


def _beside(cell: Cell, shape: Shape) -> list[Cell]:
    """Return the neighbours of a cell along one axis."""
    moved = ((*cell[:a], i + s, *cell[a + 1 :]) for a, i in enumerate(cell) for s in (-1, 1))
    return [each for each in moved if all(0 <= i < n for i, n in zip(each, shape, strict=True))]


def _around(cell: Cell, shape: Shape) -> list[Cell]:
    """Return a cell and its neighbours, diagonal ones included."""
    ranges = (
        range(max(int(i) - 1, 0), min(int(i) + 2, n)) for i, n in zip(cell, shape, strict=True)
    )
    return list(product(*ranges))


def _leader(score: Score, cell: Cell, others: Sequence[Cell]) -> Cell:
    """Return the best of a cell and others, the first of those that rounding alone tells apart."""
    for other in others:
        if score(other) > score(cell) + GREATER:
            cell = other
    return cell


def _height(score: Score, cell: Cell, shape: Shape) -> float:
    """Return the height of the parabola through a cell and its neighbours along each axis."""
    height = score(cell)
    for axis in _inner(cell, shape):
        step = np.eye(len(cell), dtype=int)[axis]
        below, above = (score(tuple(np.add(cell, s * step).tolist())) for s in (-1, 1))
        curvature = below + above - 2 * score(cell)
        if np.isfinite(curvature) and curvature < -GREATER:
            height -= (above - below) ** 2 / (8 * curvature)
    return height


def _inner(cell: Cell, shape: Shape) -> list[int]:
    """Return the axes along which a cell has two neighbours."""
    return [axis for axis, (i, n) in enumerate(zip(cell, shape, strict=True)) if 0 < i < n - 1]


def _summit(score: Score, cell: Cell, shape: Shape) -> Cell:
    """Return the top of the parabola through a cell and its neighbours, at most a cell away."""
    inner = _inner(cell, shape)
    if not inner:
        return cell
    steps = np.array(list(product((-1, 0, 1), repeat=len(inner))))
    near = np.tile(np.array(cell, dtype=int), (len(steps), 1))
    near[:, inner] += steps
    heights = np.array([score(tuple(each)) for each in near.tolist()])
    if not np.isfinite(heights).all():
        return cell
    slope, curvature = _parabola(steps, heights)
    if np.linalg.eigvalsh(curvature).max() >= -GREATER:
        return cell
    top = np.array(cell, dtype=float)
    top[inner] += np.clip(np.linalg.solve(-curvature, slope), -1, 1)
    return tuple(top.tolist())


def _parabola(steps: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return slope (A,) and curvature (A, A) at 0 of the quadratic fitted to heights at steps."""
    count = steps.shape[1]
    pairs = [(a, b) for a in range(count) for b in range(a, count)]
    design = np.column_stack(
        [np.ones(len(steps)), steps, *(steps[:, a] * steps[:, b] for a, b in pairs)]
    )
    found = np.linalg.lstsq(design, heights, rcond=None)[0]
    curvature = np.zeros((count, count))
    for (a, b), value in zip(pairs, found[1 + count :], strict=True):
        curvature[a, b] += value
        curvature[b, a] += value
    return found[1 : 1 + count], curvature
