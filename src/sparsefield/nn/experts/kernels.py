"""Loops of the expert bank: covariances, their factors, and the slope of the evidence."""

import math
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from sparsefield.nn.compiled import compiled

JITTER = 1e-9
PIVOTS = 8  # rows of a Cholesky factor finished at a time
FARTHEST = 60.0  # correlations beyond exp(-60) are nought


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


@njit(inline="always")
def _distance(a: Any, b: Any) -> float:
    """Return the Euclidean distance of two positions (P,)."""
    total = 0.0
    for k in range(a.size):
        total += (a[k] - b[k]) ** 2
    return math.sqrt(total)


@njit(inline="always")
def _product(a: Any, b: Any) -> float:
    """Return the inner product of two positions (P,)."""
    total = 0.0
    for k in range(a.size):
        total += a[k] * b[k]
    return total


@partial(compiled, fastmath=True)
def factorise_all(
    rate: Any,
    linear: Any,
    square: Any,
    nugget: Any,
    shape: Any,
    coords: Any,
    noise: Any,
    trend: float,
    factor: Any,
    log_determinant: Any,
) -> None:
    """Fill in upper Cholesky factors (E, N, N + K) of covariances and log determinants.

    The last K columns hold right-hand sides before, and solutions of the lower factor after.
    """
    count = len(coords)
    distance, gram = np.empty((count, count)), np.empty((count, count))
    for i in range(count):
        for j in range(i, count):
            distance[i, j] = _distance(coords[i], coords[j])
            gram[i, j] = trend * _product(coords[i], coords[j])
    correlation = np.empty((count, count))
    last = -1
    for e in range(rate.size):
        if shape[e] != last:
            last = shape[e]
            for i in range(count):
                for j in range(i, count):
                    a = rate[e] * distance[i, j]
                    correlation[i, j] = (1 + a * (linear[e] + square[e] * a)) * _decay(a)
        matrix = factor[e]
        for i in range(count):
            for j in range(i, count):
                matrix[i, j] = (1 - nugget[e]) * correlation[i, j] + gram[i, j]
            matrix[i, i] += nugget[e] * noise[i] + JITTER
        log_determinant[e] = _factorise(matrix)


@njit(nogil=True, fastmath=True)
def _factorise(matrix: Any) -> float:
    """Replace the upper half of a positive matrix by its Cholesky factor; return log det.

    Eight rows are finished one after the other, and then taken from all others at once, so that
    an entry is read and written once for all eight. Columns beyond the square are solved for.

    Args:
        matrix: Matrix and right-hand sides (N, N + K), row by row.
    """
    count, width = matrix.shape
    total = 0.0
    for first in range(0, count, PIVOTS):
        last = min(first + PIVOTS, count)
        for k in range(first, last):
            row = matrix[k]
            for done in range(first, k):
                above = matrix[done]
                factor = above[k]
                for j in range(k, width):
                    row[j] -= factor * above[j]
            pivot = max(row[k], JITTER / 10)
            total += math.log(pivot)
            scale = 1 / math.sqrt(pivot)
            row[k] = pivot
            for j in range(k, width):
                row[j] *= scale
        if last - first == PIVOTS:
            _take_rows(matrix, first)
    return total


@njit(inline="always")
def _take_rows(matrix: Any, first: int) -> None:
    """Subtract from all later rows what eight finished ones explain of them."""
    r0, r1, r2, r3 = matrix[first], matrix[first + 1], matrix[first + 2], matrix[first + 3]
    r4, r5, r6, r7 = matrix[first + 4], matrix[first + 5], matrix[first + 6], matrix[first + 7]
    count, width = matrix.shape
    for i in range(first + PIVOTS, count):
        f0, f1, f2, f3, f4, f5, f6, f7 = r0[i], r1[i], r2[i], r3[i], r4[i], r5[i], r6[i], r7[i]
        row = matrix[i]
        for j in range(i, width):
            early = f0 * r0[j] + f1 * r1[j] + f2 * r2[j] + f3 * r3[j]
            row[j] -= early + f4 * r4[j] + f5 * r5[j] + f6 * r6[j] + f7 * r7[j]


