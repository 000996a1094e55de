"""Flows of the residual around an interpolation of the observations."""

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Query
from sparsefield.flow.residual import INTERPOLATIONS, interpolate, standardise
from sparsefield.inference.checkpoint import ModelSpec

B, M, L, C = 2, 23, 11, 3
every = pytest.mark.parametrize("name", INTERPOLATIONS)
# Every backbone once, every interpolation once: neither knows of the other.
FRESH = [
    ("v1", "nearest", {"layers": 1}),
    ("v2", "inverse_distance", {"layers": 2, "iterations": 1}),
    ("transformer", "kriging", {"layers": 1}),
    ("local", "kriging", {"layers": 1}),
    ("perceiver_io", "kriging", {"latents": 7, "iterations": 1}),
]


def observe(dims, count=M, valid=None):
    values = torch.randn(B, count, C)
    return Observation(torch.rand(B, count, dims) * 2 - 1, values, valid=valid)


def at(name, obs, coords):
    return interpolate(name, standardise(name, obs), coords)


@every
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_an_affine_change_of_the_values_moves_the_interpolation_along(name, dims):
    torch.manual_seed(0)
    obs, coords = observe(dims), torch.rand(B, L, dims) * 2 - 1
    moved = Observation(obs.coords, 3 * obs.values - 2)
    (mean, size), (other, larger) = (at(name, each, coords) for each in (obs, moved))
    torch.testing.assert_close(other, 3 * mean - 2, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(larger, 3 * size, atol=1e-4, rtol=1e-4)


@every
def test_padding_and_other_queries_change_nothing(name):
    torch.manual_seed(0)
    obs, coords = observe(2, 4), torch.rand(B, L, 2) * 2 - 1
    for count in (4, 9):
        mean, size = at(name, obs.pad(count), coords[:, 3:5])
        expected, own = at(name, obs, coords)
        torch.testing.assert_close(mean, expected[:, 3:5], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(size, own[:, 3:5], atol=1e-5, rtol=1e-5)


@every
@pytest.mark.parametrize("valid", [[[True], [True]], [[True, False], [True, True]]])
def test_one_observation_is_enough(name, valid):
    obs = observe(2, len(valid[0]), torch.tensor(valid))
    mean, size = at(name, obs, torch.rand(B, L, 2))
    assert mean.isfinite().all()
    assert (size > 0).all()
    torch.testing.assert_close(mean[0], obs.values[0, :1].expand(L, C))


def test_kriging_honours_the_observations_and_a_constant():
    torch.manual_seed(0)
    obs = observe(2)
    mean, size = at("kriging", obs, obs.coords)
    far = at("kriging", obs, torch.rand(B, L, 2) * 2 - 1).size
    torch.testing.assert_close(mean, obs.values, atol=0.05, rtol=0)
    assert size.max() < far.median()
    constant = Observation(obs.coords, torch.full_like(obs.values, 0.7))
    found = at("kriging", constant, torch.rand(B, L, 2)).mean
    torch.testing.assert_close(found, torch.full_like(found, 0.7), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("model", "name", "small"), FRESH)
def test_a_fresh_model_is_the_interpolation(model, name, small):
    torch.manual_seed(0)
    settings = {"channels": C, "width": 16, "heads": 2, "features": 3, "near": 5, **small}
    normalizer = Normalizer.unit_range(C)
    spec = ModelSpec(model, settings, "correction", 4.0, normalizer, (5, 7), residual=name)
    flow, obs = spec.build().eval(), observe(2)
    query = Query(torch.rand(B, L, 2) * 2 - 1, obs)
    prepared = flow.prepare(query, flow.encode(obs))
    mean = flow.posterior_mean(torch.randn(B, L, C), query, prepared)
    torch.testing.assert_close(mean, at(name, obs, query.coords).mean)


def test_the_true_residual_gives_the_data_back():
    torch.manual_seed(0)
    settings = {"channels": C, "width": 8, "layers": 1, "heads": 2, "features": 3}
    spec = ModelSpec("v1", settings, "data", 4.0, Normalizer.unit_range(C), (5, 7))
    flow, obs = ModelSpec(**{**vars(spec), "residual": "kriging"}).build(), observe(2)
    query, x_1 = Query(torch.rand(B, L, 2) * 2 - 1, obs), torch.randn(B, L, C)
    mean, size = at("kriging", obs, query.coords)
    flow.backbone.forward = lambda *args: (x_1 - mean) / size
    x_t, t = torch.randn(B, L, C), torch.tensor([0.3, 0.8])
    torch.testing.assert_close(flow.denoise(x_t, t, query), x_1)


def test_an_unknown_residual_is_refused():
    with pytest.raises(InputError, match="unknown residual 'cubic'.*kriging"):
        standardise("cubic", observe(2))
