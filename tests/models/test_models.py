"""What every backbone promises."""

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Query
from sparsefield.inference.checkpoint import ModelSpec, load_checkpoint, save_checkpoint
from sparsefield.models import ALIASES, MODELS, build_model, find_model, model_defaults
from sparsefield.testing import check_backbone

B, M, C = 2, 17, 5
UNIT = Normalizer.unit_range(C)

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
    "unet": {"widths": "8,12", "blocks": "1,1", "flow_widths": "8,12", "flow_blocks": "1,1"},
    "ginr": {**GINR, "layers": 2, "blocks": 1},
    "ginr_fourier": {**GINR, "layers": 2},
    "ginr_scent": {**GINR, "token_heads": 2, "attention_layers": 1, "blocks": 2},
    "ginr_hybrid": {**GINR, "token_heads": 2, "attention_layers": 1, "blocks": 2},
}
every_model = pytest.mark.parametrize("name", MODELS)


def works_in(name):
    """Return the numbers of dimensions that a model works in."""
    return [2] if name == "unet" else [1, 2, 3, 4]


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


@pytest.mark.parametrize(("name", "dims"), [(n, d) for n in MODELS for d in works_in(n)])
def test_every_model_keeps_the_contract(name, dims):
    check_backbone(tiny(name, dims), C, dims)


def test_the_grid_of_the_u_net_is_two_dimensional():
    with pytest.raises(InputError, match="in 2 dimensions, not in 3"):
        build_model("unet", dims=3)


def test_the_u_net_keeps_the_contract_too_when_it_reads_the_size_of_cells():
    check_backbone(build_model("unet", channels=C, cells=True, **TINY["unet"]), C)


def test_the_hybrid_keeps_it_too_when_it_reads_the_size_of_cells():
    check_backbone(build_model("hybrid", channels=C, cells=True, **TINY["hybrid"]), C)


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_a_model_has_a_name_that_says_what_it_is(alias, name, tmp_path):
    assert find_model(alias) is MODELS[name]
    assert alias == MODELS[name].__module__.rpartition(".")[2]
    spec = ModelSpec(alias, {"channels": C, **TINY[name]}, "data", 1.0, UNIT, (7, 9))
    save_checkpoint(tmp_path / "a.safetensors", spec, spec.build().backbone.state_dict())
    assert type(load_checkpoint(tmp_path / "a.safetensors")[0].backbone) is MODELS[name]


@every_model
def test_checkpoint_restores_the_prediction_bit_for_bit(name, tmp_path):
    backbone = tiny(name)
    settings = {"channels": C, "dims": 2, **TINY[name]}
    spec = ModelSpec(name, settings, "velocity", 1.0, UNIT, (7, 9))
    save_checkpoint(tmp_path / "a.safetensors", spec, backbone.state_dict())
    flow, read = load_checkpoint(tmp_path / "a.safetensors")
    assert read == spec
    x_t, coords, obs = inputs()
    for t in (0.0, 0.4):
        models = (backbone, flow.backbone)
        before, after = (model(x_t, times(t), Query(coords, obs)) for model in models)
        assert torch.equal(before, after)


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
    assert backbone(x_t, times(0.5), Query(coords, obs)).shape == x_t.shape


def test_bad_settings_say_what_is_possible():
    with pytest.raises(InputError, match="unknown model 'v9'.*hybrid.*v1, v2"):
        build_model("v9")
    with pytest.raises(InputError, match="unknown setting of model v1 'depth'.*layers"):
        build_model("v1", depth=3)
    with pytest.raises(InputError, match="model v2: layers=3 cannot be split"):
        build_model("v2", layers=3)
    with pytest.raises(InputError, match="model v1: width 30 is not divisible by 4 heads"):
        build_model("v1", width=30, heads=4)
