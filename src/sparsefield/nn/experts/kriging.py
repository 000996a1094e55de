"""Ordinary kriging under many covariances at once, in closed form."""

from typing import NamedTuple

import numpy as np
import torch

from sparsefield.nn.experts.kernels import JITTER, cross_all, factorise_all, pull_all

CROSS_ENTRIES = 2**21  # covariances with queries in memory at a time
FLAT = 1e-6  # slope of the evidence below which there is no direction but rounding


class Bank(NamedTuple):
    """Covariances of E experts, `(1 - nugget) matern(rate d) + trend x x' + nugget noise`.

    Experts of the same shape but for the nugget follow each other and share a number in `shape`.

    Attributes:
        rate: Factor of a distance (E,).
        linear: Coefficient of the Matérn polynomial (E,).
        square: Coefficient of its square (E,).
        nugget: Share of the noise in the variance (E,).
        shape: Number of the shape (E,), rising.
    """

    rate: np.ndarray
    linear: np.ndarray
    square: np.ndarray
    nugget: np.ndarray
    shape: np.ndarray

    def take(self, numbers: np.ndarray) -> "Bank":
        """Return the experts of the given numbers, each a shape of its own."""
        taken = Bank(*(x[numbers] for x in self))
        return taken._replace(shape=np.arange(len(numbers)))


class Systems(NamedTuple):
    """Kriging systems of E experts.

    Attributes:
        inverse: Inverse covariance of the observations (E, N, N), for unit variance.
        ones: Inverse covariance times ones (E, N).
        weights: What multiplies a covariance to give a mean (E, N).
        level: Estimate of the constant mean (E,).
        variance: Estimate of the variance (E,).
        evidence: Log restricted likelihood (E,), up to a constant.
        left_mean: Leave-one-out means (E, N).
        left_var: Leave-one-out variances (E, N).
    """

    inverse: np.ndarray
    ones: np.ndarray
    weights: np.ndarray
    level: np.ndarray
    variance: np.ndarray
    evidence: np.ndarray
    left_mean: np.ndarray
    left_var: np.ndarray

    def take(self, numbers: np.ndarray) -> "Systems":
        """Return the systems of the given numbers."""
        return Systems(*(x[numbers] for x in self))


class Seen(NamedTuple):
    """Observations of one item, in units of length.

    Attributes:
        coords: Positions (N, P).
        values: Values (N,).
        noise: Relative noise variances (N,).
    """

    coords: np.ndarray
    values: np.ndarray
    noise: np.ndarray


class Factors(NamedTuple):
    """Cholesky factors of E experts' covariances, and how well each explains the values.

    Attributes:
        factor: Upper factors (E, N, N + 2); the last columns are the lower one's inverse times
            ones and times the values.
        evidence: Log restricted likelihood (E,), up to a constant.
    """

    factor: np.ndarray
    evidence: np.ndarray


def factorise(bank: Bank, seen: Seen, trend: float = 0.0) -> Factors:
    """Return the factors and the evidence of every expert, mean and variance profiled out.

    Reference: Stein, Interpolation of Spatial Data (1999), section 6.4.

    Args:
        bank: Covariances.
        seen: Observations, in the metric of the experts.
        trend: Variance of a linear trend per unit of length.
    """
    count = len(seen.values)
    factor = np.empty((len(bank.rate), count, count + 2))
    factor[:, :, count], factor[:, :, count + 1] = 1, seen.values
    log_determinant = np.empty(len(bank.rate))
    coords = np.ascontiguousarray(seen.coords)
    factorise_all(*bank, coords, seen.noise, trend, factor, log_determinant)
    ones, values = factor[:, :, count], factor[:, :, count + 1]
    precision = (ones**2).sum(1)
    misfit = (values**2).sum(1) - (ones * values).sum(1) ** 2 / precision
    variance = np.maximum(misfit / (count - 1), 1e-12)
    evidence = -((count - 1) * np.log(variance) + log_determinant + np.log(precision)) / 2
    return Factors(factor, evidence)


