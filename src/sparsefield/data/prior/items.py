"""One item of the prior: noisy measurements at some points, and the truth at others."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from sparsefield.data.prior import gaussian, structured
from sparsefield.data.prior.kinds import Kind, log_uniform, pick, standardise
from sparsefield.data.prior.layouts import draw_points

AXES = ((1, 0.17), (2, 0.66), (3, 0.17))


def _gaussian(rng: Generator, points: np.ndarray) -> np.ndarray:
    return pick(rng, gaussian.KINDS)(rng, points)


def _structured(rng: Generator, points: np.ndarray) -> np.ndarray:
    return pick(rng, structured.KINDS)(rng, points)


SYNTHETIC: tuple[tuple[float, Kind], ...] = ((6.0, _gaussian), (2.5, _structured))


@dataclass(frozen=True)
class Item:
    """Scattered measurements of one field.

    Attributes:
        coords: Observed positions (N, P).
        values: Measurements (N,).
        noise: Stated standard deviation of the error of each (N,); None if unknown.
        query: Positions to predict (Q, P).
        target: New measurement there (Q,); without error where the error is stated.
        clean: The field there (Q,), or NaN where it cannot be told from noise.
    """

    coords: np.ndarray
    values: np.ndarray
    noise: np.ndarray | None
    query: np.ndarray
    target: np.ndarray
    clean: np.ndarray


class Prior:
    """Draws items.

    Args:
        real: Kinds of real fields with their weights; they may have holes.
        synthetic: Whether there are synthetic ones beside them.
    """

    def __init__(self, real: tuple[tuple[float, Kind], ...] = (), synthetic: bool = True) -> None:
        self.real = [kind for _, kind in real]
        self.kinds = (*real, *(SYNTHETIC if synthetic else ()))

    def draw_axes(self, rng: Generator) -> int:
        """Return a number of dimensions P."""
        return int(rng.choice([a for a, _ in AXES], p=[p for _, p in AXES]))

    def draw(
        self, rng: Generator, count: int, queries: int, axes: int, local: bool = False
    ) -> Item:
        """Return an item of N observations and Q queries in P dimensions.

        Args:
            rng: Source of randomness.
            count: Observations N.
            queries: Queries Q.
            axes: Dimensions P.
            local: Keep the queries to one place, five times as large as that many points need.
        """
        while True:
            item = self._try(rng, count, queries, axes, local)
            if item is not None:
                return item

    def _try(
        self, rng: Generator, count: int, queries: int, axes: int, local: bool
    ) -> Item | None:
        total = count + queries
        points = draw_points(rng, 2 * total, axes)
        if not local and rng.random() < 0.3:  # some queries anywhere in the observations' box
            low, high = points[:count].min(0), points[:count].max(0)
            points[count : count + queries : 2] = rng.uniform(
                low, high, (len(range(0, queries, 2)), axes)
            )
        kind = pick(rng, self.kinds)
        # Spare points are for fields with holes only; exact Gaussian fields cost their cube.
        points = points if kind in self.real else points[:total]
        field = kind(rng, points)
        known = np.isfinite(field)
        if known.sum() < total:
            return None
        points, field = points[known][:total], field[known][:total]
        if local:
            points, field = _queries_last(rng, points, field, queries)
        if np.std(field) < 1e-9 * max(1.0, float(np.abs(field).max())):
            return None
        field = _with_trend(rng, points, standardise(field))
        field = _with_marginal(rng, field)
        return _measure(rng, points, field, count)


def _queries_last(
    rng: Generator, points: np.ndarray, field: np.ndarray, queries: int
) -> tuple[np.ndarray, np.ndarray]:
    """Move some points around a random one to the end."""
    offset = points - points[rng.integers(len(points))]
    near = np.argsort((offset**2).sum(1), kind="stable")[: 5 * queries]
    chosen = rng.choice(near, queries, replace=False)
    order = np.r_[np.setdiff1d(np.arange(len(points)), chosen), chosen]
    return points[order], field[order]


def _with_trend(rng: Generator, points: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Add a linear or quadratic trend, a third of the time."""
    if rng.random() > 0.35:
        return field
    slope = points @ rng.standard_normal(points.shape[1])
    trend = slope if rng.random() < 0.7 else slope + rng.standard_normal() * slope**2
    return standardise(field + log_uniform(rng, 0.2, 5.0) * standardise(trend))


def _with_marginal(rng: Generator, field: np.ndarray) -> np.ndarray:
    """Bend the distribution of the values, 45 % of the time."""
    if rng.random() > 0.45:
        return field
    sign = rng.choice([-1.0, 1.0])
    size = rng.uniform(0.3, 1.3)
    bends = (
        lambda f: np.exp(size * f),
        lambda f: np.sinh(size * f),
        lambda f: np.arctan(2 * size * f),
        lambda f: np.maximum(f - rng.normal(), 0) ** rng.uniform(0.7, 2),
        lambda f: (f + rng.uniform(0.5, 3)) ** 2,
        lambda f: np.clip(f, -size, size),
    )
    bent = sign * bends[rng.choice(6, p=[0.35, 0.15, 0.15, 0.15, 0.1, 0.1])](field)
    return standardise(bent) if np.std(bent) > 1e-6 else field


def _measure(rng: Generator, points: np.ndarray, field: np.ndarray, count: int) -> Item | None:
    """Add errors of measurement, known or not."""
    stated = rng.random() < 0.2
    size = _noise_size(rng)
    error, sizes = _errors(rng, field, size, stated)
    micro = np.zeros_like(field)
    if stated and rng.random() < 0.3:  # variation that no statement covers
        micro = log_uniform(rng, 0.01, 0.5) * rng.standard_normal(len(field))
    values = field + micro + error
    if not stated and rng.random() < 0.05:
        step = log_uniform(rng, 0.05, 1.0)
        values = np.round(values / step) * step
    target = (field + micro) if stated else values
    if np.std(values[:count]) < 1e-9:
        return None
    scale, level = log_uniform(rng, 1e-3, 1e3), rng.standard_normal()
    sign = rng.choice([-1.0, 1.0])
    values, target, clean = (sign * scale * (x + level) for x in (values, target, field))
    return Item(
        points[:count],
        values[:count],
        scale * sizes[:count] if stated else None,
        points[count:],
        target[count:],
        clean[count:],
    )


def _noise_size(rng: Generator) -> float:
    """Return the standard deviation of the noise, in those of the field."""
    return 0.0 if rng.random() < 0.25 else log_uniform(rng, 0.02, 3.0)


def _errors(
    rng: Generator, field: np.ndarray, size: float, stated: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return errors and their standard deviations, each (L,)."""
    sizes = np.full(len(field), max(size, 1e-4) if stated else size)
    kind = rng.random()
    if stated and kind < 0.7:
        sizes = sizes * np.exp(rng.uniform(0, 1.5) * rng.standard_normal(len(field)))
    if not stated and kind < 0.12:  # proportional to the value
        sizes = sizes * np.abs(field - field.min()) / 2
    unit = rng.standard_normal(len(field))
    if not stated and 0.12 < kind < 0.25:
        unit = rng.standard_t(3, len(field)) / np.sqrt(3)
    error = sizes * unit
    if not stated and 0.25 < kind < 0.29:  # a few gross errors
        gross = rng.random(len(field)) < 0.03
        error = error + gross * rng.uniform(1, 5) * rng.standard_normal(len(field))
    return error, sizes