@partial(compiled, fastmath=True)
def cross_all(
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
    count = len(coords)
    distance, gram = np.empty(count), np.empty(count)
    for q in range(len(query)):
        for i in range(count):
            distance[i] = _distance(coords[i], query[q])
            gram[i] = trend * _product(coords[i], query[q])
        for e in range(rate.size):
            scale, a1, a2, rest = rate[e], linear[e], square[e], 1 - nugget[e]
            for i in range(count):
                a = scale * distance[i]
                cross[e, q, i] = rest * (1 + a * (a1 + a2 * a)) * _decay(a) + gram[i]


@partial(compiled, fastmath=True)
def forecast_all(
    rate: Any,
    linear: Any,
    square: Any,
    nugget: Any,
    trend: Any,
    places: Any,
    values: Any,
    noise: Any,
    matrix: Any,
    evidence: Any,
    variance: Any,
    said: Any,
) -> None:
    """Fill in evidence and variances (E,), and mean and relative variance of the field (2, E, Q).

    The covariances with the queries are right-hand sides of the factorisation.

    Args:
        rate: Factor of a distance (E,).
        linear: Coefficient of the Matérn polynomial (E,).
        square: Coefficient of its square (E,).
        nugget: Share of the noise in the variance (E,).
        trend: Variance of a linear trend (E,).
        places: Observed positions and queries in the metric of each expert (E, P, N + Q).
        values: Observed values (N,).
        noise: Relative noise variances (N,).
        matrix: Room (N, N + Q + 2).
        evidence: Log restricted likelihoods (E,), up to a constant.
        variance: Estimates of the variance (E,).
        said: Forecasts (2, E, Q).
    """
    count, width = len(values), places.shape[2]
    for e in range(rate.size):
        rest = 1 - nugget[e]
        for i in range(count):
            row = matrix[i]
            _correlate(places[e], i, rate[e], linear[e], square[e], row)
            for j in range(i, width):
                row[j] *= rest
            if trend[e] > 0:
                _add_trend(places[e], i, trend[e], row)
            row[i] += nugget[e] * noise[i] + JITTER
            row[width], row[width + 1] = 1, values[i]
        log_determinant = _factorise(matrix)
        ones, target = matrix[:, width], matrix[:, width + 1]
        precision, cross = _product(ones, ones), _product(ones, target)
        level = cross / precision
        variance[e] = max((_product(target, target) - cross * level) / (count - 1), 1e-12)
        fit = (count - 1) * math.log(variance[e]) + log_determinant + math.log(precision)
        evidence[e] = -fit / 2
        mean, var = said[0, e], said[1, e]
        mean[:], var[:] = level, rest
        for k in range(places.shape[1]):
            var += trend[e] * places[e, k, count:] ** 2
        _explain(matrix[:, count:width], ones, target - level * ones, mean, var)


@njit(inline="always")
def _explain(gain: Any, ones: Any, left: Any, mean: Any, var: Any) -> None:
    """Add to means (Q,) and prior variances what observations (N,) say of the queries."""
    missing = np.ones(len(mean))
    for i in range(len(ones)):
        for q in range(len(mean)):
            mean[q] += gain[i, q] * left[i]
            var[q] -= gain[i, q] * gain[i, q]
            missing[q] -= gain[i, q] * ones[i]
    precision = _product(ones, ones)
    for q in range(len(mean)):
        var[q] = max(var[q] + missing[q] ** 2 / precision, JITTER)


@njit(inline="always")
def _add_trend(places: Any, i: int, slope: float, row: Any) -> None:
    """Add the covariance of a linear trend between a place (P, M) and all that follow."""
    for k in range(len(places)):
        line = places[k]
        for j in range(i, places.shape[1]):
            row[j] += slope * line[i] * line[j]


@njit(inline="always")
def _correlate(places: Any, i: int, rate: float, linear: float, square: float, row: Any) -> None:
    """Fill in correlations between a place (P, M) and all that follow, axis by axis."""
    width = places.shape[1]
    for j in range(i, width):
        row[j] = 0.0
    for k in range(len(places)):
        line = places[k]
        for j in range(i, width):
            row[j] += (line[j] - line[i]) ** 2
    for j in range(i, width):
        a = rate * math.sqrt(row[j])
        row[j] = (1 + a * (linear + square * a)) * _decay(a)


@partial(compiled, fastmath=True)
def pull_all(
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
    """Add up the derivatives (N, N) of the evidence by half the squared distance of each pair.

    Points at one place have none: no metric parts them.
    """
    count = len(coords)
    distance, closeness = np.empty(count), np.empty(count)
    for i in range(count):
        for j in range(count):
            distance[j] = _distance(coords[i], coords[j])
            closeness[j] = 1 / distance[j] if distance[j] > 1e-9 else 0.0
        for e in range(rate.size):
            factor = share[e] * rate[e] * (1 - nugget[e])
            fit, level = weights[e, i] / variance[e], ones[e, i] / ones[e].sum()
            a1, a2 = linear[e], square[e]
            for j in range(count):
                a = rate[e] * distance[j]
                slope = (a1 - 1 + (2 * a2 - a1) * a - a2 * a * a) * _decay(a) * closeness[j]
                misfit = fit * weights[e, j] - inverse[e, i, j] + level * ones[e, j]
                pull[i, j] += factor * misfit * slope
