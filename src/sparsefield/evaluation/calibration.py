"""Calibration: what holds, pooled over items, for samples from the true posterior.

The first axis of every score is that of the items: batches are joined and items resampled along
it. Three kinds exist: numbers (B,), of which a report gives the mean over items; pairs (B, 2),
of which it gives a function of the ratio of their sums (`POOLED`); and `TABLES`. The mean over
items of such a ratio would be ruled by the few on which the mean happens to be right. Unobserved
points alone count here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefield import metrics
from sparsefield.data.observation import Observation
from sparsefield.metrics.statistics import Estimate, estimate

LEVELS = {"coverage50": 0.5, "coverage80": 0.8, "coverage90": 0.9, "coverage95": 0.95}
# What becomes of the ratio of two sums over items.
POOLED: dict[str, Callable[[float], float]] = {
    "delta_cal": float,
    "spread_skill": math.sqrt,
    "gap_db": lambda ratio: 10 * math.log10(ratio) if ratio else -math.inf,
}
TABLES = ("averages", "ranks", "by_distance")
# Scores that a Gaussian forecast has, as kriging's.
FORECAST = ("crps", *LEVELS, "mse_mean", "delta_cal", "delta_cal_per_field", "by_distance")

# Bins of the distance, in cells. Squares of these are no whole numbers, as those of distances
# between cells are: rounding moves no point to another bin.
EDGES = (0.0, 1.25, 1.75, 2.5, 3.5, 5.5, 8.5, 12.5, 18.5, math.inf)


def calibrate_samples(
    samples: Tensor, mean: Tensor, truth: Tensor, missing: Tensor, distance: Tensor
) -> dict[str, Tensor]:
    """Score posterior samples and the posterior mean of B items.

    Args:
        samples: Posterior samples (S, B, L, C), at least two.
        mean: Posterior mean (B, L, C).
        truth: True fields (B, L, C).
        missing: Which points are not observed (B, L).
        distance: Distance of the points to the nearest observation in cells (B, L).

    Returns:
        Numbers: coverage50, coverage80, coverage90, coverage95; mse_mean of the posterior mean,
        mse_draw of single samples; delta_cal_per_field, spread_skill_per_field. Pairs: delta_cal,
        the variance of the samples over the error of the posterior mean; spread_skill,
        `(S + 1) / S` times that variance over the error of the samples' mean; gap_db, the error of
        samples over that of the posterior mean. Tables: errors of averages of 1, 2, 4, ..., S
        samples and of the posterior mean; ranks; sums by distance.
    """
    count = len(samples)
    variance = metrics.variance(samples, missing)
    error = metrics.mse(mean, truth, missing)
    averages = [
        metrics.mse_of_averages(samples, truth, size, missing) for size in average_sizes(count)
    ]
    squares = (mean - truth).double().square(), samples.double().var(dim=0)
    covered = metrics.covers(samples, truth, LEVELS["coverage90"])
    return {
        **{name: metrics.coverage(samples, truth, p, missing) for name, p in LEVELS.items()},
        "mse_mean": error,
        "mse_draw": averages[0],
        "delta_cal": torch.stack([variance, error], dim=1),
        "spread_skill": torch.stack([(count + 1) / count * variance, averages[-1]], dim=1),
        "gap_db": torch.stack([averages[0], error], dim=1),
        "delta_cal_per_field": variance / error,
        "spread_skill_per_field": metrics.spread_skill(samples, truth, missing),
        "averages": torch.stack([*averages, error], dim=1),
        "ranks": metrics.rank_histogram(samples, truth, missing),
        "by_distance": _sum_by_distance(distance, missing, *squares, covered),
    }


def calibrate_gaussian(
    mean: Tensor, std: Tensor, truth: Tensor, missing: Tensor, distance: Tensor
) -> dict[str, Tensor]:
    """Score Gaussian forecasts of B items: the scores of `calibrate_samples` that need no samples.

    Args:
        mean: Means (B, L, C).
        std: Standard deviations (B, L, C).
        truth: True fields (B, L, C).
        missing: Which points are not observed (B, L).
        distance: Distance of the points to the nearest observation in cells (B, L).
    """
    covered = {
        name: metrics.covers_gaussian(mean, std, truth, level) for name, level in LEVELS.items()
    }
    squares = (mean - truth).double().square(), std.double().square()
    error, variance = (metrics.item_mean(values, missing) for values in squares)
    return {
        **{name: metrics.item_mean(inside, missing) for name, inside in covered.items()},
        "mse_mean": error,
        "delta_cal": torch.stack([variance, error], dim=1),
        "delta_cal_per_field": variance / error,
        "by_distance": _sum_by_distance(distance, missing, *squares, covered["coverage90"]),
    }


def average_sizes(samples: int) -> list[int]:
    """Return how many samples are averaged: 1, 2, 4, ... and all S."""
    return [2**power for power in range((samples - 1).bit_length())] + [samples]


def distance_in_cells(coords: Tensor, obs: Observation, shape: tuple[int, ...]) -> Tensor:
    """Return the distance (B, L) of points (B, L, P) to the nearest observation.

    Args:
        coords: Points in [-1, 1].
        obs: Batched observations.
        shape: Cells of the grid along each axis, the unit of length there.
    """
    cells = torch.tensor(shape, dtype=torch.float64) / 2
    distances = [
        cKDTree((seen[valid] * cells).numpy()).query((points * cells).numpy())[0]
        for points, seen, valid in zip(coords, obs.coords, obs.valid, strict=True)
    ]
    return torch.from_numpy(np.stack(distances))


def _sum_by_distance(
    distance: Tensor, missing: Tensor, error: Tensor, variance: Tensor, covered: Tensor
) -> Tensor:
    """Return sums (B, bins, 5) over unobserved points of 1, distance, and means over channels."""
    over_channels = (values.double().mean(dim=-1) for values in (error, variance, covered))
    columns = torch.stack([torch.ones_like(distance), distance, *over_channels], dim=-1)
    inner = torch.tensor(EDGES[1:-1], dtype=distance.dtype)
    member = F.one_hot(torch.bucketize(distance, inner), len(EDGES) - 1) * missing[..., None]
    return member.to(columns).transpose(1, 2) @ columns


def pool(name: str, pairs: np.ndarray) -> float:
    """Return the pooled score of pairs (N, 2), NaN if the divisor is 0 on all items."""
    return POOLED[name](_ratio(pairs))


def reached_levels(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return as `NAME_level` what each coverage is for calibrated samples.

    Few samples reach less than the name says, see `metrics.reachable_level`.
    """
    if "ranks" not in scores:
        return {}
    count = _sample_count(scores)
    return {f"{name}_level": metrics.reachable_level(p, count) for name, p in LEVELS.items()}


