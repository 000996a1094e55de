"""The classical interpolators: exact where they should be, on real images too."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.baselines.tasks import CASES
from tests.baselines.tasks import on_grid as task

from sparsefield.baselines import registry
from sparsefield.baselines.points import BaselineWarning
from sparsefield.baselines.registry import BASELINES, available_baselines, reconstruct_baseline
from sparsefield.core.errors import InputError
from sparsefield.data.dataset import open_dataset
from sparsefield.data.grids import cell_centres
from sparsefield.data.masks import observed_indices
from sparsefield.metrics import psnr, ssim

OWN = [name for name, baseline in BASELINES.items() if not baseline.peer]


def test_every_baseline_runs_on_images_and_most_in_any_dimension():
    assert available_baselines(2) == OWN
    assert {"nearest", "idw", "linear", "tps", "kriging"} == set(available_baselines(3))
    assert "biharmonic" not in available_baselines(2, on_grid=False)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_observed_points_are_exact_and_the_rest_is_finite(name, dims):
    coords, values, grid = task(dims)
    mean = reconstruct_baseline(name, coords, values, grid).mean
    assert mean.shape == (len(grid), values.shape[1])
    assert np.isfinite(mean).all()
    cells = [np.flatnonzero((grid == point).all(axis=1))[0] for point in coords]
    np.testing.assert_array_equal(mean[cells], values)


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


@pytest.mark.filterwarnings("ignore::sparsefield.baselines.points.BaselineWarning")
@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_points_that_do_not_span_the_plane_still_give_a_field(name, count):
    grid = cell_centres((8, 8)).numpy()
    line = grid[:count]
    prediction = reconstruct_baseline(name, line, np.arange(count)[:, None], grid)
    assert np.isfinite(prediction.mean).all()
    np.testing.assert_allclose(prediction.mean[:count, 0], np.arange(count), atol=1e-9)


@pytest.mark.parametrize("name", OWN)
def test_measurements_at_one_place_are_averaged_with_a_warning(name):
    coords, values, grid = task(2)
    both = np.vstack([coords, coords[:1]]), np.vstack([values, values[:1] + 2])
    with pytest.warns(BaselineWarning, match="state their noise"):
        twice = reconstruct_baseline(name, *both, grid)
    values[0] += 1
    np.testing.assert_allclose(
        twice.mean, reconstruct_baseline(name, coords, values, grid).mean, atol=1e-8
    )


def sphere(count, reach=np.pi, seed=0):
    """Return unit vectors (N, 3) within an angle of the pole."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(np.cos(reach), 1, count)
    angle = rng.uniform(0, 2 * np.pi, count)
    flat = np.sqrt(1 - z**2)
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), z], axis=1)


@pytest.mark.parametrize("radius", [1.0, 6371.0])
@pytest.mark.parametrize("reach", [np.pi, 1.0, 0.02, 1e-3])
def test_linear_on_a_sphere_knows_neither_poles_nor_a_date_line(radius, reach):
    """It follows a rotation, keeps observations, and takes the mean in the middle of an edge."""
    coords, query = radius * sphere(60, reach), radius * sphere(200, reach, seed=1)
    values = np.random.default_rng(2).normal(size=(60, 2))
    found = reconstruct_baseline("linear", coords, values, query)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turned = reconstruct_baseline("linear", coords @ turn, values, query @ turn)
    np.testing.assert_allclose(turned.mean, found.mean, atol=1e-6)
    assert (found.mean >= values.min(0)).all() and (found.mean <= values.max(0)).all()
    exact = reconstruct_baseline("linear", coords, values, np.vstack([coords, query[:1]]))
    np.testing.assert_allclose(exact.mean[:-1], values, atol=1e-9)
    # Nearest neighbours share an edge of every Delaunay triangulation.
    gap = np.linalg.norm(coords[:, None] - coords[None], axis=-1) + 9e9 * np.eye(60)
    pairs = np.stack([np.arange(60), gap.argmin(1)])
    middle = coords[pairs].mean(0)
    middle *= radius / np.linalg.norm(middle, axis=1, keepdims=True)
    halfway = reconstruct_baseline("linear", coords, values, middle).mean
    np.testing.assert_allclose(halfway, values[pairs].mean(0), atol=1e-6)


