"""The U-Net and what puts points on a grid and fields back at points."""

import pytest
import torch

from sparsefield.data.grids import cell_centres
from sparsefield.data.raster import cubic_at, is_grid, mean_in_cells
from sparsefield.nn.fill import fill_by_averaging
from sparsefield.nn.unet import UNet, on_multiple


def shaken(net):
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return net


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (1, 5), (3, 16)])
def test_any_grid_comes_back_at_its_own_size(size):
    net = shaken(UNet(5, (6, 7, 8), (1, 1, 1)))
    assert on_multiple(net, torch.randn(2, 5, *size)).shape == (2, 6, *size)


def test_items_of_a_batch_do_not_see_each_other():
    net, x = shaken(UNet(3, (4, 6), (1, 2), modulated=5)), torch.randn(3, 3, 8, 6)
    vector = torch.randn(3, 5)
    together = net(x, vector)
    alone = net(x[1:2], vector[1:2])
    torch.testing.assert_close(together[1:2], alone)
    assert not torch.allclose(net(x, vector + 1), together)


def test_filling_keeps_what_is_known_and_is_exact_for_constants():
    known = (torch.rand(2, 1, 9, 13) < 0.2).float()
    known[:, :, 0, 0] = 1
    values = torch.randn(2, 3, 9, 13)
    filled = fill_by_averaging(values * known, known)
    assert torch.equal(filled * known, values * known)
    inside = values.masked_fill(known == 0, torch.nan).flatten(2)
    low = inside.nan_to_num(torch.inf).amin(-1)[..., None, None]
    high = inside.nan_to_num(-torch.inf).amax(-1)[..., None, None]
    assert (filled >= low - 1e-5).all()
    assert (filled <= high + 1e-5).all()
    constant = fill_by_averaging(2.5 * known, known)
    torch.testing.assert_close(constant, torch.full_like(constant, 2.5))


def test_filling_reads_nothing_that_is_missing():
    known = (torch.rand(1, 1, 6, 11) < 0.3).float()
    known[..., 2, 3] = 1
    values = torch.randn(1, 2, 6, 11)
    other = torch.where(known > 0, values, 99.0)
    assert torch.equal(fill_by_averaging(values, known), fill_by_averaging(values, known))
    same = fill_by_averaging(other, known)
    torch.testing.assert_close(same, fill_by_averaging(values * known, known))


def test_means_in_cells_are_those_of_the_points_in_them():
    coords = torch.tensor([[[-0.9, -0.9], [-0.6, -0.8], [0.9, 1.0], [0.2, 0.3]]])
    values = torch.tensor([[[1.0], [3.0], [7.0], [50.0]]])
    valid = torch.tensor([[True, True, True, False]])
    means, weight = mean_in_cells(coords, values, valid, (2, 3))
    assert means[0, 0].tolist() == [[2.0, 0.0, 0.0], [0.0, 0.0, 7.0]]
    assert weight[0, 0].tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_cubic_convolution_is_exact_at_centres_and_for_quadratics_inside():
    shape = (8, 11)
    grid = cell_centres(shape)[None].double()

    def quadratic(at):
        y, x = at.unbind(-1)
        return (1 + 2 * y - x + 3 * x * y + x**2 - 2 * y**2)[..., None]

    field = quadratic(grid).transpose(1, 2).unflatten(2, shape)
    found, phase = cubic_at(field, grid)
    torch.testing.assert_close(found, quadratic(grid))
    assert phase.abs().max() < 1e-6
    inside = (torch.rand(1, 40, 2).double() * 2 - 1) * 0.6
    found, phase = cubic_at(field, inside)
    torch.testing.assert_close(found, quadratic(inside))
    assert phase.abs().max() <= 0.5
    assert phase.abs().max() > 0.1


def test_a_grid_is_known_by_its_centres_in_order():
    shape = (3, 5)
    grid = cell_centres(shape)[None]
    assert is_grid(grid, shape)
    assert not is_grid(grid.flip(1), shape)
    assert not is_grid(grid[:, :-1], shape)
    assert not is_grid(grid, (5, 3))