@dataclass(frozen=True)
class AverageRow:
    """Error of averages of some samples.

    Attributes:
        samples: How many are averaged.
        mse: Mean squared error of the averages.
        ratio: That over the error of the posterior mean.
        expected: What the ratio is for calibrated samples, `1 + 1 / samples`.
    """

    samples: int = field(metadata={"key": "draws"})
    mse: float
    ratio: Estimate
    expected: float


@dataclass(frozen=True)
class DistanceRow:
    """Unobserved points at some distance from the nearest observation, in cells.

    Attributes:
        low: Least distance of the bin.
        high: Largest distance of the bin, infinite for the last one.
        points: Number of points.
        distance: Their mean distance.
        rmse: Root mean squared error of the mean.
        std: Root of the mean variance.
        coverage90: Share of truths within the 90 % interval.
    """

    low: float = field(metadata={"key": "from"})
    high: float = field(metadata={"key": "to"})
    points: int
    distance: float
    rmse: float
    std: float = field(metadata={"key": "spread"})
    coverage90: float


@dataclass(frozen=True)
class Calibration:
    """Tables of calibration, pooled over items.

    Attributes:
        by_distance: Error and standard deviation by distance to the nearest observation.
        averages: Errors of averages of samples; None for a Gaussian forecast.
        ranks: Counts (S + 1,) of the rank of the truth among samples; None for a forecast.
    """

    by_distance: list[DistanceRow]
    averages: list[AverageRow] | None = None
    ranks: np.ndarray | None = None


def calibration_tables(scores: Mapping[str, np.ndarray]) -> Calibration | None:
    """Return the tables of a report, pooled over items; None if every point is observed."""
    if "by_distance" not in scores or not scores["by_distance"][..., 0].any():
        return None
    rows = _distance_rows(scores["by_distance"].sum(axis=0))
    if "ranks" not in scores:
        return Calibration(rows)
    averages = _average_rows(scores["averages"], average_sizes(_sample_count(scores)))
    return Calibration(rows, averages, scores["ranks"].sum(axis=0))


def _sample_count(scores: Mapping[str, np.ndarray]) -> int:
    return scores["ranks"].shape[1] - 1


def _ratio(pairs: np.ndarray) -> float:
    above, below = pairs.sum(axis=0)
    return float(above / below) if below > 0 else math.nan


def _average_rows(errors: np.ndarray, sizes: Sequence[int]) -> list[AverageRow]:
    """Return a row per size, from errors (N, sizes + 1) of averages and of the posterior mean."""
    if not errors[:, -1].any():
        return []
    return [
        AverageRow(
            size,
            mse=float(errors[:, column].mean()),
            ratio=estimate(errors[:, [column, -1]], _ratio),
            expected=1 + 1 / size,
        )
        for column, size in enumerate(sizes)
    ]


def _distance_rows(sums: np.ndarray) -> list[DistanceRow]:
    """Return a row per bin that holds points, from sums (bins, 5)."""
    rows = []
    for low, high, (count, *totals) in zip(EDGES[:-1], EDGES[1:], sums, strict=True):
        if count > 0:
            distance, error, variance, covered = (float(total / count) for total in totals)
            std = math.sqrt(variance)
            row = DistanceRow(low, high, int(count), distance, math.sqrt(error), std, covered)
            rows.append(row)
    return rows
