import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsefield.baselines import interpolators as baselines
from sparsefield.baselines.interpolators import (
    BASELINES,
    available_baselines,
    reconstruct_baseline,
    run_baselines,
)
from sparsefield.core.errors import InputError
from sparsefield.data.dataset import open_dataset
from sparsefield.data.gaussian import GaussianField, fit_gaussian_field
from sparsefield.data.grids import cell_centres
from sparsefield.data.masks import observed_indices
from sparsefield.metrics import psnr, ssim

CASES = [(name, dims) for dims in (1, 2, 3) for name in available_baselines(dims)]
SHAPES = {1: (60,), 2: (9, 11), 3: (5, 6, 7)}


def task(dims, channels=5, seed=0):
    """Return a random field observed at 40 % of a grid: coordinates, values, all points."""
    grid = cell_centres(SHAPES[dims]).numpy()
    rng = np.random.default_rng(seed)
    observed = rng.permutation(len(grid))[: 2 * len(grid) // 5]
    return grid[observed], rng.normal(size=(len(observed), channels)), grid


def test_every_baseline_runs_on_images_and_most_in_any_dimension():
    assert set(available_baselines(2)) == set(BASELINES)
    assert {"nearest", "linear", "tps", "kriging"} == set(available_baselines(3))
    assert "biharmonic" not in available_baselines(2, on_grid=False)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_observed_points_are_exact_and_the_rest_is_finite(name, dims):
    coords, values, grid = task(dims)
    mean = reconstruct_baseline(name, coords, values, grid).mean
    assert mean.shape == (len(grid), values.shape[1])
    assert np.isfinite(mean).all()
    cells = [np.flatnonzero((grid == point).all(axis=1))[0] for point in coords]
    np.testing.assert_array_equal(mean[cells], values)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_baselines_commute_with_a_change_of_units_and_treat_channels_alike(name, dims):
    coords, values, grid = task(dims)
    base = reconstruct_baseline(name, coords, values, grid).mean
    kelvin = reconstruct_baseline(name, coords, 20 * values[:, ::-1] + 280, grid).mean
    np.testing.assert_allclose(kelvin, 20 * base[:, ::-1] + 280, atol=1e-5)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_baselines_reproduce_a_constant(name, dims):
    coords, values, grid = task(dims)
    mean = reconstruct_baseline(name, coords, np.full_like(values, 7.0), grid).mean
    np.testing.assert_allclose(mean, 7, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "cubic", "tps"])
def test_linear_fields_are_exact_inside_the_hull(name):
    coords, _, grid = task(2)
    slope = np.array([[1.0, -2.0], [0.5, 3.0]])
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    coords = np.vstack([coords, corners])
    mean = reconstruct_baseline(name, coords, coords @ slope, grid).mean
    np.testing.assert_allclose(mean, grid @ slope, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "cubic"])
@pytest.mark.parametrize("dims", [1, 2])
def test_outside_the_hull_the_nearest_value_holds(name, dims):
    coords, values, _ = task(dims)
    query = np.full((1, dims), 3.0)
    expected = reconstruct_baseline("nearest", coords, values, query).mean
    np.testing.assert_allclose(reconstruct_baseline(name, coords, values, query).mean, expected)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_points_that_do_not_span_the_plane_still_give_a_field(name, count):
    grid = cell_centres((8, 8)).numpy()
    line = grid[:count]
    prediction = reconstruct_baseline(name, line, np.arange(count)[:, None], grid)
    assert np.isfinite(prediction.mean).all()
    np.testing.assert_allclose(prediction.mean[:count, 0], np.arange(count), atol=1e-9)


@pytest.mark.parametrize("name", BASELINES)
def test_measurements_at_one_place_are_averaged(name):
    coords, values, grid = task(2)
    twice = reconstruct_baseline(
        name, np.vstack([coords, coords[:1]]), np.vstack([values, values[:1] + 2]), grid
    )
    values[0] += 1
    np.testing.assert_allclose(
        twice.mean, reconstruct_baseline(name, coords, values, grid).mean, atol=1e-8
    )


