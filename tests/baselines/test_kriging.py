"""Kriging against dense solves written out by hand, its limits, and fields that it should know."""

import numpy as np
import pytest

from sparsefield.baselines import kriging as module
from sparsefield.baselines.kriging import fitted_part, ordinary_kriging
from sparsefield.baselines.points import Points
from sparsefield.baselines.registry import reconstruct_baseline
from sparsefield.data.gaussian import KERNELS, GaussianField
from sparsefield.data.grids import cell_centres
from sparsefield.data.masks import observed_indices

M, L, C = 29, 17, 3


def points(dims=2, seed=0, noise=None):
    rng = np.random.default_rng(seed)
    coords, query = rng.uniform(-1, 1, (M, dims)), rng.uniform(-1, 1, (L, dims))
    return Points(coords, 7 + rng.normal(size=(M, C)), query, noise)


def bordered(field, given):
    """Return weights (L, M) and variances (L,) of ordinary kriging by the bordered system.

    Cressie, Statistics for Spatial Data (1993), equation 3.2.9: the weights sum to 1 by a
    Lagrange multiplier.
    """

    def covariance(a, b):
        distance = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
        return KERNELS[field.kernel](distance / field.length)

    system = np.ones((M + 1, M + 1))
    system[:M, :M] = covariance(given.coords, given.coords) + field.nugget * np.eye(M)
    if given.noise is not None:
        system[:M, :M] += np.diag(given.noise[:, 0] ** 2) / field.variance
    system[M, M] = 0
    right = np.vstack([covariance(given.coords, given.query), np.ones(L)])
    solved = np.linalg.solve(system, right)
    return solved[:M].T, 1 - (solved * right).sum(axis=0)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_are_those_of_the_bordered_system(kernel, dims):
    given = points(dims)
    variance = np.array([0.5, 1.0, 4.0])
    field = GaussianField(0.4, variance, nugget=0.05, kernel=kernel)
    weights, units = bordered(field, given)
    mean, std = ordinary_kriging(field, given)
    np.testing.assert_allclose(mean, weights @ given.values, atol=1e-8)
    np.testing.assert_allclose(std**2, units[:, None] * variance, atol=1e-8)


def test_each_point_may_have_its_own_error():
    noise = np.random.default_rng(3).uniform(0, 2, (M, 1))
    given = points(noise=noise)._replace(values=points().values[:, :1])
    field = GaussianField(0.4, 2.5, nugget=0.05)
    weights, units = bordered(field, given)
    mean, std = ordinary_kriging(field, given)
    np.testing.assert_allclose(mean, weights @ given.values, atol=1e-8)
    np.testing.assert_allclose(std[:, 0] ** 2, 2.5 * units, atol=1e-8)


