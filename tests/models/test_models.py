"""What every backbone promises."""

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import ModelSpec, load_checkpoint, save_checkpoint
from sparsefield.models import MODELS, build_model, model_defaults

B, M, C = 2, 17, 5
SHAPES = [(63,), (7, 9), (3, 4, 5)]

GINR = {"width": 16, "positions": 9, "state": 3, "hidden": 16, "features": 5, "cells": 8}
# Settings at which a test takes milliseconds, one row per model.
TINY = {
    "v1": {"width": 24, "layers": 2, "state": 3, "heads": 2, "features": 7},
    "v2": {"width": 24, "layers": 2, "state": 3, "iterations": 1, "heads": 2, "features": 7},
    "local": {"width": 24, "layers": 2, "heads": 4, "neighbours": 9, "features": 7},
    "perceiver_io": {"width": 24, "latents": 11, "iterations": 2, "heads": 2, "features": 7},
    "transformer": {"width": 24, "layers": 2, "heads": 2, "features": 7},
    "hybrid": {
        "width": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "heads": 4,
        "features": 7,
        "flow_width": 12,
        "flow_layers": 4,
        "state": 3,
    },
    "ginr": {**GINR, "layers": 2, "blocks": 1},
    "ginr_fourier": {**GINR, "layers": 2},
    "ginr_scent": {**GINR, "token_heads": 2, "attention_layers": 1, "blocks": 2},
    "ginr_hybrid": {**GINR, "token_heads": 2, "attention_layers": 1, "blocks": 2},
}
every_model = pytest.mark.parametrize("name", MODELS)
every_flow_model = pytest.mark.parametrize(
    "name", [name for name, model in MODELS.items() if not model.claims.autoencoder]
)


def tiny(name, dims=2, channels=C):
    """Return a tiny backbone in which no weight is zero, so that every path is open."""
    assert name in TINY, f"give model '{name}' a row of tiny settings in TINY"
    backbone = build_model(name, channels=channels, dims=dims, **TINY[name])
    with torch.no_grad():
        for weight in backbone.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return backbone.eval()


def inputs(shape=(7, 9), channels=C):
    """Return x_t, coords and observations of a batch on a grid, away from its points."""
    coords = cell_centres(shape).expand(B, -1, -1)
    x_t = torch.randn(B, coords.shape[1], channels)
    obs = Observation(torch.rand(B, M, len(shape)) * 2 - 1, torch.randn(B, M, channels))
    return x_t, coords, obs


def times(value):
    return torch.full((B,), value)