def test_linear_on_a_sphere_has_an_error_of_second_order():
    """Halving the spacing of stations divides the error of a smooth field by four."""
    query = sphere(2000, seed=1)
    error = []
    for count in (500, 2000):
        turns = np.pi * (1 + 5**0.5) * np.arange(count)
        z = 1 - (2 * np.arange(count) + 1) / count
        flat = np.sqrt(1 - z**2)
        coords = np.stack([flat * np.cos(turns), flat * np.sin(turns), z], axis=1)
        field = [np.exp(x @ [1, -2, 0.5])[:, None] for x in (coords, query)]
        found = reconstruct_baseline("linear", coords, field[0], query).mean
        error.append(np.sqrt(((found - field[1]) ** 2).mean()))
    assert 3.3 < error[0] / error[1] < 4.7
    assert error[1] < 0.01


def test_outside_of_all_triangles_of_a_sphere_the_nearest_is_taken():
    coords = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [3**-0.5] * 3])
    query = np.array([[-0.6, 0.8, 0], [0.6, -0.8, 0], [0.5**0.5, 0.5**0.5, 0]])
    found = reconstruct_baseline("linear", coords, np.array([[1.0], [2], [6], [9]]), query)
    assert found.mean[:, 0] == pytest.approx([2, 1, 1.5])


def test_shepard_weighs_by_the_inverse_square_of_the_distance():
    coords, values = np.array([[0.0], [3.0], [-4.0]]), np.array([[1.0], [2.0], [5.0]])
    found = reconstruct_baseline("idw", coords, values, np.array([[1.0], [0.0], [1e9]]))
    weights = 1 / np.array([1, 4, 25])
    expected = [weights @ [1, 2, 5] / weights.sum(), 1, 8 / 3]
    np.testing.assert_allclose(found.mean[:, 0], expected)


def test_only_kriging_states_a_deviation_which_is_zero_at_observations():
    coords, values, grid = task(2)
    found = {name: reconstruct_baseline(name, coords, values, grid).std for name in OWN}
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
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert "biharmonic" not in available_baselines(2)
    with pytest.raises(InputError, match=r"install sparsefield\[image\]"):
        reconstruct_baseline("biharmonic", *task(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.full((3, 1), np.nan)}, "values hold NaN"),
        ({"values": np.ones((2, 1))}, "do not fit together"),
        ({"values": np.ones(3)}, r"values \(M, C\)"),
        ({"noise": np.ones(2)}, "noise takes"),
        ({"noise": -0.1}, "noise must be finite and at least 0"),
        ({"coords": np.zeros((0, 2)), "values": np.zeros((0, 1))}, "at least one point"),
    ],
)
def test_bad_measurements_are_one_clear_line(change, message):
    given = {"coords": np.eye(3, 2), "values": np.ones((3, 1)), "query": np.zeros((4, 2))}
    with pytest.raises(InputError, match=message):
        reconstruct_baseline("tps", **given | change)


DATA = Path(os.environ.get("SPARSEFIELD_DATA", Path(__file__).parents[3] / "shared/data"))


@pytest.mark.skipif(not DATA.exists(), reason="no CIFAR-10 here; SPARSEFIELD_DATA may point to it")
def test_baselines_of_cifar10_under_the_published_protocol():
    # All 2,000 images give 20.27, 22.14 and 22.86 dB.
    published = {"nearest": (20.343, 0.7090), "linear": (22.309, 0.7728), "tps": (22.927, 0.8059)}
    count = 40
    dataset = open_dataset(DATA / "cifar10_lossless", limit=count)
    coords, truth = dataset.coords.numpy(), dataset.batch(range(count))
    masks = [observed_indices(1024, 0.2, 0, "validation", index) for index in range(count)]
    for name, (decibel, similarity) in published.items():
        means = [
            reconstruct_baseline(name, coords[mask], truth[i, mask], coords).mean
            for i, mask in enumerate(masks)
        ]
        mean = torch.from_numpy(np.stack(means)).clamp(0, 1)
        images = (field.reshape(count, 32, 32, 3) for field in (mean, truth))
        assert psnr(mean, truth).mean().item() == pytest.approx(decibel, abs=0.005)
        assert ssim(*images).mean().item() == pytest.approx(similarity, abs=0.0005)
