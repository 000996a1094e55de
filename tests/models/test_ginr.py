"""Mamba-GINR: what its encoder keeps, what its decoder reads, and what it learns."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsefield.cli import main
from sparsefield.data.dataset import open_dataset
from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation
from sparsefield.data.photographs import photographs
from sparsefield.data.query import Grid
from sparsefield.flow.backbone import Query
from sparsefield.flow.flow import Flow
from sparsefield.inference.model import load
from sparsefield.models import MODELS, build_model, model_defaults
from sparsefield.models.ginr.encoder import curve_points
from sparsefield.models.ginr.layers import GaussianFourier, PlaceAttention
from sparsefield.models.ginr.patches import cut_patches, grid_shape
from sparsefield.training.config import OptimizerConfig, load_config
from sparsefield.training.state import TrainState

NAMES = [name for name, model in MODELS.items() if model.claims.autoencoder]
JITTERED = [name for name in NAMES if name != "ginr"]
C = 3
SMALL = {"width": 32, "positions": 64, "state": 4, "hidden": 32}
every_ginr = pytest.mark.parametrize("name", NAMES)


def build(name, dims=2, **settings):
    return build_model(name, channels=C, dims=dims, **{**SMALL, **settings}).eval()


def whole(shape, batch=2):
    """Return the observation of a whole random field on a grid, and its points."""
    coords = cell_centres(shape).expand(batch, -1, -1)
    return Observation(coords, torch.randn(batch, coords.shape[1], C)), coords


def decode(backbone, obs, coords, seed=0):
    x_t = torch.randn(*coords.shape[:2], C, generator=torch.Generator().manual_seed(seed))
    return backbone(x_t, torch.zeros(len(coords)), Query(coords, obs))


def assert_same(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("shape", [(7,), (6, 8), (5, 6), (4, 3, 5)])
def test_a_whole_field_is_cut_along_its_own_grid(shape):
    obs, _ = whole(shape)
    shuffled = torch.randperm(obs.count)
    points = Observation(obs.coords[:, shuffled], obs.values[:, shuffled])
    assert grid_shape(points, cells=32).tolist() == [list(shape)] * 2
    patches = cut_patches(points, cells=32)
    count = math.prod(math.ceil(n / 2) for n in shape)
    assert patches.valid.shape == (2, count)
    assert patches.valid.all()
    cells = patches.values.unflatten(-1, (2 ** len(shape), C + 1))
    assert cells[..., -1].sum() == 2 * math.prod(shape)
    assert_same(cells[..., :-1].sum((1, 2)), obs.values.sum(1), 1e-4)
    assert_same(patches.spacing[:, 0], 2 / torch.tensor([shape] * 2))


def test_a_patch_holds_its_four_cells_in_order():
    field = torch.arange(16.0).reshape(1, 16, 1)
    patches = cut_patches(Observation(cell_centres((4, 4))[None], field), cells=32)
    cells = patches.values.unflatten(-1, (4, 2))[0, :, :, 0]
    assert cells.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert patches.centres[0].tolist() == [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]


def test_scattered_points_fill_the_cells_of_the_default_grid():
    coords = torch.tensor([[-0.9, -0.9], [-0.95, -0.8], [0.3, 0.9], [1.0, -1.0]])
    obs = Observation(coords, torch.tensor([[1.0], [3.0], [7.0], [8.0]])).batched()
    assert grid_shape(obs, cells=4).tolist() == [[4, 4]]
    patches = cut_patches(obs, cells=4)
    assert patches.valid.tolist() == [[True, False, True, True]]
    cells = patches.values.unflatten(-1, (4, 2))[0]
    assert cells[0, 0].tolist() == [2.0, 1.0]
    assert cells[3, 1].tolist() == [7.0, 1.0]
    assert cells[2, 2].tolist() == [8.0, 1.0]
    assert cells[..., 1].sum() == 3


def test_points_on_a_line_or_off_their_centres_fill_no_grid():
    for coords in (torch.rand(9, 1) * 2 - 1, torch.zeros(1, 2), cell_centres((4, 4))[:15]):
        obs = Observation(coords, torch.zeros(len(coords), 1)).batched()
        assert (grid_shape(obs, cells=32) == 32).all()
    vertices = torch.cartesian_prod(torch.linspace(-1, 1, 4), torch.linspace(-1, 1, 4))
    obs = Observation(vertices, torch.zeros(16, 1)).batched()
    assert (grid_shape(obs, cells=32) == 32).all()


def test_mirrored_fields_keep_their_grid():
    obs, coords = whole((32, 24))
    mirrored = Observation(-coords, obs.values)
    assert grid_shape(mirrored, cells=8).tolist() == [[32, 24]] * 2


def test_position_tokens_alternate_with_as_many_patches():
    encoder = build("ginr").encoder
    order, rank, valid = encoder._arrange(cut_patches(whole((16, 16))[0], cells=32))
    assert valid is None
    assert torch.equal(order >= 64, torch.arange(128).expand(2, -1) % 2 == 1)
    assert torch.equal(rank.sort(dim=1).values, torch.arange(1, 128, 2).expand(2, -1))
    assert torch.equal(order.gather(1, rank), torch.arange(64, 128).expand(2, -1))


@pytest.mark.parametrize("side", [8, 16, 32])
def test_position_tokens_are_equidistant_among_any_number_of_patches(side):
    encoder = build("ginr").encoder
    order, rank, _ = encoder._arrange(cut_patches(whole((side, side))[0], cells=32))
    assert order.shape == (2, side * side // 4 + 64)
    gaps = rank[0].sort().values.diff().float()
    ratio = 1 + side * side / 4 / 64
    assert gaps.mean() == pytest.approx(ratio, rel=0.05)
    assert (gaps - ratio).abs().max() <= ratio


def test_position_tokens_stand_behind_the_patches_where_attention_finds_them():
    encoder = build("ginr_scent").encoder
    order, rank, _ = encoder._arrange(cut_patches(whole((16, 16))[0], cells=32))
    assert (order[:, :64] < 64).all()
    assert (order[:, 64:] >= 64).all()
    assert torch.equal(rank, torch.arange(64, 128).expand(2, -1).gather(1, (rank - 64)))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_locations_cover_the_domain_evenly(dims):
    points = curve_points("hilbert", 64, dims)
    assert points.shape == (64, dims)
    assert len(points.unique(dim=0)) == 64
    assert_same(points.mean(0), torch.zeros(dims))


@every_ginr
def test_code_has_one_size_whatever_was_observed(name):
    backbone = build(name)
    dense, coords = whole((16, 16))
    sparse = Observation(coords[:, :40], dense.values[:, :40])
    lone = Observation(coords[:, :1], dense.values[:, :1])
    for obs in (dense, sparse, lone, whole((24, 32))[0]):
        code = backbone.encode(obs)
        assert code.tokens.shape == (2, 64, 32)
        assert code.tokens.isfinite().all()
        assert decode(backbone, obs, coords).isfinite().all()


@every_ginr
def test_masked_patches_are_inert(name):
    """What lies in an unobserved patch, or that another item has it, changes nothing."""
    backbone = build(name)
    obs, coords = whole((16, 16))
    left = (coords[0, :, 1] < 0).expand(2, -1).clone()
    left[1] = True
    masked = Observation(obs.coords, obs.values, valid=left)
    other = Observation(obs.coords, obs.values.masked_fill(~left[..., None], 5.0), valid=left)
    expected = decode(backbone, masked, coords)
    assert torch.equal(decode(backbone, other, coords), expected)
    half = Observation(coords[:1, left[0]], obs.values[:1, left[0]])
    assert_same(decode(backbone, half, coords[:1]), expected[:1])
    assert_same(
        decode(backbone, Observation(obs.coords[1:], obs.values[1:]), coords[1:]), expected[1:]
    )


@every_ginr
def test_same_input_gives_the_same_field_twice_and_from_two_equal_models(name):
    obs, coords = whole((16, 16))
    torch.manual_seed(1)
    first = build(name)
    torch.manual_seed(1)
    second = build(name)
    expected = decode(first, obs, coords)
    assert torch.equal(decode(first, obs, coords, seed=5), expected)
    assert torch.equal(decode(second, obs, coords), expected)


@every_ginr
@pytest.mark.parametrize(
    ("shape", "fine"), [((18,), (54,)), ((6, 8), (18, 24)), ((4, 4, 6), (12, 12, 18))]
)
def test_a_finer_grid_shares_the_values_at_shared_points(name, shape, fine):
    backbone = build(name, dims=len(shape), positions=16)
    obs, coords = whole(shape)
    dense = cell_centres(fine).expand(2, -1, -1)
    coarse = decode(backbone, obs, coords)
    values = decode(backbone, obs, dense).unflatten(1, fine)
    middle = values[(slice(None), *(slice(1, None, 3) for _ in shape))]
    assert_same(middle.flatten(1, -2), coarse, 1e-4)


@every_ginr
def test_noise_and_time_are_not_read(name):
    backbone = build(name)
    obs, coords = whole((8, 8))
    x_t = torch.randn(2, 64, C)
    expected = backbone(x_t, torch.zeros(2), Query(coords, obs))
    assert torch.equal(backbone(-x_t, torch.ones(2), Query(coords, obs)), expected)


def attention(dims, **settings):
    """Return an attention that reads the tokens as they are, whose logits are distances only."""
    layer = PlaceAttention(6, 4, heads=2, head_width=2, **settings)
    with torch.no_grad():
        layer.query.weight.zero_()
        layer.query.bias.zero_()
    places, locations = torch.rand(2, 11, dims) * 2 - 1, torch.rand(7, dims) * 2 - 1
    return layer, torch.randn(2, 11, 6), places, torch.randn(2, 7, 4), locations


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_distance_counts_in_all_dimensions(dims):
    layer, x, places, tokens, locations = attention(dims)
    squared = (places[:, :, None] - locations).square().sum(-1)
    assert squared.shape == (2, 11, 7)
    weight = (-10.0 * squared).softmax(-1)
    values = layer.key_value(tokens)[..., 4:]
    assert_same(layer(x, places, tokens, locations), layer.out(weight @ values))


def test_scale_of_the_distance_is_learned_for_each_head():
    layer, x, places, tokens, locations = attention(2, scale=3.0)
    assert_same(layer.log_scale.exp(), torch.full((2, 1, 1), 3.0))
    layer(x, places, tokens, locations).square().sum().backward()
    assert (layer.log_scale.grad != 0).all()


@pytest.mark.parametrize(("positions", "dims", "scale"), [(8, 1, 32), (64, 2, 32), (64, 3, 8)])
def test_distance_counts_in_spacings_of_the_position_tokens(positions, dims, scale):
    backbone = build("ginr", dims=dims, positions=positions)
    assert_same(backbone.decoder.attention.log_scale.exp().flatten(), torch.tensor([scale * 1.0]))


def test_fourier_features_are_drawn_once_and_stay_within_their_band():
    one, same = GaussianFourier(2, 50, 8.0), GaussianFourier(2, 50, 8.0)
    assert torch.equal(one.frequencies, same.frequencies)
    other = GaussianFourier(2, 50, 8.0, seed=1)
    assert not torch.equal(one.frequencies, other.frequencies)
    with torch.no_grad():
        one.frequencies.mul_(3)
    norm = one.limited().norm(dim=1)
    assert norm.max() <= 8 + 1e-4
    assert (norm > 7.99).sum() > 10
    assert one(torch.rand(4, 9, 2)).shape == (4, 9, 100)


@pytest.mark.parametrize("name", JITTERED)
def test_jitter_moves_where_tokens_are_read_in_training_only(name):
    backbone, (obs, coords) = build(name), whole((8, 8))
    exact = decode(backbone, obs, coords)
    backbone.train()
    first = decode(backbone, obs, coords)
    assert torch.equal(decode(backbone, obs, coords), first)
    assert (decode(backbone, obs, coords, seed=1) - first).abs().max() > 1e-5
    seen = []
    backbone.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[:2]))
    decode(backbone, *whole((8, 16)))
    asked, read = seen[0]
    assert torch.equal(asked, cell_centres((8, 16)).expand(2, -1, -1))
    cells = (read - asked) * torch.tensor([8, 16]) / 2
    assert_same(cells.std((0, 1)), torch.full((2,), 1 / 6), 0.03)
    assert torch.equal(decode(backbone.eval(), obs, coords), exact)


def test_exact_variant_has_nothing_random_in_training():
    backbone, (obs, coords) = build("ginr"), whole((8, 8))
    exact = decode(backbone, obs, coords)
    assert torch.equal(decode(backbone.train(), obs, coords, seed=1), exact)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("ginr", 12.0), ("ginr_fourier", 8.9), ("ginr_scent", 61.3), ("ginr_hybrid", 63.95)],
)
def test_presets_have_the_size_that_they_are_named_for(name, millions):
    def count(preset):
        settings = dict(load_config(preset).model)
        with torch.device("meta"):
            return sum(w.numel() for w in build_model(**settings).parameters()) / 1e6

    assert count(name) == pytest.approx(millions, rel=0.03)
    assert 1 < count(f"{name}-small") < 2


@pytest.mark.parametrize(
    "name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])]
)
def test_four_photographs_are_learnt_to_35_decibels(name):
    """One image could be learnt by the decoder alone; four need a code."""
    layered = "layers" in model_defaults(name)
    settings, steps = ({"layers": 1}, 240) if layered else ({"blocks": 2}, 110)
    images = photographs(16)
    values = images.normalizer.apply(images.batch(range(4)))
    obs = Observation(images.coords.expand(4, -1, -1), values)
    flow = Flow(build(name, **settings), "data")
    state = TrainState(flow.train(), OptimizerConfig(ema=0.9))
    for step in range(steps):
        noise = torch.randn(4, 256, C)
        error = flow.posterior_mean(noise, Query(obs.coords, obs)) - values
        error.square().mean().backward()
        state.update(8e-3 * min(1, (step + 1) / 20, 2 * (1 - step / steps)))
    error = state.average.posterior_mean(noise, Query(obs.coords, obs)) - values
    psnr = -10 * torch.log10(error.square().mean((1, 2)) / 4)
    assert psnr.min() >= 35, f"psnr: {psnr.tolist()} dB"


@every_ginr
def test_training_and_evaluation_through_the_command_line(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("data.npy", rng.integers(0, 256, (12, 8, 9, 3), dtype=np.uint8))
    settings = [f"model.{key}={value}" for key, value in SMALL.items()]
    settings += ["model.positions=16", "data.validation=4", "data.size=[8,9]", "epochs=1"]
    settings += ["batch_size=4", "data.queries=30"]
    train = ["train", f"{name}-small", "--data", "data.npy", "--run", "run"]
    assert main([*train, *settings]) == 0, capsys.readouterr().err
    evaluate = ["evaluate", "run", "--data", "data.npy", "--density", "1.0", "--baselines", "none"]
    assert main([*evaluate, "--json", "out.json"]) == 0, capsys.readouterr().err
    scores = json.loads(Path("out.json").read_text())["mean"]
    assert 3 < scores["psnr"] < 40, "what is decoded counts, not what was observed"
    assert "psnr_missing" not in scores
    fields = open_dataset("data.npy")
    obs = Observation(fields.coords, fields.batch([0])[0])
    field = load("run").condition(obs).mean(Grid(24, 27))
    assert field.mean.shape == (24 * 27, 3)
    middle = torch.from_numpy(field.on_grid(field.mean)[1::3, 1::3]).flatten(0, 1)
    assert_same(middle, load("run").condition(obs).mean().mean, 1e-4)
    assert (middle - obs.values).abs().max() > 0.01