def assert_same(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("shape", SHAPES)
@every_model
def test_prediction_has_the_shape_of_the_queries_at_any_resolution(name, shape):
    backbone = tiny(name, dims=len(shape))
    for grid in (shape, tuple(n + 1 for n in shape)):
        x_t, coords, obs = inputs(grid)
        prediction = backbone(x_t, torch.tensor([0.0, 0.7]), coords, obs)
        assert prediction.shape == x_t.shape
        assert prediction.isfinite().all()
    single = backbone(x_t[:, :1], times(0.5), coords[:, :1], Observation(obs.coords, obs.values))
    assert single.shape == (B, 1, C)


@pytest.mark.parametrize("shape", SHAPES)
@every_model
def test_every_weight_gets_a_finite_gradient(name, shape):
    backbone = tiny(name, dims=len(shape)).train()
    x_t, coords, obs = inputs(shape)
    loss = sum(backbone(x_t, times(t), coords, obs).square().sum() for t in (0.0, 0.6))
    loss.backward()
    without = [n for n, w in backbone.named_parameters() if w.grad is None]
    assert not without, f"these weights do nothing: {without}"
    broken = [n for n, w in backbone.named_parameters() if not w.grad.isfinite().all()]
    assert not broken, f"these gradients are not finite: {broken}"


@every_model
def test_checkpoint_restores_the_prediction_bit_for_bit(name, tmp_path):
    backbone = tiny(name)
    settings = {"channels": C, "dims": 2, **TINY[name]}
    spec = ModelSpec(name, settings, "velocity", 1.0, Normalizer.unit_range(C), (7, 9))
    save_checkpoint(tmp_path / "a.safetensors", spec, backbone.state_dict())
    flow, read = load_checkpoint(tmp_path / "a.safetensors")
    assert read == spec
    x_t, coords, obs = inputs()
    for t in (0.0, 0.4):
        before, after = (f(x_t, times(t), coords, obs) for f in (backbone, flow.backbone))
        assert torch.equal(before, after)


@pytest.mark.parametrize("t", [0.0, 0.7])
@every_model
def test_padding_is_inert_whatever_it_holds(name, t):
    backbone, (x_t, coords, obs) = tiny(name), inputs()
    expected = backbone(x_t, times(t), coords, obs)
    padded = obs.pad(M + 6)
    assert_same(backbone(x_t, times(t), coords, padded), expected)
    spoilt = padded.pad(M + 6)
    for field in (spoilt.coords, spoilt.values):
        field[~spoilt.valid] = 0.37
    assert_same(backbone(x_t, times(t), coords, spoilt), expected)


@every_model
def test_sets_of_different_size_share_a_batch(name):
    backbone, (x_t, coords, obs) = tiny(name), inputs()
    few = Observation(obs.coords[1, :4], obs.values[1, :4])
    both = Observation.stack([Observation(obs.coords[0], obs.values[0]), few])
    together = backbone(x_t, times(0.7), coords, both)
    alone = backbone(x_t[1:], times(0.7)[1:], coords[1:], few.batched())
    assert_same(together[1:], alone)


@every_model
def test_a_single_observation_is_enough(name):
    backbone, (x_t, coords, obs) = tiny(name), inputs()
    one = Observation(obs.coords[:, :1], obs.values[:, :1])
    for t in (0.0, 0.7):
        assert backbone(x_t, times(t), coords, one).isfinite().all()


@every_model
def test_repeated_calls_agree(name):
    backbone, (x_t, coords, obs) = tiny(name), inputs()
    first, second = (backbone(x_t, times(0.7), coords, obs) for _ in range(2))
    assert torch.equal(first, second)


@every_model
def test_preparing_once_changes_nothing(name):
    backbone, (x_t, coords, obs) = tiny(name), inputs()
    prepared = backbone.prepare(coords, obs)
    for t in (0.0, 0.7):
        once = backbone(x_t, times(t), coords, obs, prepared)
        assert_same(once, backbone(x_t, times(t), coords, obs))


@every_model
def test_items_of_a_batch_ignore_each_other(name):
    backbone, (x_t, coords, obs) = tiny(name), inputs()
    t = torch.tensor([0.2, 0.7])
    both = backbone(x_t, t, coords, obs)
    one = Observation(obs.coords[1:], obs.values[1:])
    assert_same(both[1:], backbone(x_t[1:], t[1:], coords[1:], one))


@every_flow_model
def test_noisy_values_reach_the_output_at_every_point(name):
    """The seeds' decoder never saw x_t, so no velocity could be learnt."""
    backbone, (x_t, coords, obs) = tiny(name), inputs()
    x_t.requires_grad_()
    prediction = backbone(x_t, times(0.5), coords, obs)
    for point in (0, 31, 62):
        (slope,) = torch.autograd.grad(prediction[1, point].sum(), x_t, retain_graph=True)
        assert (slope[1, point].abs() > 1e-6).all()
        assert (slope[0] == 0).all()


@every_flow_model
def test_time_matters(name):
    backbone, (x_t, coords, obs) = tiny(name), inputs()
    prediction = backbone(x_t, times(0.5), coords, obs)
    later = backbone(x_t, times(0.6), coords, obs)
    assert (prediction - later).abs().max() > 1e-3


@every_model
def test_observations_matter(name):
    backbone, (x_t, coords, obs) = tiny(name), inputs()
    prediction = backbone(x_t, times(0.5), coords, obs)
    elsewhere = backbone(x_t, times(0.5), coords, Observation(obs.coords, obs.values + 1))
    assert (prediction - elsewhere).abs().max() > 1e-3


@pytest.mark.parametrize("name", [n for n, m in MODELS.items() if m.claims.query_invariant])
def test_mean_at_a_point_does_not_depend_on_the_other_queries(name):
    backbone, (x_t, coords, obs) = tiny(name), inputs()

    def mean(chosen):
        return backbone(x_t[:, chosen], times(0.0), coords[:, chosen], obs)

    points = torch.arange(63)
    expected = mean(points)
    shuffled = torch.randperm(63)
    assert_same(mean(shuffled), expected[:, shuffled])
    assert_same(mean(points[5:6]), expected[:, 5:6])
    assert_same(torch.cat([mean(part) for part in points.split(20)], dim=1), expected)
    assert_same(mean(points.repeat(2))[:, :63], expected)
    assert_same(backbone(torch.randn_like(x_t), times(0.0), coords, obs), expected)


@pytest.mark.parametrize("t", [0.0, 0.7])
@pytest.mark.parametrize("name", [n for n, m in MODELS.items() if m.claims.order_invariant])
def test_order_of_points_does_not_matter(name, t):
    backbone, (x_t, coords, obs) = tiny(name), inputs()
    expected = backbone(x_t, times(t), coords, obs)
    rows, points = torch.randperm(M), torch.randperm(63)
    shuffled = Observation(obs.coords[:, rows], obs.values[:, rows])
    assert_same(backbone(x_t, times(t), coords, shuffled), expected)
    assert_same(backbone(x_t[:, points], times(t), coords[:, points], obs), expected[:, points])


@every_model
def test_default_settings_describe_the_model(name):
    defaults = model_defaults(name)
    assert {"channels", "dims"} <= defaults.keys()
    for key in TINY[name]:
        assert key in defaults


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("v2", {"layers": 12, "iterations": 3, "heads": 16}),
        ("v1", {"layers": 1, "heads": 1, "order": "raster"}),
    ],
)
def test_other_sizes_build_and_run(name, settings):
    backbone = build_model(name, **{"width": 32, "features": 7, "state": 2, **settings})
    x_t, coords, obs = inputs(channels=3)
    assert backbone(x_t, times(0.5), coords, obs).shape == x_t.shape


def test_bad_settings_say_what_is_possible():
    with pytest.raises(InputError, match="unknown model 'v9'.*hybrid.*v1, v2"):
        build_model("v9")
    with pytest.raises(InputError, match="unknown setting of model v1 'depth'.*layers"):
        build_model("v1", depth=3)
    with pytest.raises(InputError, match="model v2: layers=3 cannot be split"):
        build_model("v2", layers=3)
    with pytest.raises(InputError, match="model v1: width 30 is not divisible by 4 heads"):
        build_model("v1", width=30, heads=4)


@every_model
def test_every_model_carries_a_flow(name):
    x_t, coords, obs = inputs()
    flow = Flow(tiny(name), "data", time_shift=3.0)
    assert flow.velocity(x_t, times(0.5), coords, obs).shape == x_t.shape
    assert flow.posterior_mean(x_t, coords, obs).shape == x_t.shape
