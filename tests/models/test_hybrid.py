"""The flagship beyond what every model promises: the size of the queries' cells."""

import pytest
import torch
from tests.models.test_models import TINY, C, inputs, times

from sparsefield.flow.backbone import Query
from sparsefield.models import build_model


@pytest.fixture
def backbone():
    """A tiny backbone that reads the size of cells, in which no weight is zero."""
    backbone = build_model("hybrid", channels=C, cells=True, **TINY["hybrid"])
    with torch.no_grad():
        for weight in backbone.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return backbone


@pytest.mark.parametrize("t", [0.0, 0.6])
def test_values_of_finer_cells_differ(backbone, t):
    x_t, coords, obs = inputs()
    coarse, fine = (
        backbone(x_t, times(t), Query(coords, obs, times(cell))) for cell in (1.0, 0.5)
    )
    assert (coarse - fine).abs().min(-1).values.max() > 1e-3
    torch.testing.assert_close(backbone(x_t, times(t), Query(coords, obs)), coarse)


def test_cells_of_a_batch_may_differ(backbone):
    x_t, coords, obs = inputs()
    both = backbone(x_t, times(0.0), Query(coords, obs, torch.tensor([1.0, 0.25])))
    for item, cell in enumerate((1.0, 0.25)):
        alone = backbone(x_t, times(0.0), Query(coords, obs, times(cell)))
        torch.testing.assert_close(both[item], alone[item], atol=1e-5, rtol=1e-5)


def test_every_weight_learns_from_cells_of_several_sizes(backbone):
    x_t, coords, obs = inputs()
    query = Query(coords, obs, torch.tensor([1.0, 0.25]))
    loss = sum(backbone(x_t, times(t), query).square().sum() for t in (0.0, 0.6))
    loss.backward()
    for name, weight in backbone.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any(), name


def test_a_model_without_them_takes_no_note():
    backbone = build_model("hybrid", channels=C, **TINY["hybrid"])
    x_t, coords, obs = inputs()
    expected = backbone(x_t, times(0.0), Query(coords, obs))
    assert torch.equal(backbone(x_t, times(0.0), Query(coords, obs, times(0.5))), expected)
