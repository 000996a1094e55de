import numpy as np
import pytest

from sparsefield.data.gaussian import GaussianField
from sparsefield.data.grids import cell_centres
from sparsefield.data.synthetic import (
    WaveField,
    gaussian_field_dataset,
    wave_field_dataset,
    wave_images,
)


def test_gaussian_fields_follow_their_covariance():
    shape = (3, 4)
    dataset = gaussian_field_dataset(20_000, shape, length=0.5, seed=1)
    assert dataset.values.shape == (20_000, 3, 4, 1)
    coords = dataset.coords.double().numpy()
    expected = GaussianField(0.5).correlation(coords, coords)
    np.testing.assert_allclose(np.cov(dataset.values.reshape(-1, 12).T), expected, atol=0.05)


def test_wave_fields_are_one_set_of_fields_at_any_resolution():
    coarse = wave_field_dataset(3, (10, 12), channels=2, seed=5)
    fine = wave_field_dataset(3, (30, 36), channels=2, seed=5)
    np.testing.assert_allclose(fine.values[:, 1::3, 1::3], coarse.values, atol=1e-5)
    assert not np.allclose(coarse.values[0], coarse.values[1])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_wave_fields_have_unit_variance(dims):
    rng = np.random.default_rng(0)
    coords = rng.uniform(-1, 1, (200, dims))
    values = np.stack([WaveField.draw(rng, dims, channels=2)(coords) for _ in range(300)])
    assert values.shape == (300, 200, 2)
    assert values.var() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("make", [gaussian_field_dataset, wave_field_dataset])
def test_seeds_are_reproducible(make):
    same, again, other = (make(2, (4, 5), seed=seed).values for seed in (0, 0, 1))
    np.testing.assert_array_equal(same, again)
    assert not np.allclose(same, other)


def test_averaged_waves_are_means_over_cells():
    field = WaveField.draw(np.random.default_rng(2), channels=2)
    shape, parts = (4, 5), 100
    fine = field(cell_centres([parts * n for n in shape]).double().numpy())
    means = fine.reshape(4, parts, 5, parts, 2).mean((1, 3)).reshape(20, 2)
    centres = cell_centres(shape).double().numpy()
    np.testing.assert_allclose(field.averaged(shape)(centres), means, atol=2e-3)
    assert not np.allclose(field(centres), means, atol=0.1)


def test_wave_images_keep_to_the_range_and_to_their_averages():
    coarse, fine = wave_images(3, 8, seed=1), wave_images(3, 24, seed=1)
    assert coarse.values.min() > 0
    assert coarse.values.max() < 1
    assert coarse.values.std() > 0.05
    np.testing.assert_allclose(fine.resized((8, 8)).values, coarse.values, atol=1e-6)
