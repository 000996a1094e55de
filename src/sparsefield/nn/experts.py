"""A bank of Gaussian experts in closed form: kriging under many covariances at once.

Nothing here is learnt or fitted. A network reads what the experts say and decides on whom to rely.
"""

import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

LENGTHS = (2.5, 0.8, 0.26, 0.085, 0.027)  # in root mean square distances of the observations
MATERN = ((1.0, 0.0, 0.0), (3.0, 1.0, 0.0), (5.0, 1.0, 1 / 3))  # 2 nu, and a polynomial
NUGGETS = ((1e-6, 1e-3), (0.03, 0.15), (0.4, 0.75))  # classes of shares of the variance
RATIOS = (1.6, 2.6, 4.5)  # of the axes of anisotropic experts
TREND = 3.0  # variance of a linear trend over the unit of length, in variances of the values
LEADERS = 8  # isotropic experts of most evidence, tried with a trend and with other metrics
VOICES = 4  # experts of a group that are asked at the queries
ISOTROPIC = len(MATERN) * len(NUGGETS)
GROUPS = ISOTROPIC + 1 + len(RATIOS)
JITTER = 1e-9
PIVOTS = 4  # eliminated at a time
FARTHEST = 60.0  # correlations beyond exp(-60) are nought


class Problem(NamedTuple):
    """Observations, standardised, and where to predict; float64.

    Attributes:
        coords: Observed positions (B, N, P).
        values: Observed values (B, N) of mean about 0 and variance about 1.
        valid: Which observations count (B, N), bool; at least two of each item.
        noise: Noise variance of the observations relative to each other (B, N), about 1.
        radius: Extent of the group of observations that each is the mean of (B, N), 0 if of one.
        query: Positions to predict (B, Q, P).
        query_noise: Noise variance (B,) of a new value on the same scale: 1, or 0 if the noise
            is stated and a new value is the field itself.
    """

    coords: Tensor
    values: Tensor
    valid: Tensor
    noise: Tensor
    radius: Tensor
    query: Tensor
    query_noise: Tensor


class Forecasts(NamedTuple):
    """What the groups of experts say, float64.

    Attributes:
        evidence: Log marginal likelihood (B, G), up to a constant.
        left_mean: Mean at every observation, given all others (B, N, G).
        left_var: Variance of that observation, noise included (B, N, G).
        mean: Mean at the queries (B, Q, G).
        var: Variance of a new value (B, Q, G).
        field_var: Variance of the noise-free field (B, Q, G).
        unit: Root mean square distance between observations (B,).
    """

    evidence: Tensor
    left_mean: Tensor
    left_var: Tensor
    mean: Tensor
    var: Tensor
    field_var: Tensor
    unit: Tensor


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


class Seen(NamedTuple):
    """Observations of one item, in units of length.

    Attributes:
        coords: Positions (N, P).
        values: Values (N,).
        noise: Relative noise variances (N,).
        radius: Extents of the groups that they are the means of (N,).
    """

    coords: np.ndarray
    values: np.ndarray
    noise: np.ndarray
    radius: np.ndarray


class Spoken(NamedTuple):
    """Forecasts of the groups for one item; the first axis is the group."""

    evidence: np.ndarray
    left_mean: np.ndarray
    left_var: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    field_var: np.ndarray


def ask_experts(problem: Problem) -> Forecasts:
    """Return the forecasts of all groups for a batch.

    Isotropic experts are grouped by smoothness and size of the nugget; those of most evidence are
    tried again with a linear trend, and with metrics stretched along the direction in which the
    likelihood rises fastest. Within a group experts are averaged by their evidence.
    """
    items, most = problem.valid.shape
    asked = problem.query.shape[1]
    shapes = [(GROUPS,), (GROUPS, most), (GROUPS, most), *[(GROUPS, asked)] * 3]
    out = Spoken(*(np.zeros((items, *shape)) for shape in shapes))
    out.left_var[:] = 1
    units = np.ones(items)
    arrays = [x.numpy() for x in problem]
    for item in range(items):
        coords, values, valid, noise, radius, query, query_noise = (x[item] for x in arrays)
        coords, query, units[item] = rescale(coords[valid], query)
        seen = Seen(coords, values[valid], noise[valid], radius[valid] / units[item])
        said = ask_bank(seen, query, float(query_noise))
        for target, found in zip(out, said, strict=True):
            target[item, ..., : found.shape[-1]] = found
    evidence, *others = (torch.from_numpy(x) for x in out)
    return Forecasts(evidence, *(x.mT for x in others), torch.from_numpy(units))