def complete(factors: Factors, values: np.ndarray, numbers: np.ndarray) -> Systems:
    r"""Return the kriging systems of some experts, with leave-one-out forecasts.

    With :math:`P = C^{-1} - C^{-1} 1 1^T C^{-1} / 1^T C^{-1} 1` the residual of observation i,
    left out, is :math:`(P y)_i / P_{ii}`, and its variance :math:`\sigma^2 / P_{ii}`.

    Reference: Cross validation of kriging in a unique neighborhood (Dubrule, 1983).

    Args:
        factors: What `factorise` returned.
        values: Observed values (N,).
        numbers: Experts to complete (A,).
    """
    count = len(values)
    square = torch.from_numpy(factors.factor[numbers, :, :count])
    inverse = torch.cholesky_inverse(square, upper=True).numpy()
    ones = inverse.sum(-1)
    precision = ones.sum(-1)
    level = ones @ values / precision
    weights = inverse @ values - level[:, None] * ones
    variance = np.maximum(weights @ values / (count - 1), 1e-12)
    left = np.diagonal(inverse, axis1=1, axis2=2) - ones**2 / precision[:, None]
    left = np.maximum(left, 1e-12)
    left_mean, left_var = values - weights / left, variance[:, None] / left
    evidence = factors.evidence[numbers]
    return Systems(inverse, ones, weights, level, variance, evidence, left_mean, left_var)


def solve(bank: Bank, seen: Seen, trend: float = 0.0) -> Systems:
    """Solve ordinary kriging for every expert; see `factorise` and `complete`."""
    factors = factorise(bank, seen, trend)
    return complete(factors, seen.values, np.arange(len(bank.rate)))


def predict(
    bank: Bank, systems: Systems, coords: np.ndarray, query: np.ndarray, trend: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of the noise-free field at the queries, each (E, Q).

    Args:
        bank: Covariances.
        systems: What `solve` returned.
        coords: Observed positions (N, P).
        query: Positions to predict (Q, P).
        trend: As given to `solve`.
    """
    at_a_time = max(1, CROSS_ENTRIES // (len(bank.rate) * len(coords)))
    blocks = np.split(query, range(at_a_time, len(query), at_a_time))
    parts = [_predict(bank, systems, coords, block, trend) for block in blocks]
    mean, var = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return mean, var


def _predict(
    bank: Bank, systems: Systems, coords: np.ndarray, query: np.ndarray, trend: float
) -> tuple[np.ndarray, np.ndarray]:
    cross = np.empty((len(bank.rate), len(query), len(coords)))
    places = (np.ascontiguousarray(x) for x in (coords, query))
    cross_all(*bank, *places, trend, cross)
    mean = systems.level[:, None] + (cross @ systems.weights[..., None])[..., 0]
    explained = ((cross @ systems.inverse) * cross).sum(-1)
    missing = 1 - (cross @ systems.ones[..., None])[..., 0]
    prior = (1 - bank.nugget)[:, None] + trend * (query**2).sum(1)
    var = prior - explained + missing**2 / systems.ones.sum(1)[:, None]
    return mean, systems.variance[:, None] * np.maximum(var, JITTER)


def stretch_direction(bank: Bank, systems: Systems, coords: np.ndarray) -> np.ndarray:
    r"""Return the traceless symmetric matrix (P, P) along which the evidence rises fastest.

    It is the derivative of the evidence, averaged over the experts by their evidence, by the
    metric M of :math:`d^2 = h^T M h` at the identity. Its eigenvalues span 1, or 0 if P = 1.

    Args:
        bank: Experts without trend.
        systems: Their systems.
        coords: Positions (N, P) in units of length.
    """
    share = np.exp(systems.evidence - systems.evidence.max())
    pull = np.zeros(systems.inverse.shape[1:])
    pull_all(*bank[:4], share / share.sum(), *systems[:3], systems.variance, coords, pull)
    gradient = coords.T @ (pull.sum(1)[:, None] * coords) - coords.T @ pull @ coords
    gradient -= np.trace(gradient) / len(gradient) * np.eye(len(gradient))
    values = np.linalg.eigvalsh(gradient)
    return gradient / max(values[-1] - values[0], FLAT)


def stretch(direction: np.ndarray, ratio: float) -> np.ndarray:
    """Return the map (P, P) that stretches space along a direction, by `ratio` at most."""
    values, vectors = np.linalg.eigh(direction)
    return (vectors * ratio**values) @ vectors.T
