"""From observations to a posterior, and from it to fields in physical units."""

import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid, Points
from sparsefield.flow.backbone import Backbone, Claims
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import ModelSpec, save_checkpoint
from sparsefield.inference.model import Model, load
from sparsefield.inference.reconstruction import reconstruct
from sparsefield.samplers import SAMPLERS, Exponential, Heun, build_sampler

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


@pytest.fixture
def celled():
    spec = ModelSpec("hybrid", {"cells": True}, "data", 1.0, NORMALIZER, SHAPE)
    return Model("celled", Flow(Celled(), "data"), spec)


def test_field_comes_in_physical_units_on_the_training_grid(model):
    field = model.condition(observe()).mean()
    assert field.shape == SHAPE
    assert field.on_grid().shape == (*SHAPE, C)
    unseen = torch.ones(30, dtype=torch.bool)
    unseen[torch.cdist(field.coords, field.obs.coords).argmin(0)] = False
    expected = NORMALIZER.invert(field.coords[:, :1].expand(-1, C))
    torch.testing.assert_close(field.mean[unseen], expected[unseen])


def test_the_grid_that_was_observed_is_the_default_where_it_is_known(model):
    obs = observe()
    fine = Observation(obs.coords, obs.values, grid=(10, 12))
    assert model.condition(fine).mean().shape == (10, 12)


def test_observed_values_are_reproduced_exactly(model):
    obs = observe()
    field = model.condition(obs).sample(n=3)
    rows = torch.cdist(field.coords, obs.coords).argmin(0)
    for mean in (field.mean, model.condition(obs).mean().mean):
        assert torch.equal(mean[rows], obs.values)
    assert torch.equal(field.samples[:, rows], obs.values.expand(3, -1, -1))
    assert (field.std[rows] == 0).all()


def test_grids_share_the_values_at_shared_points(model):
    posterior = model.condition(observe())
    fine = posterior.mean(Grid(15, 18))
    np.testing.assert_allclose(fine.on_grid()[1::3, 1::3], posterior.mean().on_grid(), rtol=1e-6)


def test_cells_have_their_own_values_on_demand(celled):
    obs = observe()
    posterior = celled.condition(obs)
    coarse, fine = posterior.mean(), posterior.mean(Grid(15, 18))
    np.testing.assert_allclose(fine.on_grid()[1::3, 1::3], coarse.on_grid(), rtol=1e-6)
    own = posterior.sample(Grid(15, 18, native=True), 2)
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


def test_a_native_grid_that_means_nothing_is_refused(model, celled):
    posterior = celled.condition(observe())
    with pytest.raises(InputError, match="same factor along all axes; \\[10, 18\\] does not"):
        posterior.mean(Grid(10, 18, native=True))
    with pytest.raises(InputError, match="a native grid asks for others"):
        posterior.recalibrated(Grid(15, 18, native=True))
    with pytest.raises(InputError, match="knows no cells but those observed"):
        model.condition(observe()).mean(Grid(*SHAPE, native=True))


def test_noise_is_white_on_the_observed_grid_and_a_function_between(model):
    obs, sampler = observe(), Exponential(2)
    posterior = model.condition(obs)
    coarse = posterior.sample(None, 2, sampler=sampler)
    fine = posterior.sample(Grid(15, 18), 2, sampler=sampler)
    shared = fine.on_grid(fine.samples)[:, 1::3, 1::3]
    np.testing.assert_allclose(shared, coarse.on_grid(coarse.samples), rtol=1e-4, atol=1e-3)
    # on another observed grid the same seed is another field
    other = model.condition(Observation(obs.coords, obs.values, grid=(10, 12)))
    moved = other.sample(Grid(*SHAPE), 2, sampler=sampler)
    assert not torch.allclose(moved.samples, coarse.samples)