def rescale(coords: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return positions around the observations' centre in their root mean square distance.

    Args:
        coords: Observed positions (N, P).
        query: Positions to predict (Q, P).
    """
    centre = coords.mean(0)
    unit = math.sqrt(2 * float(coords.var(0).sum())) or 1.0
    return (coords - centre) / unit, (query - centre) / unit, unit


def ask_bank(seen: Seen, query: np.ndarray, query_noise: float) -> Spoken:
    """Return the forecasts of all groups for one item, in units of length.

    Args:
        seen: Observations.
        query: Positions to predict (Q, P), rescaled.
        query_noise: Relative noise variance of a new value.
    """
    bank = isotropic_bank()
    systems = solve(bank, seen)
    spoken = speak(_isotropic_numbers(), bank, systems, seen.coords, query, query_noise)
    leaders = np.argsort(-systems.evidence, kind="stable")[:LEADERS]
    bank, systems = bank.take(leaders), Systems(*(x[leaders] for x in systems))
    direction = stretch_direction(bank, systems, seen.coords)
    parts = [spoken]
    for ratio in (1.0, *RATIOS):
        metric = stretch(direction, ratio)
        near, far = seen.coords @ metric, query @ metric
        systems = solve(bank, seen._replace(coords=near), TREND)
        numbers = np.arange(LEADERS)[None]
        parts.append(speak(numbers, bank, systems, near, far, query_noise, TREND))
    return Spoken(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def isotropic_bank() -> Bank:
    """Return all isotropic experts: for every smoothness and length, all nuggets."""
    nuggets = [nugget for pair in NUGGETS for nugget in pair]
    shapes = list(product(MATERN, LENGTHS))
    rows = [
        (math.sqrt(two_nu) / length, linear, square, nugget)
        for ((two_nu, linear, square), length), nugget in product(shapes, nuggets)
    ]
    rate, linear, square, nugget = np.array(rows).T
    return Bank(rate, linear, square, nugget, np.arange(len(rows)) // len(nuggets))


def _isotropic_numbers() -> np.ndarray:
    """Return the numbers (G, E) of the experts of every isotropic group."""
    shape = (len(MATERN), len(LENGTHS), len(NUGGETS), len(NUGGETS[0]))
    return np.arange(math.prod(shape)).reshape(shape).transpose(0, 2, 1, 3).reshape(ISOTROPIC, -1)


def solve(bank: Bank, seen: Seen, trend: float = 0.0) -> Systems:
    r"""Solve ordinary kriging for every expert, with leave-one-out forecasts and evidence.

    With :math:`P = C^{-1} - C^{-1} 1 1^T C^{-1} / 1^T C^{-1} 1` the residual of observation i,
    left out, is :math:`(P y)_i / P_{ii}`, and its variance :math:`\sigma^2 / P_{ii}`.

    The mean over a group differs from the field at its centre by about half of what the field
    differs by over its radius; that is counted as noise.

    References:
        Cross validation of kriging in a unique neighborhood (Dubrule, 1983).
        Stein, Interpolation of Spatial Data (1999), section 6.4, for the restricted likelihood.

    Args:
        bank: Covariances.
        seen: Observations, in the metric of the experts.
        trend: Variance of a linear trend per unit of length.
    """
    values = seen.values
    experts, count = len(bank.rate), len(values)
    inverse = np.empty((experts, count, count))
    log_determinant = np.empty(experts)
    coords = np.ascontiguousarray(seen.coords)
    _invert_all(*bank, coords, seen.noise, seen.radius, trend, inverse, log_determinant)
    ones = inverse.sum(-1)
    precision = ones.sum(-1)
    level = ones @ values / precision
    weights = inverse @ values - level[:, None] * ones
    variance = np.maximum(weights @ values / (count - 1), 1e-12)
    evidence = -((count - 1) * np.log(variance) + log_determinant + np.log(precision)) / 2
    left = np.diagonal(inverse, axis1=1, axis2=2) - ones**2 / precision[:, None]
    left = np.maximum(left, 1e-12)
    left_mean, left_var = values - weights / left, variance[:, None] / left
    return Systems(inverse, ones, weights, level, variance, evidence, left_mean, left_var)


def speak(
    numbers: np.ndarray,
    bank: Bank,
    systems: Systems,
    coords: np.ndarray,
    query: np.ndarray,
    query_noise: float,
    trend: float = 0.0,
) -> Spoken:
    """Average the experts of groups by their evidence.

    Args:
        numbers: Experts of each group (G, E).
        bank: Covariances.
        systems: What `solve` returned.
        coords: Observed positions (N, P).
        query: Positions to predict (Q, P).
        query_noise: Relative noise variance of a new value.
        trend: As given to `solve`.
    """
    evidence = systems.evidence[numbers]
    best = evidence.max(1, keepdims=True)
    total = np.log(np.exp(evidence - best).mean(1)) + best[:, 0]
    order = np.argsort(-evidence, axis=1, kind="stable")[:, :VOICES]
    chosen = np.take_along_axis(numbers, order, 1)
    share = np.exp(np.take_along_axis(evidence, order, 1) - best)
    share = (share / share.sum(1, keepdims=True))[..., None]
    mean, field_var = predict(bank, systems, chosen.ravel(), coords, query, trend)
    mean, field_var = (x.reshape(*chosen.shape, -1) for x in (mean, field_var))
    noise = (bank.nugget * systems.variance)[chosen][..., None] * query_noise
    average = (share * mean).sum(1)
    field = (share * (field_var + (mean - average[:, None]) ** 2)).sum(1)
    var = field + (share * (noise + JITTER)).sum(1)
    left = systems.left_mean[chosen]
    left_mean = (share * left).sum(1)
    spread = (left - left_mean[:, None]) ** 2
    left_var = (share * (systems.left_var[chosen] + spread)).sum(1)
    return Spoken(total, left_mean, left_var, average, var, field)


def predict(
    bank: Bank,
    systems: Systems,
    numbers: np.ndarray,
    coords: np.ndarray,
    query: np.ndarray,
    trend: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of the noise-free field at the queries, each (K, Q).

    Args:
        bank: Covariances.
        systems: What `solve` returned.
        numbers: Experts to ask (K,).
        coords: Observed positions (N, P).
        query: Positions to predict (Q, P).
        trend: As given to `solve`.
    """
    cross = np.empty((len(numbers), len(query), len(coords)))
    chosen = Bank(*(x[numbers] for x in bank))
    _cross_all(*chosen, *(np.ascontiguousarray(x) for x in (coords, query)), trend, cross)
    mean = systems.level[numbers, None] + (cross @ systems.weights[numbers, :, None])[..., 0]
    explained = ((cross @ systems.inverse[numbers]) * cross).sum(-1)
    ones = systems.ones[numbers]
    missing = 1 - (cross @ ones[..., None])[..., 0]
    prior = (1 - chosen.nugget)[:, None] + trend * (query**2).sum(1)
    var = prior - explained + missing**2 / ones.sum(1)[:, None]
    return mean, systems.variance[numbers, None] * np.maximum(var, JITTER)


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
    _pull_all(*bank[:4], share / share.sum(), *systems[:3], systems.variance, coords, pull)
    gradient = coords.T @ (pull.sum(1)[:, None] * coords) - coords.T @ pull @ coords
    gradient -= np.trace(gradient) / len(gradient) * np.eye(len(gradient))
    values = np.linalg.eigvalsh(gradient)
    return gradient / max(values[-1] - values[0], 1e-300)


def stretch(direction: np.ndarray, ratio: float) -> np.ndarray:
    """Return the map (P, P) that stretches space along a direction, by `ratio` at most."""
    values, vectors = np.linalg.eigh(direction)
    return (vectors * ratio**values) @ vectors.T


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances (B, N, M), exact at zero."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


@njit(inline="always")
def _decay(a: float) -> float:
    """Return exp(-a) for a >= 0 to 12 digits: a Taylor sum and squares, which vectorise."""
    x = -min(a, FARTHEST) / 256
    y = 1 + x / 9 * (1 + x / 10)
    y = 1 + x / 7 * (1 + x / 8 * y)
    y = 1 + x / 5 * (1 + x / 6 * y)
    y = 1 + x / 3 * (1 + x / 4 * y)
    y = 1 + x * (1 + x / 2 * y)
    for _ in range(8):
        y = y * y
    return y


@njit(cache=True, nogil=True, fastmath=True)
def _invert_all(
    rate: Any,
    linear: Any,
    square: Any,
    nugget: Any,
    shape: Any,
    coords: Any,
    noise: Any,
    radius: Any,
    trend: float,
    inverse: Any,
    log_determinant: Any,
) -> None:
    """Fill in inverse covariances (E, N, N) and their log determinants before inversion."""
    count, axes = coords.shape
    distance, gram = np.empty((count, count)), np.empty((count, count))
    for i in range(count):
        for j in range(i + 1):
            total, product = 0.0, 0.0
            for k in range(axes):
                total += (coords[i, k] - coords[j, k]) ** 2
                product += coords[i, k] * coords[j, k]
            distance[i, j], gram[i, j] = math.sqrt(total), trend * product
    correlation = np.empty((count, count))
    panel, rows, scaled = np.empty((3, PIVOTS, count))
    last = -1
    for e in range(rate.size):
        if shape[e] != last:
            last = shape[e]
            for i in range(count):
                for j in range(i + 1):
                    a = rate[e] * distance[i, j]
                    correlation[i, j] = (1 + a * (linear[e] + square[e] * a)) * _decay(a)
        matrix = inverse[e]
        for i in range(count):
            for j in range(i + 1):
                matrix[i, j] = (1 - nugget[e]) * correlation[i, j] + gram[i, j]
            matrix[i, i] += nugget[e] * noise[i] + JITTER
            if radius[i] > 0:
                a = rate[e] * radius[i]
                within = 1 - (1 + a * (linear[e] + square[e] * a)) * _decay(a)
                matrix[i, i] += (1 - nugget[e]) * within / 2
        log_determinant[e] = _invert(matrix, panel, rows, scaled)


@njit(nogil=True, fastmath=True)
def _invert(matrix: Any, panel: Any, rows: Any, scaled: Any) -> float:
    """Replace a positive matrix, given by its lower half, by its inverse; return log det.

    Four pivots are swept one after the other in their own rows, and then in all others at once,
    so that an entry is read and written once for all four. Inverting their block would be
    shorter, and fails where it is nearly singular.

    Reference: A tutorial on the SWEEP operator (Goodnight, 1979).

    Args:
        matrix: Matrix (N, N).
        panel: Room for the pivots' rows (4, N).
        rows: Room for the rows at the time of each pivot (4, N).
        scaled: Room for the same divided by the pivot (4, N).
    """
    count = len(matrix)
    total = 0.0
    for first in range(0, count, PIVOTS):
        size = min(PIVOTS, count - first)
        for c in range(size):
            k = first + c
            for j in range(k + 1):
                panel[c, j] = matrix[k, j]
            for j in range(k + 1, count):
                panel[c, j] = matrix[j, k]
        total += _sweep_panel(panel, rows, scaled, first, size)
        r0, r1, r2, r3 = rows[0], rows[1], rows[2], rows[3]
        for i in range(count):
            s0, s1, s2, s3 = scaled[0, i], scaled[1, i], scaled[2, i], scaled[3, i]
            line = matrix[i]
            for j in range(i + 1):
                line[j] -= s0 * r0[j] + s1 * r1[j] + s2 * r2[j] + s3 * r3[j]
        for c in range(size):
            k = first + c
            for j in range(k + 1):
                matrix[k, j] = panel[c, j]
            for i in range(k + 1, count):
                matrix[i, k] = panel[c, i]
    for i in range(count):
        for j in range(i + 1):
            matrix[i, j] = -matrix[i, j]
            matrix[j, i] = matrix[i, j]
    return total


@njit(nogil=True, fastmath=True)
def _sweep_panel(panel: Any, rows: Any, scaled: Any, first: int, size: int) -> float:
    """Sweep the pivots of a panel in its own rows; return the sum of the log pivots.

    `rows` keeps each pivot's row as it was, and `scaled` that over the pivot, with nought in the
    columns of the panel, and in whole rows that are not used.
    """
    total = 0.0
    rows[size:] = 0.0
    scaled[size:] = 0.0
    for c in range(size):
        k = first + c
        pivot = max(panel[c, k], JITTER / 10)
        total += math.log(pivot)
        row, over = rows[c], scaled[c]
        for j in range(row.size):
            row[j] = panel[c, j]
            over[j] = row[j] / pivot
        for b in range(size):
            if b != c:
                factor = row[first + b]
                line = panel[b]
                for j in range(row.size):
                    line[j] -= factor * over[j]
                line[k] = over[first + b]
        for j in range(row.size):
            panel[c, j] = over[j]
        panel[c, k] = -1 / pivot
        row[first : first + size] = 0.0
        over[first : first + size] = 0.0
    return total


@njit(cache=True, nogil=True, fastmath=True)
def _cross_all(
    rate: Any,
    linear: Any,
    square: Any,
    nugget: Any,
    shape: Any,
    coords: Any,
    query: Any,
    trend: float,
    cross: Any,
) -> None:
    """Fill in covariances (E, Q, N) between queries and observations."""
    count, axes = coords.shape
    distance, gram = np.empty(count), np.empty(count)
    for q in range(len(query)):
        for i in range(count):
            total, product = 0.0, 0.0
            for k in range(axes):
                total += (coords[i, k] - query[q, k]) ** 2
                product += coords[i, k] * query[q, k]
            distance[i], gram[i] = math.sqrt(total), trend * product
        for e in range(rate.size):
            scale, a1, a2, rest = rate[e], linear[e], square[e], 1 - nugget[e]
            for i in range(count):
                a = scale * distance[i]
                cross[e, q, i] = rest * (1 + a * (a1 + a2 * a)) * _decay(a) + gram[i]


@njit(cache=True, nogil=True, fastmath=True)
def _pull_all(
    rate: Any,
    linear: Any,
    square: Any,
    nugget: Any,
    share: Any,
    inverse: Any,
    ones: Any,
    weights: Any,
    variance: Any,
    coords: Any,
    pull: Any,
) -> None:
    """Add up the derivatives (N, N) of the evidence by half the squared distance of each pair."""
    count, axes = coords.shape
    distance = np.empty(count)
    for i in range(count):
        for j in range(count):
            total = 0.0
            for k in range(axes):
                total += (coords[i, k] - coords[j, k]) ** 2
            distance[j] = max(math.sqrt(total), 1e-9)
        for e in range(rate.size):
            factor = share[e] * rate[e] * (1 - nugget[e])
            fit, level = weights[e, i] / variance[e], ones[e, i] / ones[e].sum()
            a1, a2 = linear[e], square[e]
            for j in range(count):
                a = rate[e] * distance[j]
                slope = (a1 - 1 + (2 * a2 - a1) * a - a2 * a * a) * _decay(a) / distance[j]
                misfit = fit * weights[e, j] - inverse[e, i, j] + level * ones[e, j]
                pull[i, j] += factor * misfit * slope