def test_neighbourhoods_that_hold_all_points_are_kriging_of_all(monkeypatch):
    noise = np.random.default_rng(3).uniform(0, 2, (M, 1))
    given = points(noise=noise)._replace(values=points().values[:, :1])
    field = GaussianField(0.4, 2.5, nugget=0.05)
    dense = ordinary_kriging(field, given)
    monkeypatch.setattr(module, "DENSE_POINTS", M - 1)
    for found, expected in zip(ordinary_kriging(field, given), dense, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_leaving_one_out_is_the_closed_form():
    """Rasmussen and Williams (2006), equation 5.12, with the constant mean projected out."""
    given, field = points(), GaussianField(0.4, 1.7, nugget=0.1)
    inverse = np.linalg.inv(field.correlation(given.coords, given.coords) + 0.1 * np.eye(M))
    ones = inverse.sum(axis=1)
    precision = inverse - np.outer(ones, ones) / ones.sum()
    diagonal = np.diag(precision)[:, None]
    expected = given.values - precision @ given.values / diagonal
    for i in range(M):
        rest = np.arange(M) != i
        others = Points(given.coords[rest], given.values[rest], given.coords[i : i + 1])
        mean, std = ordinary_kriging(field, others)
        np.testing.assert_allclose(mean[0], expected[i], atol=1e-9)
        np.testing.assert_allclose(std[0] ** 2 + 0.1 * 1.7, 1.7 / diagonal[i], atol=1e-9)


def test_without_nugget_it_interpolates_and_with_a_huge_one_it_averages():
    given = points()
    at_data = given._replace(query=given.coords)
    mean, std = ordinary_kriging(GaussianField(0.4, 2.0), at_data)
    np.testing.assert_allclose(mean, given.values, atol=1e-8)
    np.testing.assert_allclose(std, 0, atol=1e-6)
    mean, std = ordinary_kriging(GaussianField(0.4, 2.0, nugget=1e9), given)
    np.testing.assert_allclose(mean, np.tile(given.values.mean(axis=0), (L, 1)), rtol=1e-7)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_noise_alone_is_averaged(dims):
    rng = np.random.default_rng(0)
    coords, query = rng.uniform(-1, 1, (150, dims)), rng.uniform(-1, 1, (50, dims))
    values = 5 + 2 * rng.normal(size=(150, 2))
    found = reconstruct_baseline("kriging", coords, values, query)
    np.testing.assert_allclose(found.mean, 5, atol=0.8)
    np.testing.assert_allclose(found.std, 2, rtol=0.2)
    assert found.field_std.mean() < 0.5 * found.std.mean()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_smooth_fields_are_followed_closely(dims):
    rng = np.random.default_rng(0)
    coords, query = rng.uniform(-1, 1, (150, dims)), rng.uniform(-0.8, 0.8, (50, dims))
    found = reconstruct_baseline("kriging", coords, np.sin(2 * coords[:, :1]), query)
    truth = np.sin(2 * query[:, :1])
    assert np.abs(found.mean - truth).max() < 0.02
    assert (np.abs(found.mean - truth) < 4 * found.std).mean() > 0.9


def test_forecasts_of_gaussian_fields_are_calibrated():
    grid = cell_centres((16, 16)).double().numpy()
    fields = GaussianField(0.4, variance=9.0).sample(grid, 20, np.random.default_rng(0))
    scaled = []
    for index, field in enumerate(fields):
        observed = observed_indices(256, 0.3, 0, "test", index)
        found = reconstruct_baseline("kriging", grid[observed], field[observed, None], grid)
        hidden = found.std[:, 0] > 0
        scaled.append((field - found.mean[:, 0])[hidden] / found.std[hidden, 0])
    z = np.concatenate(scaled)
    assert np.std(z) == pytest.approx(1, abs=0.08)
    assert (np.abs(z) < 1.645).mean() == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("kernel", ["exponential", "matern52"])
def test_a_fitted_covariance_predicts_nearly_as_well_as_the_true_one(kernel):
    rng = np.random.default_rng(1)
    truth = GaussianField(0.3, 4.0, nugget=0.1, mean=50.0, kernel=kernel)
    coords = rng.uniform(-1, 1, (500, 2))
    field = truth.sample(coords, 1, rng).T
    values = field + np.sqrt(0.4) * rng.normal(size=field.shape)
    given = Points(coords[:300], values[:300], coords[300:])
    ideal = np.sqrt(((ordinary_kriging(truth, given)[0] - field[300:]) ** 2).mean())
    found = reconstruct_baseline("kriging", *given[:3])
    assert np.sqrt(((found.mean - field[300:]) ** 2).mean()) < 1.05 * ideal


def test_stated_errors_weigh_the_measurements():
    """Half of the measurements are worthless; said so, the others are kriged as if alone."""
    rng = np.random.default_rng(0)
    coords, query = rng.uniform(-1, 1, (160, 2)), rng.uniform(-1, 1, (80, 2))
    truth = [np.sin(3 * x[:, :1]) * np.cos(2 * x[:, 1:]) for x in (coords, query)]
    noise = np.where(np.arange(160) % 2, 3.0, 0.02)[:, None]
    values = truth[0] + noise * rng.normal(size=(160, 1))
    rmse = {
        name: np.sqrt(
            ((reconstruct_baseline("kriging", *given, query, noise=e).mean - truth[1]) ** 2).mean()
        )
        for name, given, e in [
            ("stated", (coords, values), noise),
            ("unstated", (coords, values), None),
            ("good ones", (coords[::2], values[::2]), noise[::2]),
        ]
    }
    assert rmse["stated"] < 1.1 * rmse["good ones"] < 0.3 * rmse["unstated"]


def test_readings_of_one_place_equal_their_mean():
    rng = np.random.default_rng(0)
    coords, query = rng.uniform(-1, 1, (40, 2)), rng.uniform(-1, 1, (20, 2))
    noise = rng.uniform(0.1, 1, (40, 3, 2))
    readings = np.sin(3 * coords[:, None, :]) + noise * rng.normal(size=noise.shape)
    weights = noise**-2
    means = (weights * readings).sum(axis=1) / weights.sum(axis=1)
    many = reconstruct_baseline(
        "kriging", np.repeat(coords, 3, 0), readings.reshape(-1, 2), query,
        noise=noise.reshape(-1, 2),
    )  # fmt: skip
    one = reconstruct_baseline("kriging", coords, means, query, noise=weights.sum(axis=1) ** -0.5)
    np.testing.assert_allclose(many.mean, one.mean, atol=1e-9)
    np.testing.assert_allclose(many.std, one.std, atol=1e-9)


def test_a_noisy_measurement_is_not_returned_as_the_truth():
    coords, values, _, _ = points()
    found = reconstruct_baseline("kriging", coords, values, coords, noise=0.5)
    assert (found.std > 0).all()
    assert np.abs(found.mean - values).mean() > 0.1
    mixed = np.where(np.arange(M) == 4, 0.0, 0.5)
    found = reconstruct_baseline("kriging", coords, values, coords, noise=mixed)
    np.testing.assert_array_equal(found.mean[4], values[4])
    assert (found.std == 0).all(axis=1).sum() == 1


def test_many_points_are_fitted_to_a_part_and_kriged_by_neighbourhoods(monkeypatch):
    """The shortcuts for many points cost at most 3 % of what the best covariance reaches."""
    rng = np.random.default_rng(0)
    phases, waves = rng.uniform(0, 6, 200), 3 * rng.standard_t(3, (200, 2))
    coords = rng.uniform(-1, 1, (1400, 2))
    field = np.cos(coords @ waves.T + phases).sum(axis=1)[:, None] / 10
    values = field + 0.3 * rng.normal(size=field.shape)
    given = Points(coords[:1000], values[:1000], coords[1000:])
    errors = [
        np.sqrt(((ordinary_kriging(candidate, given)[0] - field[1000:]) ** 2).mean())
        for length in (0.1, 0.2, 0.4, 0.8)
        for kernel in ("exponential", "matern32", "matern52")
        for candidate in [GaussianField(length, 2.0, 0.045, kernel=kernel)]
    ]
    monkeypatch.setattr(module, "FIT_POINTS", 500)
    monkeypatch.setattr(module, "DENSE_POINTS", 999)
    found = reconstruct_baseline("kriging", *given[:3])
    assert np.sqrt(((found.mean - field[1000:]) ** 2).mean()) < 1.03 * min(errors)
    covered = np.abs(values[1000:] - found.mean) < 1.645 * found.std
    assert covered.mean() == pytest.approx(0.9, abs=0.06)


def test_a_part_of_many_points_holds_close_pairs(monkeypatch):
    coords = np.random.default_rng(0).uniform(-1, 1, (2000, 2))
    monkeypatch.setattr(module, "FIT_POINTS", 300)
    part = fitted_part(coords)
    assert 150 < len(np.unique(part)) == len(part) <= 300
    gaps = np.linalg.norm(coords[part, None] - coords[part], axis=-1) + 9 * np.eye(len(part))
    whole = np.linalg.norm(coords[part, None] - coords, axis=-1)
    whole[np.arange(len(part)), part] = 9
    assert (gaps.min(axis=1) == whole.min(axis=1)).mean() > 0.7
    np.testing.assert_array_equal(fitted_part(coords[:300]), np.arange(300))