def test_observed_grid_is_that_of_training_or_finer_for_more_observations(model):
    spec = model.spec
    assert spec.observed_grid(1) == spec.observed_grid(30) == SHAPE
    assert spec.observed_grid(31) == spec.observed_grid(120) == (10, 12)
    assert spec.observed_grid(121) == (20, 24)


def test_free_points_need_no_grid(model):
    points = Points(np.random.default_rng(0).uniform(-1, 1, (7, 2)))
    field = model.condition(observe()).mean(points)
    assert field.mean.shape == (7, C)
    assert field.shape is None
    with pytest.raises(InputError, match="form no grid"):
        field.on_grid()


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_depend_on_the_seed_and_on_nothing_else(model, name):
    posterior, sampler = model.condition(observe()), build_sampler(name, 4)
    one, same = (posterior.sample(None, 3, sampler=sampler, seed=0) for _ in range(2))
    assert torch.equal(one.samples, same.samples)
    more = posterior.sample(None, 5, sampler=sampler, seed=0)
    torch.testing.assert_close(more.samples[:3], one.samples)
    other = posterior.sample(None, 3, sampler=sampler, seed=1)
    assert not torch.allclose(one.samples, other.samples)
    assert not torch.allclose(one.samples[0], one.samples[1])


@pytest.mark.parametrize("noise", [None, 0.3])
@pytest.mark.parametrize("name", ["deis", "dopri5"])
def test_samples_made_in_groups_are_the_same_as_all_at_once(model, monkeypatch, name, noise):
    obs, sampler = observe(), build_sampler(name)
    posterior = model.condition(Observation(obs.coords, obs.values, noise))
    together = posterior.sample(None, 5, sampler=sampler)
    monkeypatch.setattr("sparsefield.inference.posterior.CHUNK", 2 * 5 * 6)
    apart = posterior.sample(None, 5, sampler=sampler)
    torch.testing.assert_close(apart.samples, together.samples)
    assert apart.nfe == together.nfe


def test_stated_noise_moves_observed_values_and_leaves_uncertainty_at_them(model):
    obs = observe()
    rows = torch.cdist(cell_centres(SHAPE), obs.coords).argmin(0)
    noisy = Observation(obs.coords, obs.values, [[5.0, 0.2]])
    field = model.condition(noisy).sample(None, 6, sampler=Exponential(2, grid="late"))
    assert not torch.allclose(field.mean[rows], obs.values, rtol=1e-4)
    assert (field.std[rows] > 0).all()
    assert (field.std[rows] < torch.tensor([8.0, 0.4])).all()


def test_deviation_is_that_of_the_samples_and_needs_two_of_them(model):
    posterior = model.condition(observe())
    field = posterior.sample(n=4)
    torch.testing.assert_close(field.std, field.samples.std(0))
    assert posterior.sample(n=1).std is None
    assert posterior.mean().samples is None


def test_quantiles_are_ranks_of_the_samples(model):
    posterior = model.condition(observe())
    field = posterior.sample(n=9)
    ordered = field.samples.sort(dim=0).values
    low, median, high = field.quantiles((0.1, 0.5, 0.9))
    torch.testing.assert_close(low, ordered[0])
    torch.testing.assert_close(median, ordered[4])
    torch.testing.assert_close(high, ordered[8])
    with pytest.raises(InputError, match="levels from 0 to 1"):
        field.quantiles((5,))
    with pytest.raises(InputError, match="ask for samples"):
        posterior.mean().quantiles()


class Counted(Sloped):
    """Counts the calls of every stage, and in how many items and points."""

    def __init__(self):
        super().__init__()
        self.encoded, self.prepared, self.evaluated = [], [], []

    def encode(self, obs):
        self.encoded.append(len(obs.coords))
        return obs.values.mean(1, keepdim=True)

    def prepare(self, query, encoded=None):
        assert encoded is not None
        self.prepared.append(query.coords.shape[1])
        return encoded

    def forward(self, x_t, t, query, prepared=None):
        assert prepared is not None
        assert len(prepared) == len(x_t)
        self.evaluated.append(len(x_t))
        return super().forward(x_t, t, query, prepared)


