"""What the backbones that read one sequence owe to the order in which they read it."""

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Query
from sparsefield.models import build_model
from sparsefield.models.sequence import LAYOUTS, STEPS
from sparsefield.nn.ordering import ORDERS, TRAVERSALS

B, M, C, SHAPE = 2, 17, 5, (7, 9)
EVERY_ORDER = [*ORDERS, *TRAVERSALS]


def build(name="v1", **settings):
    small = {"width": 16, "layers": 2, "state": 3, "heads": 2, "features": 5}
    backbone = build_model(name, channels=C, dims=2, **small, **settings)
    with torch.no_grad():
        for weight in backbone.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return backbone.eval()


@pytest.fixture
def inputs():
    coords = cell_centres(SHAPE).expand(B, -1, -1)
    obs = Observation(torch.rand(B, M, 2) * 2 - 1, torch.randn(B, M, C))
    return torch.randn(B, 63, C), torch.tensor([0.3, 0.7]), Query(coords, obs)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", EVERY_ORDER)
@pytest.mark.parametrize("name", ["v1", "v2"])
def test_only_the_given_order_depends_on_how_points_are_given(name, order, layout, step, inputs):
    x_t, t, query = inputs
    backbone = build(name, order=order, layout=layout, step=step)
    assert backbone.claims.order_invariant == (order != "given")
    expected = backbone(x_t, t, query)
    rows, points = torch.randperm(M), torch.randperm(63)
    shuffled = Observation(query.obs.coords[:, rows], query.obs.values[:, rows])
    actual = backbone(x_t[:, points], t, Query(query.coords[:, points], shuffled))
    same = torch.allclose(actual, expected[:, points], atol=1e-5, rtol=1e-4)
    assert same == backbone.claims.order_invariant


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", EVERY_ORDER)
def test_padding_is_inert_in_every_arrangement(order, layout, step, inputs):
    x_t, t, query = inputs
    backbone = build("v2", order=order, layout=layout, step=step)
    expected = backbone(x_t, t, query)
    padded = query.obs.pad(M + 6)
    padded.coords[~padded.valid] = 0.3
    torch.testing.assert_close(
        backbone(x_t, t, Query(query.coords, padded)), expected, atol=1e-5, rtol=1e-4
    )


def test_joint_layout_brings_neighbours_together(inputs):
    """Read jointly, points are closer to the one before than read one kind after the other."""
    gaps = {}
    for layout in LAYOUTS:
        backbone = build("v1", order="hilbert", layout=layout, step="distance")
        backbone.sequence.mixer.register_forward_hook(
            lambda module, args, output, layout=layout: gaps.update({layout: args[2]})
        )
        backbone(*inputs)
    assert gaps["joint"].shape == (B, M + 63)
    assert gaps["joint"].mean() < 0.8 * gaps["grouped"].mean()


def test_settings_change_the_prediction(inputs):
    settings = [
        {},
        {"order": "raster"},
        {"order": "multi"},
        {"layout": "joint"},
        {"step": "distance"},
    ]
    weights, predictions = build("v1").state_dict(), []
    for changes in settings:
        backbone = build("v1", **changes)
        backbone.load_state_dict(weights)
        predictions.append(backbone(*inputs))
    for i, first in enumerate(predictions):
        assert all((first - second).abs().max() > 1e-4 for second in predictions[:i])


def test_averaging_is_the_mean_of_the_traversals(inputs):
    x_t, t, query = inputs
    weights = build("v1").state_dict()

    def queries(order):
        backbone = build("v1", order=order)
        backbone.load_state_dict(weights)
        return backbone.sequence(x_t, t, query, backbone.prepare(query))[1]

    each = [queries(order) for order in TRAVERSALS["multi"]]
    torch.testing.assert_close(queries("multi"), torch.stack(each).mean(0))


@pytest.mark.parametrize("setting", ["order", "layout", "step"])
def test_unknown_arrangements_list_the_choices(setting):
    with pytest.raises(InputError, match=f"unknown .*{setting} 'spiral'"):
        build("v1", **{setting: "spiral"})
