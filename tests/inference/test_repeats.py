"""Several readings of a place, through a model and the baselines."""

import numpy as np
import pytest
import torch

from sparsefield.baselines.registry import reconstruct_baseline
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.model import Model
from sparsefield.models import build_model
from sparsefield.samplers import Heun

PLACES, READINGS, C, SIGMA = 7, 5, 2, 0.3
SETTINGS = {"width": 24, "layers": 2, "heads": 4, "neighbours": 5, "features": 6}


@pytest.fixture
def model():
    torch.manual_seed(0)
    backbone = build_model("local", channels=C, dims=2, **SETTINGS)
    with torch.no_grad():
        for weight in backbone.parameters():  # none is zero, so that every value matters
            weight.add_(0.1 * torch.randn_like(weight))
    spec = ModelSpec("local", SETTINGS, "data", 1.0, Normalizer((2.0, -1.0), (3.0, 0.5)), (6, 5))
    return Model("local", Flow(backbone.eval(), "data"), spec)


@pytest.fixture
def readings():
    """Return coordinates (7, 2) and five readings (7, 5, C) of each."""
    rng = np.random.default_rng(0)
    coords = rng.uniform(-1, 1, (PLACES, 2))
    truth = rng.normal(size=(PLACES, 1, C))
    return coords, truth + SIGMA * rng.normal(size=(PLACES, READINGS, C))


def every(coords, values):
    """Return all readings as observations, the first ones of all places first."""
    return Observation(np.tile(coords, (READINGS, 1)), values.swapaxes(0, 1).reshape(-1, C), SIGMA)


def averaged(coords, values):
    """Return the means of the readings, as exact as they are together."""
    return Observation(coords, values.mean(axis=1), SIGMA / np.sqrt(READINGS))


def test_readings_of_a_place_are_their_mean_with_less_noise(model, readings):
    at = Grid(6, 5)
    many = model.condition(every(*readings)).sample(at, 3, sampler=Heun(3), seed=1)
    one = model.condition(averaged(*readings)).sample(at, 3, sampler=Heun(3), seed=1)
    torch.testing.assert_close(many.mean, one.mean)
    torch.testing.assert_close(many.samples, one.samples)


def test_the_first_reading_is_not_taken_for_all(model, readings):
    coords, values = readings
    many = model.condition(every(coords, values)).mean(Grid(6, 5)).mean
    first = model.condition(Observation(coords, values[:, 0], SIGMA)).mean(Grid(6, 5)).mean
    assert (many - first).abs().max() > 0.01


@pytest.mark.parametrize("name", ["kriging", "tps", "idw", "linear"])
def test_baselines_see_the_same(name, readings):
    coords, values = readings
    at = Grid(6, 5).coords.numpy()
    many, one = (
        reconstruct_baseline(name, *(x.numpy() for x in (o.coords, o.values)), at, noise=o.noise)
        for o in (every(coords, values), averaged(coords, values))
    )
    np.testing.assert_allclose(many.mean, one.mean, rtol=1e-5, atol=1e-6)
