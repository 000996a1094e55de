"""Classical interpolators of one variable, with a Gaussian forecast where the method has one."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.interpolate import LinearNDInterpolator, RBFInterpolator
from scipy.linalg import LinAlgError, cho_solve, cholesky
from scipy.optimize import minimize
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

CORRELATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "matern12": lambda r: np.exp(-r),
    "matern32": lambda r: (1 + math.sqrt(3) * r) * np.exp(-math.sqrt(3) * r),
    "matern52": lambda r: (1 + math.sqrt(5) * r + 5 / 3 * r**2) * np.exp(-math.sqrt(5) * r),
}
START_LENGTHS = (0.03, 0.1, 0.3, 1.0)  # in root mean square distances
START_NUGGETS = (1e-3, 0.1, 1.0)  # in variances of the field
FITTED_POINTS = 1500  # of more points a random part is fitted to


class Forecast(NamedTuple):
    """Mean (L,) and standard deviation (L,) of a new measurement; None for a mere number."""

    mean: np.ndarray
    std: np.ndarray | None = None


class Covariance(NamedTuple):
    """Correlation, its length, and the nugget in variances of the field."""

    kernel: str
    length: float
    nugget: float


def nearest(coords: np.ndarray, values: np.ndarray, query: np.ndarray) -> Forecast:
    """Take the nearest measurement."""
    return Forecast(values[cKDTree(coords).query(query)[1]])


def inverse_distance(coords: np.ndarray, values: np.ndarray, query: np.ndarray) -> Forecast:
    """Weigh the 12 nearest measurements by the inverse square of their distance."""
    distance, index = cKDTree(coords).query(query, min(12, len(coords)))
    weight = 1 / np.maximum(distance, 1e-9 * distance.max()) ** 2
    return Forecast((weight * values[index]).sum(1) / weight.sum(1))


def linear(coords: np.ndarray, values: np.ndarray, query: np.ndarray) -> Forecast:
    """Interpolate on the Delaunay triangulation, nearest outside of the hull."""
    inside = LinearNDInterpolator(coords, values)(query)
    return Forecast(np.where(np.isnan(inside), nearest(coords, values, query).mean, inside))


def thin_plate(coords: np.ndarray, values: np.ndarray, query: np.ndarray) -> Forecast:
    """Interpolate by the thin-plate spline."""
    centre, scale = coords.mean(0), coords.std()
    coords, index = np.unique((coords - centre) / scale, axis=0, return_inverse=True)
    values = np.bincount(index.ravel(), values) / np.bincount(index.ravel())
    spline = RBFInterpolator(coords, values, kernel="thin_plate_spline")
    return Forecast(spline((query - centre) / scale))


def kriging(coords: np.ndarray, values: np.ndarray, query: np.ndarray) -> Forecast:
    """Krige with the Matérn covariance and nugget of greatest restricted likelihood.

    Reference: Stein, Interpolation of Spatial Data (1999), sections 1.5 and 6.4.
    """
    centre = values.mean()
    scale = max(float(values.std()), 1e-12 * float(np.abs(values).max()), 1e-300)
    covariance = fit_covariance(coords, (values - centre) / scale)
    mean, std = ordinary_kriging(covariance, coords, (values - centre) / scale, query)
    return Forecast(centre + scale * mean, scale * std)


def fit_covariance(coords: np.ndarray, values: np.ndarray) -> Covariance:
    """Return the covariance of greatest restricted likelihood, from the two best starts."""
    if len(coords) > FITTED_POINTS:
        part = np.random.default_rng(0).choice(len(coords), FITTED_POINTS, replace=False)
        coords, values = coords[part], values[part]
    distance = cdist(coords, coords)
    unit = math.sqrt((distance**2).mean())
    best, least = Covariance("matern12", unit, 1.0), np.inf
    for kernel in CORRELATIONS:

        def loss(x: np.ndarray, kernel: str = kernel) -> float:
            x = np.clip(x, np.log([1e-4, 1e-8]), np.log([1e3, 1e4]))
            covariance = Covariance(kernel, unit * math.exp(x[0]), math.exp(x[1]))
            return _restricted_loss(covariance, distance, values)

        starts = [np.log([a, b]) for a in START_LENGTHS for b in START_NUGGETS]
        for start in sorted(starts, key=loss)[:2]:
            found = minimize(loss, start, method="Nelder-Mead", options={"maxfev": 80})
            if found.fun < least:
                least = found.fun
                length, nugget = np.exp(np.clip(found.x, np.log([1e-4, 1e-8]), np.log([1e3, 1e4])))
                best = Covariance(kernel, unit * float(length), float(nugget))
    return best


def _restricted_loss(covariance: Covariance, distance: np.ndarray, values: np.ndarray) -> float:
    """Return the negative log restricted likelihood with mean and variance profiled out."""
    matrix = CORRELATIONS[covariance.kernel](distance / covariance.length)
    matrix[np.diag_indices_from(matrix)] += covariance.nugget
    try:
        factor = cholesky(matrix, lower=True, check_finite=False)
    except LinAlgError:
        return 1e12
    both = np.column_stack([np.ones(len(values)), values])
    solved = cho_solve((factor, True), both, check_finite=False)
    ones = solved[:, 0].sum()
    mean = solved[:, 1].sum() / ones
    variance = ((values - mean) @ (solved[:, 1] - mean * solved[:, 0])) / (len(values) - 1)
    log_determinant = 2 * np.log(np.diag(factor)).sum()
    misfit = (len(values) - 1) * math.log(max(variance, 1e-300))
    return (misfit + log_determinant + math.log(ones)) / 2


def ordinary_kriging(
    covariance: Covariance, coords: np.ndarray, values: np.ndarray, query: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of a new measurement at the queries."""
    correlation = CORRELATIONS[covariance.kernel]
    matrix = correlation(cdist(coords, coords) / covariance.length)
    matrix[np.diag_indices_from(matrix)] += covariance.nugget
    factor = cholesky(matrix, lower=True)
    ones = cho_solve((factor, True), np.ones(len(values)))
    mean = (ones @ values) / ones.sum()
    weights = cho_solve((factor, True), values - mean)
    variance = (values - mean) @ weights / (len(values) - 1)
    means, variances = [], []
    for block in np.array_split(query, math.ceil(len(query) / 2000)):
        cross = correlation(cdist(coords, block) / covariance.length)
        solved = cho_solve((factor, True), cross)
        means.append(mean + cross.T @ weights)
        drift = (1 - ones @ cross) ** 2 / ones.sum()
        variances.append(1 + covariance.nugget - (cross * solved).sum(0) + drift)
    std = np.sqrt(variance * np.maximum(np.concatenate(variances), 0))
    return np.concatenate(means), np.maximum(std, 1e-9)


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Forecast]] = {
    "nearest": nearest,
    "idw": inverse_distance,
    "linear": linear,
    "thin plate": thin_plate,
    "kriging": kriging,
}