def test_kriging_is_the_posterior_of_the_fitted_field():
    coords, values, grid = task(2)
    query = grid + 0.01
    field = fit_gaussian_field(coords.astype(float), values)
    mean, std = field.posterior(coords, values, query)
    prediction = reconstruct_baseline("kriging", coords, values, query)
    np.testing.assert_allclose(prediction.mean, mean, atol=1e-9)
    np.testing.assert_allclose(prediction.std**2, std**2 + field.nugget * field.variance)


def test_kriging_forecasts_of_gaussian_fields_are_calibrated():
    grid = cell_centres((16, 16)).double().numpy()
    draws = GaussianField(0.4, variance=9.0).sample(grid, 20, np.random.default_rng(0))
    scaled = []
    for index, draw in enumerate(draws):
        observed = observed_indices(256, 0.3, 0, "test", index)
        mean, std, _ = reconstruct_baseline("kriging", grid[observed], draw[observed, None], grid)
        hidden = std[:, 0] > 0
        scaled.append((draw - mean[:, 0])[hidden] / std[hidden, 0])
    z = np.concatenate(scaled)
    assert np.std(z) == pytest.approx(1, abs=0.08)
    assert (np.abs(z) < 1.645).mean() == pytest.approx(0.9, abs=0.03)


def test_only_kriging_states_its_spread_which_is_zero_at_observations():
    coords, values, grid = task(2)
    found = {name: reconstruct_baseline(name, coords, values, grid).std for name in BASELINES}
    assert [name for name, std in found.items() if std is not None] == ["kriging"]
    assert (found["kriging"] == 0).all(axis=1).sum() == len(coords)


def test_errors_name_what_to_do():
    coords, values, grid = task(3)
    with pytest.raises(InputError, match="choose one of: biharmonic, cubic"):
        reconstruct_baseline("spline", coords, values, grid)
    with pytest.raises(InputError, match=r"cubic works in .* not 3; use tps"):
        reconstruct_baseline("cubic", coords, values, grid)
    coords, values, grid = task(2)
    with pytest.raises(InputError, match="whole grid"):
        reconstruct_baseline("biharmonic", coords, values, grid[:-1])


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(baselines, "find_spec", lambda name: None)
    assert "biharmonic" not in available_baselines(2)
    with pytest.raises(InputError, match=r"install sparsefield\[image\]"):
        reconstruct_baseline("biharmonic", *task(2))


def test_run_baselines_gives_every_item_every_baseline():
    tasks = [task(2, seed=seed) for seed in range(2)]
    results = list(run_baselines(iter(tasks), ["nearest", "tps"]))
    assert [list(result) for result in results] == [["nearest", "tps"]] * 2
    single = reconstruct_baseline("tps", *tasks[1])
    np.testing.assert_array_equal(results[1]["tps"].mean, single.mean)
    assert results[1]["tps"].seconds > 0


DATA = Path(os.environ.get("SPARSEFIELD_DATA", Path(__file__).parents[3] / "shared/data"))


@pytest.mark.skipif(not DATA.exists(), reason="no CIFAR-10 here; SPARSEFIELD_DATA may point to it")
def test_baselines_of_cifar10_under_the_published_protocol():
    # All 2,000 images give 20.27, 22.14 and 22.86 dB.
    published = {"nearest": (20.343, 0.7090), "linear": (22.309, 0.7728), "tps": (22.927, 0.8059)}
    count = 40
    dataset = open_dataset(DATA / "cifar10_lossless", limit=count)
    coords, truth = dataset.coords.numpy(), dataset.batch(range(count))
    masks = [observed_indices(1024, 0.2, 0, "validation", index) for index in range(count)]
    tasks = ((coords[mask], truth[i, mask], coords) for i, mask in enumerate(masks))
    results = list(run_baselines(tasks, published))
    for name, (decibel, similarity) in published.items():
        mean = torch.from_numpy(np.stack([result[name].mean for result in results])).clamp(0, 1)
        images = (field.reshape(count, 32, 32, 3) for field in (mean, truth))
        assert psnr(mean, truth).mean().item() == pytest.approx(decibel, abs=0.005)
        assert ssim(*images).mean().item() == pytest.approx(similarity, abs=0.0005)
