"""Source noise as a function of coordinates."""

import numpy as np
import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres
from sparsefield.flow.noise import NOISES, LatticeNoise, WhiteNoise, build_noise, field_keys

CELLS = {1: (33,), 2: (32, 21), 3: (6, 5, 7)}
C = 3
lattice = LatticeNoise()


def draw(noise, coords, count=1, channels=C, seed=0):
    """Return fields (S, L, C) at points (L, P)."""
    keys = field_keys(seed, range(count))
    return noise(coords.expand(count, -1, -1), channels, keys, CELLS[coords.shape[-1]])


def finer(shape, factor):
    return tuple(factor * n for n in shape)


@pytest.mark.parametrize("name", NOISES)
def test_a_field_depends_on_its_key_alone(name):
    coords = (torch.rand(17, 2) * 2 - 1).expand(2, -1, -1)

    def field(keys):
        return build_noise(name)(coords[: len(keys)], C, keys, CELLS[2])

    two = field(field_keys(3, [4, 9], 1))
    assert two.shape == (2, 17, C)
    assert torch.equal(two[1:], field(field_keys(3, [9], 1)))
    for other in (field_keys(3, [9], 0), field_keys(2, [9], 1), field_keys(3, [4], 1)):
        assert not torch.allclose(two[1:], field(other))


@pytest.mark.parametrize("dims", CELLS)
@pytest.mark.parametrize("name", NOISES)
def test_variance_is_one_and_channels_are_independent_anywhere(name, dims):
    noise = build_noise(name)
    coords = torch.rand(3, dims) * 3 - 1.5
    fields = draw(noise, coords, 6000).double()
    for point in fields.unbind(1):
        torch.testing.assert_close(
            point.T.cov(), torch.eye(C).double(), atol=5 * 6000**-0.5, rtol=0
        )
        assert point.mean().abs() < 5 * (6000 * C) ** -0.5


def test_values_are_normal():
    from scipy.stats import kstest

    values = draw(lattice, cell_centres(CELLS[2]), 20).flatten()
    assert kstest(values.numpy(), "norm").pvalue > 1e-3
    assert values.abs().max() < 6


@pytest.mark.parametrize("dims", CELLS)
def test_noise_of_one_cell_is_white_on_the_observed_grid(dims):
    covariance = lattice.covariance(cell_centres(CELLS[dims]), CELLS[dims])
    assert torch.equal(covariance, torch.eye(len(covariance)).double())


@pytest.mark.parametrize("length", [1.0, 2.5])
@pytest.mark.parametrize("dims", CELLS)
def test_finer_grids_see_the_same_field_at_shared_points(dims, length):
    shape, noise = CELLS[dims], LatticeNoise(length)
    coarse = draw(noise, cell_centres(shape), channels=2)[0].reshape(*shape, 2)
    for factor in (3, 5) if dims < 3 else (3,):
        fine = draw(noise, cell_centres(finer(shape, factor)), channels=2)[0]
        shared = fine.reshape(*finer(shape, factor), 2)
        for axis in range(dims):
            index = torch.arange(factor // 2, shared.shape[axis], factor)
            shared = shared.index_select(axis, index)
        torch.testing.assert_close(shared, coarse, atol=2e-5, rtol=0)


@pytest.mark.parametrize("length", [1.0, 2.5])
def test_empirical_covariance_is_the_stated_one(length):
    noise = LatticeNoise(length)
    # three points within two cells of each other, one far away
    coords = torch.tensor([[0.0, 0.0], [0.03, 0.05], [0.05, 0.02], [0.7, -0.6]])
    expected = noise.covariance(coords, CELLS[2])
    assert (expected[0, 1:3] > 0.1).all()
    assert (expected[3, :3] == 0).all()
    fields = draw(noise, coords, 20_000, 1)[..., 0]
    torch.testing.assert_close(fields.T.double().cov(), expected, atol=0.04, rtol=0)


def test_length_stretches_the_correlation():
    pair = torch.tensor([[0.0, 0.0], [0.09, 0.0]])  # about 1.4 cells apart
    near, far = (LatticeNoise(length).covariance(pair, CELLS[2])[0, 1] for length in (1.0, 4.0))
    assert near < 0.2
    assert far > 0.7


def test_field_is_continuous_and_smooth():
    coords = torch.stack([torch.linspace(-1, 1, 20_001).double(), torch.zeros(20_001)], dim=1)
    field = draw(lattice, coords)[0]
    slope = field.diff(dim=0) / coords[:, :1].diff(dim=0)
    assert field.diff(dim=0).abs().max() < 0.02
    # steps of a hundredth of a cell: a kink would change the slope at once
    assert slope.diff(dim=0).abs().max() < 0.1 * slope.abs().max()


def test_white_noise_has_no_covariance_between_points():
    assert torch.equal(WhiteNoise().covariance(torch.zeros(4, 2), CELLS[2]), torch.eye(4).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NOISES)
def test_values_have_the_type_of_the_coordinates(name, dtype):
    assert draw(build_noise(name), torch.zeros(2, 2, dtype=dtype)).dtype == dtype


def test_keys_differ_by_everything_they_are_made_from():
    keys = [
        field_keys(seed, [item], *rest)[0]
        for seed in (0, 1)
        for item in (0, 1)
        for rest in ((), (1,), (0, 1), (1, 0))
    ]
    assert len(set(keys)) == len(keys)
    assert field_keys(0, range(5)).dtype == np.uint64


def test_bad_noise_says_what_is_possible():
    with pytest.raises(InputError, match="unknown noise 'pink'.*lattice, white"):
        build_noise("pink")
    with pytest.raises(InputError, match="must be above 0 cells, not 0"):
        LatticeNoise(0)
