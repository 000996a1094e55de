"""Calibration of draws whose distribution is known, pooled over fields."""

import math

import numpy as np
import pytest
import torch

from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation
from sparsefield.evaluation.calibration import (
    EDGES,
    FORECAST,
    LEVELS,
    average_sizes,
    calibrate_gaussian,
    calibrate_samples,
    calibration_tables,
    distance_in_cells,
    pool,
    reached_levels,
)

N, SHAPE, C, S = 60, (12, 13), 3, 7
POINTS = math.prod(SHAPE)


@pytest.fixture(scope="module")
def world():
    """Fields whose error at a point is as large as its distance to the nearest observation."""
    rng = np.random.default_rng(0)
    coords = cell_centres(SHAPE).expand(N, -1, -1)
    index = torch.from_numpy(np.stack([rng.permutation(POINTS)[:15] for _ in range(N)]))
    where = index[..., None]
    obs = Observation(coords.gather(1, where.expand(-1, -1, 2)), torch.zeros(N, 15, C))
    missing = torch.ones(N, POINTS, dtype=torch.bool).scatter(1, index, False)
    distance = distance_in_cells(coords, obs, SHAPE)
    mean = torch.from_numpy(rng.normal(size=(N, POINTS, C)))
    deviation = distance[..., None].expand(-1, -1, C)
    truth, *draws = (
        mean + deviation * torch.from_numpy(rng.normal(size=mean.shape)) for _ in range(S + 1)
    )
    return torch.stack(draws), mean, truth, missing, distance, deviation


def as_arrays(scores):
    return {name: values.numpy() for name, values in scores.items()}


def calibrate(world, factor=1.0):
    draws, mean, truth, missing, distance, _ = world
    return as_arrays(
        calibrate_samples(mean + factor * (draws - mean), mean, truth, missing, distance)
    )


def test_draws_from_the_posterior_are_calibrated(world):
    scores = calibrate(world)
    assert all(len(values) == N for values in scores.values())
    assert pool("delta_cal", scores["delta_cal"]) == pytest.approx(1, abs=0.03)
    assert pool("spread_skill", scores["spread_skill"]) == pytest.approx(1, abs=0.02)
    assert pool("gap_db", scores["gap_db"]) == pytest.approx(10 * math.log10(2), abs=0.1)
    levels = reached_levels(scores)
    for name in LEVELS:
        assert scores[name].mean() == pytest.approx(levels[f"{name}_level"], abs=0.01)
    tables = calibration_tables(scores)
    for row in tables.averages:
        assert row.ratio.value == pytest.approx(row.expected, rel=0.03)
        assert row.ratio.low < row.ratio.value < row.ratio.high
    assert [row.samples for row in tables.averages] == [1, 2, 4, 7]
    values = int(world[3].sum()) * C
    assert sum(tables.ranks) == pytest.approx(values)
    np.testing.assert_allclose(tables.ranks, values / (S + 1), rtol=0.06)
    for row in tables.by_distance:
        if row.points > 500:
            assert row.rmse == pytest.approx(row.std, rel=0.06)
            assert row.coverage90 == pytest.approx((S - 1) / (S + 1), abs=0.03)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_draws_too_narrow_or_too_wide_are_told_by_every_score(world, factor):
    scores = calibrate(world, factor)
    assert pool("delta_cal", scores["delta_cal"]) == pytest.approx(factor**2, rel=0.03)
    sign = 1 if factor > 1 else -1
    assert sign * (pool("spread_skill", scores["spread_skill"]) - 1) > 0.2
    assert sign * (scores["coverage50"].mean() - 0.5) > 0.1
    tables = calibration_tables(scores)
    assert sign * (tables.averages[0].ratio.value - 2) > 0.5
    outer = tables.ranks[0] + tables.ranks[-1]
    assert sign * (2 / (S + 1) - outer / sum(tables.ranks)) > 0.05
    near = tables.by_distance[0]
    assert near.std == pytest.approx(factor * near.rmse, rel=0.05)


def test_pooled_ratios_are_not_ruled_by_fields_on_which_the_mean_is_lucky(world):
    draws, mean, truth, *rest, _ = world
    truth = truth.clone()
    truth[0] = mean[0] + 1e-4
    scores = as_arrays(calibrate_samples(draws, mean, truth, *rest))
    assert pool("delta_cal", scores["delta_cal"]) == pytest.approx(1, abs=0.06)
    assert scores["delta_cal_per_field"].mean() > 1e4


def test_distances_are_those_of_cells_and_rounding_moves_no_point_between_bins(world):
    *_, missing, distance, _ = world
    cells = np.stack(np.unravel_index(np.arange(POINTS), SHAPE), axis=1)
    seen = cells[~missing[0].numpy()]
    squares = ((cells[:, None] - seen) ** 2).sum(axis=2).min(axis=1)
    np.testing.assert_allclose(distance[0], np.sqrt(squares), atol=1e-5)
    possible = np.sqrt(np.arange(1, 1000))
    assert np.abs(possible[:, None] - EDGES[:-1]).min() > 1e-3


def test_sums_by_distance_hold_every_unobserved_point_once(world):
    scores = calibrate(world)
    rows = calibration_tables(scores).by_distance
    assert sum(row.points for row in rows) == int(world[3].sum())
    total = sum(row.points * row.rmse**2 for row in rows) / int(world[3].sum())
    assert total == pytest.approx(scores["mse_mean"].mean())
    for row in rows:
        assert row.low < row.distance < row.high


def test_a_gaussian_forecast_is_scored_as_its_draws_are(world):
    _, mean, truth, missing, distance, deviation = world
    scores = as_arrays(calibrate_gaussian(mean, deviation, truth, missing, distance))
    assert set(FORECAST) == {"crps"} | scores.keys()
    assert pool("delta_cal", scores["delta_cal"]) == pytest.approx(1, abs=0.03)
    for name, level in LEVELS.items():
        assert scores[name].mean() == pytest.approx(level, abs=0.01)
    drawn = calibrate(world)
    np.testing.assert_array_equal(scores["mse_mean"], drawn["mse_mean"])
    ours, theirs = (calibration_tables(x).by_distance for x in (scores, drawn))
    assert [row.rmse for row in ours] == [row.rmse for row in theirs]
    assert ours[0].std == pytest.approx(theirs[0].std, rel=0.03)
    assert calibration_tables(scores).ranks is None
    assert reached_levels(scores) == {}


def test_fields_observed_everywhere_have_no_calibration(world):
    draws, mean, truth, missing, distance, _ = world
    scores = calibrate_samples(draws, mean, truth, torch.zeros_like(missing), distance)
    assert calibration_tables(as_arrays(scores)) is None


def test_averages_double_up_to_all_draws():
    assert average_sizes(2) == [1, 2]
    assert average_sizes(8) == [1, 2, 4, 8]
    assert average_sizes(11) == [1, 2, 4, 8, 11]
