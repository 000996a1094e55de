"""Point orders."""

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres
from sparsefield.nn.ordering import (
    ORDERS,
    grouped_order,
    hilbert_code,
    inverse_order,
    point_order,
    reorder,
)

B, L, P, D = 2, 63, 3, 5
SPATIAL = sorted(set(ORDERS) - {"given"})


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ORDERS)
def test_an_order_is_a_permutation_that_can_be_undone(name, dims):
    coords, x = torch.rand(B, L, dims) * 2 - 1, torch.randn(B, L, D)
    order = point_order(name, coords)
    assert torch.equal(order.sort(dim=1).values, torch.arange(L).expand(B, -1))
    assert torch.equal(reorder(reorder(x, order), inverse_order(order)), x)


@pytest.mark.parametrize("name", SPATIAL)
def test_a_curve_passes_points_in_the_same_sequence_however_they_are_given(name):
    coords = torch.rand(1, L, P) * 2 - 1
    shuffled = coords[:, torch.randperm(L)]
    along, again = (reorder(x, point_order(name, x)) for x in (coords, shuffled))
    assert torch.equal(along, again)


def test_given_order_leaves_points_as_they_are():
    order = point_order("given", torch.rand(B, L, P))
    assert torch.equal(order, torch.arange(L).expand(B, -1))


def test_raster_is_the_order_of_an_array():
    coords = cell_centres((3, 4, 5))[None]
    assert torch.equal(point_order("raster", coords)[0], torch.arange(60))


@pytest.mark.parametrize("shape", [(64,), (16, 16), (8, 8, 8), (4, 4, 4, 4)])
def test_hilbert_curve_moves_to_an_adjacent_cell_at_every_step(shape):
    coords = cell_centres(shape)
    cells = ((coords + 1) / 2 * shape[0]).floor()
    steps = cells[point_order("hilbert", coords[None])[0]].diff(dim=0).abs().sum(1)
    assert torch.equal(steps, torch.ones(len(coords) - 1))


def test_morton_curve_finishes_a_quadrant_before_it_enters_the_next():
    coords = cell_centres((8, 8))
    along = coords[point_order("morton", coords[None])[0]]
    corners = along.reshape(4, 16, 2).sign()
    assert torch.equal(corners, corners[:, :1].expand_as(corners))


def test_codes_stay_within_range_outside_the_domain():
    code = hilbert_code(torch.tensor([[-2.0, 0.0], [2.0, 0.0], [1.0, 1.0]]))
    assert (code >= 0).all()


def test_groups_come_one_after_the_other_each_along_the_curve():
    coords = torch.rand(B, L, P) * 2 - 1
    group = torch.randint(0, 3, (B, L))
    order = grouped_order("hilbert", coords, group)
    sequence = group.gather(1, order)
    assert (sequence.diff(dim=1) >= 0).all()
    code = hilbert_code(coords).gather(1, order)
    falls = code.diff(dim=1) < 0
    assert not (falls & (sequence.diff(dim=1) == 0)).any()


def test_unknown_order_lists_the_choices():
    with pytest.raises(InputError, match="unknown point order 'spiral'.*hilbert"):
        point_order("spiral", torch.rand(B, L, P))
