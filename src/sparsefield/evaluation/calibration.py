"""Calibration: what holds, pooled over fields, for draws from the true posterior.

The first axis of every score is that of the fields: batches are joined and fields resampled along
it. Three kinds exist: numbers (B,), of which a report gives the mean over fields; pairs (B, 2),
of which it gives a function of the ratio of their sums (`POOLED`); and `TABLES`. The mean over
fields of such a ratio would be ruled by the few on which the mean happens to be right. Unobserved
points alone count here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefield import metrics
from sparsefield.data.observation import Observation

LEVELS = {"coverage50": 0.5, "coverage80": 0.8, "coverage90": 0.9, "coverage95": 0.95}
# What becomes of the ratio of two sums over fields.
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


def calibrate_draws(
    draws: Tensor, mean: Tensor, truth: Tensor, missing: Tensor, distance: Tensor
) -> dict[str, Tensor]:
    """Score draws and the posterior mean of B fields.

    Args:
        draws: Draws (S, B, L, C), at least two.
        mean: Posterior mean (B, L, C).
        truth: True fields (B, L, C).
        missing: Which points are not observed (B, L).
        distance: Distance of the points to the nearest observation in cells (B, L).

    Returns:
        Numbers: coverage50, coverage80, coverage90, coverage95; mse_mean of the posterior mean,
        mse_draw of single draws; delta_cal_per_field, spread_skill_per_field. Pairs:
        delta_cal, the variance of the draws over the error of the posterior mean; spread_skill,
        `(S + 1) / S` times that variance over the error of the draws' mean; gap_db, the error of
        draws over that of the posterior mean. Tables: errors of averages of 1, 2, 4, ..., S draws
        and of the posterior mean; ranks; sums by distance.
    """
    count = len(draws)
    spread = metrics.variance(draws, missing)
    error = metrics.mse(mean, truth, missing)
    averages = [
        metrics.mse_of_averages(draws, truth, size, missing) for size in average_sizes(count)
    ]
    squares = (mean - truth).double().square(), draws.double().var(dim=0)
    covered = metrics.covers(draws, truth, LEVELS["coverage90"])
    return {
        **{name: metrics.coverage(draws, truth, p, missing) for name, p in LEVELS.items()},
        "mse_mean": error,
        "mse_draw": averages[0],
        "delta_cal": torch.stack([spread, error], dim=1),
        "spread_skill": torch.stack([(count + 1) / count * spread, averages[-1]], dim=1),
        "gap_db": torch.stack([averages[0], error], dim=1),
        "delta_cal_per_field": spread / error,
        "spread_skill_per_field": metrics.spread_skill(draws, truth, missing),
        "averages": torch.stack([*averages, error], dim=1),
        "ranks": metrics.rank_histogram(draws, truth, missing),
        "by_distance": _sum_by_distance(distance, missing, *squares, covered),
    }


def calibrate_gaussian(
    mean: Tensor, std: Tensor, truth: Tensor, missing: Tensor, distance: Tensor
) -> dict[str, Tensor]:
    """Score Gaussian forecasts of B fields: the scores of `calibrate_draws` that need no draws.

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
    error, spread = (metrics.item_mean(values, missing) for values in squares)
    return {
        **{name: metrics.item_mean(inside, missing) for name, inside in covered.items()},
        "mse_mean": error,
        "delta_cal": torch.stack([spread, error], dim=1),
        "delta_cal_per_field": spread / error,
        "by_distance": _sum_by_distance(distance, missing, *squares, covered["coverage90"]),
    }


def average_sizes(draws: int) -> list[int]:
    """Return how many draws are averaged: 1, 2, 4, ... and all S."""
    return [2**power for power in range((draws - 1).bit_length())] + [draws]


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
    distance: Tensor, missing: Tensor, error: Tensor, spread: Tensor, covered: Tensor
) -> Tensor:
    """Return sums (B, bins, 5) over unobserved points of 1, distance, and means over channels."""
    over_channels = (values.double().mean(dim=-1) for values in (error, spread, covered))
    columns = torch.stack([torch.ones_like(distance), distance, *over_channels], dim=-1)
    inner = torch.tensor(EDGES[1:-1], dtype=distance.dtype)
    member = F.one_hot(torch.bucketize(distance, inner), len(EDGES) - 1) * missing[..., None]
    return member.to(columns).transpose(1, 2) @ columns


def pool(name: str, pairs: np.ndarray) -> float:
    """Return the pooled score of pairs (N, 2), NaN if the divisor is 0 on all fields."""
    return POOLED[name](_ratio(pairs))


def reached_levels(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return as `NAME_level` what each coverage is for calibrated draws.

    Few draws reach less than the name says, see `metrics.reachable_level`.
    """
    if "ranks" not in scores:
        return {}
    draws = _draw_count(scores)
    return {f"{name}_level": metrics.reachable_level(p, draws) for name, p in LEVELS.items()}


def calibration_tables(scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the tables of a report, pooled over fields; none if every point is observed.

    Returns:
        averages: Mean squared error of averages of draws, its ratio to that of the posterior mean
            with a 95 % interval, and what that ratio should be, `1 + 1 / draws`.
        ranks: Counts (S + 1,) of the rank of the truth among the draws.
        by_distance: Per bin of the distance to the nearest observation, in cells: points, their
            mean distance, RMSE of the mean, root of the mean variance, 90 % coverage.
    """
    if "by_distance" not in scores or not scores["by_distance"][..., 0].any():
        return {}
    tables: dict[str, Any] = {}
    if "ranks" in scores:
        sizes = average_sizes(_draw_count(scores))
        tables["averages"] = _average_rows(scores["averages"], sizes)
        tables["ranks"] = scores["ranks"].sum(axis=0).tolist()
    return tables | {"by_distance": _distance_rows(scores["by_distance"].sum(axis=0))}


def _draw_count(scores: Mapping[str, np.ndarray]) -> int:
    return scores["ranks"].shape[1] - 1


def _ratio(pairs: np.ndarray) -> float:
    above, below = pairs.sum(axis=0)
    return float(above / below) if below > 0 else math.nan


def _average_rows(errors: np.ndarray, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row per size, from errors (N, sizes + 1) of averages and of the posterior mean."""
    rows = []
    for column, size in enumerate(sizes):
        pairs = errors[:, [column, -1]]
        rows.append(
            {
                "draws": size,
                "mse": float(errors[:, column].mean()),
                "ratio": _ratio(pairs),
                "ratio_ci": list(metrics.bootstrap_interval(pairs, statistic=_ratio)),
                "expected": 1 + 1 / size,
            }
        )
    return rows if errors[:, -1].any() else []


def _distance_rows(sums: np.ndarray) -> list[dict[str, Any]]:
    """Return a row per bin that holds points, from sums (bins, 5)."""
    rows = []
    for low, high, (count, *totals) in zip(EDGES[:-1], EDGES[1:], sums, strict=True):
        if count == 0:
            continue
        distance, error, spread, covered = (float(total / count) for total in totals)
        rows.append(
            {
                "from": low,
                "to": high if math.isfinite(high) else None,
                "points": int(count),
                "distance": distance,
                "rmse": math.sqrt(error),
                "spread": math.sqrt(spread),
                "coverage90": covered,
            }
        )
    return rows
