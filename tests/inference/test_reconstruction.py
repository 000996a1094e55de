"""From observations to a field, in physical units."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Claims
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import ModelSpec, save_checkpoint
from sparsefield.inference.model import Model, load
from sparsefield.inference.reconstruction import reconstruct
from sparsefield.samplers import SAMPLERS

SHAPE, C, M = (5, 6), 2, 9
NORMALIZER = Normalizer((280.0, -3.0), (10.0, 0.5))


class Sloped(Backbone):
    """Predicts data that rise with the first coordinate and the noise, and checks its input."""

    claims = Claims(query_invariant=True, order_invariant=True, linear_cost=True)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x_t, t, query, prepared=None):
        coords, obs = query.coords, query.obs
        kinds = {x.dtype for x in (x_t, t, coords, obs.coords, obs.values)}
        assert kinds == {torch.float32}
        assert obs.values.abs().max() < 10, "observations come normalised"
        noise = x_t - t[:, None, None] * coords[..., :1]
        return self.weight * (coords[..., :1] + 0.1 * t[:, None, None] * noise)


@pytest.fixture
def model():
    spec = ModelSpec("v1", {}, "data", 1.0, NORMALIZER, SHAPE)
    return Model("sloped", Flow(Sloped(), "data"), spec)


class Celled(Sloped):
    """Adds the size of the cells."""

    claims = replace(Sloped.claims, resolution_aware=True)

    def forward(self, x_t, t, query, prepared=None):
        return super().forward(x_t, t, query) + query.cell[:, None, None]


def observe(dtype=torch.float32):
    coords = cell_centres(SHAPE)[torch.randperm(30)[:M]]
    values = NORMALIZER.invert(torch.randn(M, C))
    return Observation(coords.to(dtype), values.to(dtype))


def test_field_comes_in_physical_units_on_the_training_grid(model):
    field = reconstruct(model, observe())
    assert field.shape == SHAPE
    assert field.on_grid(field.mean).shape == (*SHAPE, C)
    unseen = torch.ones(30, dtype=torch.bool)
    unseen[torch.cdist(field.coords, field.obs.coords).argmin(0)] = False
    expected = NORMALIZER.invert(field.coords[:, :1].expand(-1, C))
    torch.testing.assert_close(field.mean[unseen], expected[unseen])


@pytest.mark.parametrize("samples", [0, 3])
def test_observed_values_are_reproduced_exactly(model, samples):
    obs = observe()
    field = reconstruct(model, obs, samples=samples)
    rows = torch.cdist(field.coords, obs.coords).argmin(0)
    assert torch.equal(field.mean[rows], obs.values)
    if samples:
        assert torch.equal(field.samples[:, rows], obs.values.expand(samples, -1, -1))
        assert (field.std[rows] == 0).all()


def test_grids_share_the_values_at_shared_points(model):
    coarse = reconstruct(model, obs := observe())
    fine = reconstruct(model, obs, shape=(15, 18))
    shared = fine.on_grid(fine.mean)[1::3, 1::3]
    np.testing.assert_allclose(shared, coarse.on_grid(coarse.mean), rtol=1e-6)


def test_cells_have_their_own_values_on_demand(model):
    spec = ModelSpec("hybrid", {"cells": True}, "data", 1.0, NORMALIZER, SHAPE)
    celled, obs = Model("celled", Flow(Celled(), "data"), spec), observe()
    coarse = reconstruct(celled, obs)
    fine = reconstruct(celled, obs, shape=(15, 18))
    shared = fine.on_grid(fine.mean)[1::3, 1::3]
    np.testing.assert_allclose(shared, coarse.on_grid(coarse.mean), rtol=1e-6)
    own = reconstruct(celled, obs, shape=(15, 18), own_cells=True, samples=2)
    steps = (fine.coords[:, None] - obs.coords).abs() * torch.tensor(SHAPE)
    unseen = (steps < 1).all(-1).sum(1) == 0
    expected = fine.mean + (1 / 3 - 1) * torch.tensor(NORMALIZER.scale)
    torch.testing.assert_close(own.mean[unseen], expected[unseen])
    assert (~unseen).sum() == M * 9
    seen = torch.cdist(cell_centres(SHAPE), obs.coords).argmin(0)
    for field in (own.mean, *own.samples):
        means = torch.from_numpy(own.on_grid(field)).unfold(0, 3, 3).unfold(1, 3, 3).mean((-1, -2))
        torch.testing.assert_close(means.flatten(0, 1)[seen], obs.values, atol=1e-4, rtol=1e-5)
    assert own.samples[:, unseen].std(0).mean() > 0
    with pytest.raises(InputError, match="same factor along all axes; \\[10, 18\\] does not"):
        reconstruct(celled, obs, shape=(10, 18), own_cells=True)
    with pytest.raises(InputError, match="own_cells asks for others"):
        reconstruct(celled, obs, shape=(15, 18), own_cells=True, samples=2, recalibrate=True)
    with pytest.raises(InputError, match="give shape="):
        reconstruct(celled, obs, coords=cell_centres(SHAPE), own_cells=True)
    with pytest.raises(InputError, match="knows no cells but those observed"):
        reconstruct(model, obs, own_cells=True)


def test_noise_is_white_on_the_observed_grid_and_a_function_between(model):
    obs = observe()
    coarse = reconstruct(model, obs, samples=2, steps=2)
    fine = reconstruct(model, obs, shape=(15, 18), samples=2, steps=2)
    shared = fine.on_grid(fine.samples)[:, 1::3, 1::3]
    np.testing.assert_allclose(shared, coarse.on_grid(coarse.samples), rtol=1e-4, atol=1e-3)
    # on another observed grid the same seed is another field
    other = reconstruct(model, obs, grid=(10, 12), samples=2, steps=2)
    assert not torch.allclose(other.samples, coarse.samples)


def test_observed_grid_is_that_of_training_or_finer_for_more_observations(model):
    spec = model.spec
    assert spec.observed_grid(1) == spec.observed_grid(30) == SHAPE
    assert spec.observed_grid(31) == spec.observed_grid(120) == (10, 12)
    assert spec.observed_grid(121) == (20, 24)
    with pytest.raises(InputError, match="grid needs 2 numbers of cells, not 1"):
        reconstruct(model, observe(), grid=(5,))


def test_free_points_need_no_grid(model):
    field = reconstruct(model, observe(), coords=np.random.default_rng(0).uniform(-1, 1, (7, 2)))
    assert field.mean.shape == (7, C)
    assert field.shape is None
    with pytest.raises(InputError, match="pass shape="):
        field.on_grid(field.mean)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_depend_on_the_seed_and_on_nothing_else(model, sampler):
    obs = observe()
    settings = {"sampler": sampler, "steps": 4}
    one, same = (reconstruct(model, obs, samples=3, seed=0, **settings) for _ in range(2))
    assert torch.equal(one.samples, same.samples)
    more = reconstruct(model, obs, samples=5, seed=0, **settings)
    torch.testing.assert_close(more.samples[:3], one.samples)
    other = reconstruct(model, obs, samples=3, seed=1, **settings)
    assert not torch.allclose(one.samples, other.samples)
    assert not torch.allclose(one.samples[0], one.samples[1])


@pytest.mark.parametrize("sampler", ["deis", "dopri5"])
def test_draws_made_in_groups_are_the_same_as_all_at_once(model, monkeypatch, sampler):
    obs, how = observe(), {"samples": 5, "noise": 0.3, "sampler": sampler}
    together = reconstruct(model, obs, **how)
    monkeypatch.setattr("sparsefield.inference.reconstruction.CHUNK", 2 * 5 * 6)
    apart = reconstruct(model, obs, **how)
    torch.testing.assert_close(apart.samples, together.samples)
    assert apart.nfe == together.nfe


def test_stated_noise_moves_observed_values_and_leaves_a_spread_at_them(model):
    obs = observe()
    rows = torch.cdist(cell_centres(SHAPE), obs.coords).argmin(0)
    field = reconstruct(model, obs, samples=6, steps=2, noise=(5.0, 0.2))
    assert not torch.allclose(field.mean[rows], obs.values, rtol=1e-4)
    assert (field.std[rows] > 0).all()
    assert (field.std[rows] < torch.tensor([8.0, 0.4])).all()
    exact = reconstruct(model, obs, noise=0.0)
    assert torch.equal(exact.mean[rows], obs.values)


def test_deviation_is_that_of_the_draws_and_needs_two_of_them(model):
    obs = observe()
    field = reconstruct(model, obs, samples=4)
    torch.testing.assert_close(field.std, field.samples.std(0))
    assert reconstruct(model, obs, samples=1).std is None
    assert reconstruct(model, obs).samples is None


def test_quantiles_are_ranks_of_the_draws(model):
    field = reconstruct(model, observe(), samples=9)
    ordered = field.samples.sort(dim=0).values
    low, median, high = field.quantiles((0.1, 0.5, 0.9))
    torch.testing.assert_close(low, ordered[0])
    torch.testing.assert_close(median, ordered[4])
    torch.testing.assert_close(high, ordered[8])
    with pytest.raises(InputError, match="levels from 0 to 1"):
        field.quantiles((5,))
    with pytest.raises(InputError, match="ask for samples"):
        reconstruct(model, observe()).quantiles()


def test_price_is_one_evaluation_for_the_mean_and_the_sampler_s_for_every_draw(model):
    calls = []
    model.flow.backbone.register_forward_hook(lambda m, args, out: calls.append(len(args[0])))
    field = reconstruct(model, observe(), samples=3, sampler="heun", steps=4)
    assert field.nfe == sum(calls) == 1 + 3 * 7
    assert field.seconds > 0


@pytest.mark.parametrize(
    ("nfe", "draws", "spent"),
    [(1, 0, 1), (2, 1, 2), (11, 1, 11), (20, 1, 20), (21, 2, 21), (45, 4, 45)],
)
def test_the_dial_spends_what_it_is_given(model, nfe, draws, spent):
    field = reconstruct(model, observe(), nfe=nfe)
    assert field.nfe == spent
    if not draws:
        assert field.samples is None
        assert field.estimate is field.mean
    else:
        assert len(field.samples) == draws
        torch.testing.assert_close(field.estimate, field.samples.mean(0))


def test_a_dial_and_samples_exclude_each_other(model):
    with pytest.raises(InputError, match="give one of the two"):
        reconstruct(model, observe(), nfe=5, samples=2)
    with pytest.raises(InputError, match="at least 1 evaluation, not 0"):
        reconstruct(model, observe(), nfe=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_observations_of_any_floating_type_are_taken(model, dtype):
    obs = observe(dtype)
    field = reconstruct(model, obs, samples=2, steps=2)
    assert field.mean.dtype == field.samples.dtype == torch.float32


def test_values_stay_within_a_known_range(model):
    bounded = Normalizer((280.0, -3.0), (10.0, 0.5), low=-3.0, high=281.0)
    spec = ModelSpec("v1", {}, "data", 1.0, bounded, SHAPE)
    bounded_model, obs = Model("bounded", model.flow, spec), observe()
    inside = Observation(obs.coords, obs.values.clamp(-3, 281))
    field = reconstruct(bounded_model, inside, samples=2, coords=[[0.9, 0]])
    for values in (field.mean, field.samples):
        assert values.min() >= -3
        assert values.max() <= 281
    with pytest.raises(InputError, match=r"takes values in \[-3, 281\]; observations reach"):
        reconstruct(bounded_model, obs)


def points(dims):
    return Observation(torch.zeros(1, dims), torch.tensor([NORMALIZER.offset]))


@pytest.mark.parametrize(
    ("obs", "settings", "message"),
    [
        (points(3), {}, "works in 2 dimensions; observations have 3"),
        (points(2), {"shape": (3, 4, 5)}, "works in 2 dimensions"),
        (points(2), {"coords": [[0.0, 0.0, 0.0]]}, "works in 2 dimensions"),
        (Observation(torch.zeros(1, 2), torch.zeros(1, 3)), {}, "2 channels; observations have 3"),
        (points(2).batched(), {}, "observations of one field"),
        (points(2), {"shape": (3, 4), "coords": [[0.0, 0.0]]}, "either shape= or coords="),
        (points(2), {"shape": (0, 4)}, "at least one cell"),
        (points(2), {"coords": [[0.0, float("nan")]]}, "coords hold NaN"),
        (points(2), {"samples": -1}, "samples and seed must be at least 0"),
        (points(2), {"seed": -1}, "samples and seed must be at least 0"),
        (points(2), {"samples": 1, "steps": 0}, "at least 1 step"),
        (points(2), {"samples": 1, "sampler": "rk4"}, "unknown sampler 'rk4'"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(model, obs, settings, message):
    with pytest.raises(InputError, match=message) as error:
        reconstruct(model, obs, **settings)
    assert "\n" not in str(error.value)


def test_saved_model_is_loaded_and_used_by_its_path(tmp_path):
    sizes = {"width": 8, "layers": 1, "state": 2, "heads": 2, "features": 3}
    settings = {"channels": C, "dims": 2, **sizes}
    spec = ModelSpec("v1", settings, "velocity", 1.0, NORMALIZER, SHAPE)
    weights = spec.build().backbone.state_dict()
    save_checkpoint(tmp_path / "best.safetensors", spec, weights)
    model = load(tmp_path)
    assert model.parameters == sum(
        weight.numel() for weight in spec.build().parameters() if weight.requires_grad
    )
    field = reconstruct(model, observe(), samples=2, steps=2)
    assert field.samples.shape == (2, 30, C)
    assert field.samples.isfinite().all()