def counted(normalizer=NORMALIZER):
    spec = ModelSpec("v1", {}, "data", 1.0, normalizer, SHAPE)
    return Model("counted", Flow(Counted(), "data"), spec)


def test_observations_are_encoded_once_whatever_is_asked():
    model = counted()
    posterior, backbone = model.condition(observe(), chunk=7), model.flow.backbone
    assert backbone.encoded == [1]
    posterior.mean()
    assert backbone.prepared == [7, 7, 7, 7, 2]
    posterior.mean(Grid(10, 12))
    posterior.sample(Points(torch.rand(11, 2)), 5, sampler=Heun(4))
    posterior.sample(None, 9, seed=3)
    posterior.within(None, 40)
    assert backbone.encoded == [1]


def test_queries_are_prepared_once_for_the_mean_and_all_samples():
    model = counted()
    posterior = model.condition(observe())
    posterior.sample(Grid(10, 12), 5, sampler=Heun(4))
    assert model.flow.backbone.prepared == [120]


def test_noisy_observations_are_encoded_once_for_the_mean_and_once_for_each_sample():
    model, obs = counted(), observe()
    posterior = model.condition(Observation(obs.coords, obs.values, 0.3))
    posterior.mean()
    posterior.mean(Grid(10, 12))
    assert model.flow.backbone.encoded == [1]
    posterior.sample(None, 5)
    assert model.flow.backbone.encoded == [1, 5]


def test_nfe_is_one_evaluation_for_the_mean_and_the_sampler_s_for_every_sample():
    model = counted()
    field = model.condition(observe()).sample(None, 3, sampler=Heun(4))
    assert field.nfe == sum(model.flow.backbone.evaluated) == 1 + 3 * 7
    assert field.seconds > 0


@pytest.mark.parametrize(
    ("nfe", "samples", "spent"),
    [(1, 0, 1), (2, 1, 2), (11, 1, 11), (20, 1, 20), (21, 2, 21), (45, 4, 45)],
)
def test_a_budget_is_spent(model, nfe, samples, spent):
    field = model.condition(observe()).within(None, nfe)
    assert field.nfe == spent
    if not samples:
        assert field.samples is None
        assert field.estimate is field.mean
    else:
        assert len(field.samples) == samples
        torch.testing.assert_close(field.estimate, field.samples.mean(0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_observations_of_any_floating_type_are_taken(model, dtype):
    field = model.condition(observe(dtype)).sample(n=2)
    assert field.mean.dtype == field.samples.dtype == torch.float32


def test_values_stay_within_a_known_range(model):
    bounded = Normalizer((280.0, -3.0), (10.0, 0.5), low=-3.0, high=281.0)
    spec = ModelSpec("v1", {}, "data", 1.0, bounded, SHAPE)
    bounded_model, obs = Model("bounded", model.flow, spec), observe()
    inside = Observation(obs.coords, obs.values.clamp(-3, 281))
    field = bounded_model.condition(inside).sample(Points([[0.9, 0]]), 2)
    for values in (field.mean, field.samples):
        assert values.min() >= -3
        assert values.max() <= 281
    with pytest.raises(InputError, match=r"takes values in \[-3, 281\]; observations reach"):
        bounded_model.condition(obs)


def test_results_that_are_not_finite_are_refused(model):
    model.flow.backbone.weight.data.fill_(float("nan"))
    posterior = model.condition(observe())
    for ask in (posterior.mean, posterior.sample):
        with pytest.raises(InputError, match="not finite.*weights may be damaged"):
            ask()


def at(dims):
    return Observation(torch.zeros(1, dims), torch.tensor([NORMALIZER.offset]))


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (at(3), "works in 2 dimensions; observations have 3"),
        (Observation(torch.zeros(1, 2), torch.zeros(1, 3)), "2 channels; observations have 3"),
        (at(2).batched(), "observations of one field"),
    ],
)
def test_observations_that_do_not_fit_are_one_clear_line(model, obs, message):
    with pytest.raises(InputError, match=message) as error:
        model.condition(obs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda p: p.mean(Grid(3, 4, 5)), "works in 2 dimensions; Grid.3, 4, 5. has 3"),
        (lambda p: p.mean(Points([[0.0, 0.0, 0.0]])), "works in 2 dimensions"),
        (lambda p: p.mean(Grid(2, 3, 2, 3)), "works in 2 dimensions; Grid.2, 3, 2, 3. has 4"),
        (lambda p: p.mean((3, 4)), "at sf.Grid.64, 64. or at sf.Points.coords., not at tuple"),
        (lambda p: p.mean(seed=-1), "seed at least 0"),
        (lambda p: p.sample(None, 0), "samples must be at least 1"),
        (lambda p: p.sample(None, 2, seed=-1), "seed at least 0"),
        (lambda p: p.sample(None, 2, sampler="heun"), "not str; 'heun' is Heun.steps=10"),
        (lambda p: p.sample(None, 2, sampler=7), "one of sf.samplers.*not int"),
        (lambda p: p.within(None, 0), "at least 1 evaluation, not 0"),
        (lambda p: p.mean(Grid(100_000, 100_000)), r"100000, 100000.*would take 8\d\d.* GiB"),
        (lambda p: p.sample(Grid(1000, 1000), 10**6), "1,000,000 samples, would take .* TiB"),
    ],
)
def test_queries_that_do_not_fit_are_one_clear_line_before_any_work(model, ask, message):
    posterior = model.condition(observe())
    start = time.perf_counter()
    with pytest.raises(InputError, match=message) as error:
        ask(posterior)
    assert "\n" not in str(error.value)
    assert time.perf_counter() - start < 1


