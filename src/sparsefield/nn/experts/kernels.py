"""Loops of the expert bank: covariances, inverses, and the slope of the evidence."""

import math
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from sparsefield.nn.compiled import compiled

JITTER = 1e-9
PIVOTS = 4  # eliminated at a time
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


@partial(compiled, fastmath=True)
def invert_all(
    rate: Any,
    linear: Any,
    square: Any,
    nugget: Any,
    shape: Any,
    coords: Any,
    noise: Any,
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
        log_determinant[e] = _invert(matrix, panel, rows, scaled)


@njit(nogil=True, fastmath=True)
def _invert(matrix: Any, panel: Any, rows: Any, scaled: Any) -> float:  # noqa: C901
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
