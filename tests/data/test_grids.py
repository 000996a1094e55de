import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres


def test_points_follow_the_row_major_order_of_arrays():
    shape = (3, 4, 5)
    coords = cell_centres(shape).reshape(*shape, 3)
    i, j, k = 2, 1, 3
    expected = torch.tensor([-1 + (2 * i + 1) / 3, -1 + (2 * j + 1) / 4, -1 + (2 * k + 1) / 5])
    torch.testing.assert_close(coords[i, j, k], expected)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4)])
def test_centres_are_symmetric_and_inside_the_domain(shape):
    coords = cell_centres(shape)
    assert coords.abs().max() < 1
    torch.testing.assert_close(coords.flip(0), -coords)


def test_centres_of_a_grid_are_among_those_of_a_three_times_finer_grid():
    fine = cell_centres((96, 96)).reshape(96, 96, 2)
    assert torch.equal(fine[1::3, 1::3].reshape(-1, 2), cell_centres((32, 32)))


@pytest.mark.parametrize("shape", [(), (0,), (4, 0)])
def test_empty_grid_is_an_error(shape):
    with pytest.raises(InputError, match="at least one cell"):
        cell_centres(shape)
