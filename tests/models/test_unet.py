"""What the U-Net promises of grids and holes."""

import pytest
import torch

from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Query
from sparsefield.models import build_model
from sparsefield.models.unet import REACH, TRAINED_SIDE

SETTINGS = {"widths": "6,8", "blocks": "1,1", "flow_widths": "6,8", "flow_blocks": "1,1"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    backbone = build_model("unet", **SETTINGS).eval().requires_grad_(False)
    for weight in backbone.parameters():
        weight.add_(0.1 * torch.randn_like(weight))
    return backbone


def observed(shape, seen):
    coords = cell_centres(shape)[seen]
    return Observation(coords, coords[:, :1].expand(-1, 3).clone(), grid=shape).batched()


def test_only_the_middle_of_wide_holes_of_large_images_is_seen_coarsely(model):
    side = TRAINED_SIDE + 6
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side + 4), indexing="ij")
    hole = ((rows - 30).abs() < REACH + 3) & ((columns - 40).abs() < REACH + 3)
    wide = model.encode(observed((side, side + 4), ~hole.flatten()))
    assert not torch.equal(wide.features, wide.reaching)
    narrow = model.encode(observed((side, side + 4), ((rows + columns) % 5 == 0).flatten()))
    assert torch.equal(narrow.features, narrow.reaching)
    small = model.encode(observed((32, 48), torch.arange(32 * 48) < 48))
    assert torch.equal(small.features, small.reaching)


def test_more_observations_than_cells_get_a_finer_grid(model):
    points = torch.rand(1, 1100, 2) * 2 - 1
    encoded = model.encode(Observation(points, torch.rand(1, 1100, 3)))
    assert encoded.weight.shape[-2:] == (64, 64)


@pytest.mark.parametrize("shape", [(5, 9), (33, 47)])
def test_values_move_along_with_offset_and_scale(model, shape):
    seen = torch.rand(shape).flatten() < 0.4
    values = torch.randn(int(seen.sum()), 3)
    coords = cell_centres(shape)
    query = [
        Query(coords[None], Observation(coords[seen], x, grid=shape).batched())
        for x in (values, 40 + 20 * values)
    ]
    time, noise = torch.zeros(1), torch.zeros(1, len(coords), 3)
    one, other = (model(noise, time, each) for each in query)
    torch.testing.assert_close(other, 40 + 20 * one, atol=0.2, rtol=2e-3)