def test_everything_says_what_it_is_in_one_line(model):
    posterior = model.condition(observe())
    said = {
        repr(model): "Model('sloped', v1, 2-D, 2 channels, trained on 5 x 6, ",
        repr(posterior): "Posterior('sloped' given 9 points)",
        repr(posterior.mean()): "Field(Grid(5, 6), 2 channels, 0 samples, from 9 observations, ",
    }
    for text, start in said.items():
        assert text.startswith(start)
        assert "\n" not in text


def test_a_field_is_written_and_read_again(model, tmp_path):
    field = model.condition(observe()).sample(n=3)
    field.save(tmp_path / "new" / "field.npz")
    with np.load(tmp_path / "new" / "field.npz") as written:
        assert written["mean"].shape == (*SHAPE, C)
        assert written["samples"].shape == (3, *SHAPE, C)
        np.testing.assert_array_equal(written["mean"], field.on_grid())
        assert written["levels"].tolist() == [0.25, 0.5, 0.75]
    points = model.condition(observe()).mean(Points([[0.1, 0.2]]))
    points.save(tmp_path / "points.npz")
    with np.load(tmp_path / "points.npz") as written:
        assert written["mean"].shape == (1, C)
    with pytest.raises(InputError, match="suffix must be"):
        field.save(tmp_path / "field.docx")


def test_xarray_is_asked_for_by_name_where_it_is_missing(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(InputError, match="needs xarray: install sparsefield.geo."):
        model.condition(observe()).mean().to_xarray()


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
    obs = observe()
    field = reconstruct(tmp_path, obs, Grid(7, 8), samples=2, sampler=Heun(2), seed=4)
    assert field.samples.shape == (2, 56, C)
    assert field.samples.isfinite().all()
    same = model.condition(obs).sample(Grid(7, 8), 2, sampler=Heun(2), seed=4)
    assert torch.equal(field.samples, same.samples)
    assert torch.equal(reconstruct(model, obs).mean, model.condition(obs).mean().mean)
    with pytest.raises(InputError, match="at least 0, not -1"):
        reconstruct(model, obs, samples=-1)
