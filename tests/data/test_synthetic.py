import numpy as np
import pytest

from sparsefield.data.grids import cell_centres
from sparsefield.data.synthetic import (
    WaveField,
    wave_images,
)


def test_wave_fields_are_one_field_at_any_resolution():
    field = WaveField.random(np.random.default_rng(5), channels=2)
    coarse, fine = (
        field(cell_centres(shape).double().numpy()).reshape(*shape, 2)
        for shape in ((10, 12), (30, 36))
    )
    np.testing.assert_allclose(fine[1::3, 1::3], coarse, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_wave_fields_have_unit_variance(dims):
    rng = np.random.default_rng(0)
    coords = rng.uniform(-1, 1, (200, dims))
    values = np.stack([WaveField.random(rng, dims, channels=2)(coords) for _ in range(300)])
    assert values.shape == (300, 200, 2)
    assert values.var() == pytest.approx(1, abs=0.1)


def test_seeds_are_reproducible():
    same, again, other = (wave_images(2, 5, seed=seed).values for seed in (0, 0, 1))
    np.testing.assert_array_equal(same, again)
    assert not np.allclose(same, other)
    assert not np.allclose(same[0], same[1])


def test_averaged_waves_are_means_over_cells():
    field = WaveField.random(np.random.default_rng(2), channels=2)
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
