"""Calls of earlier versions: the same numbers, and a warning that names the new call."""

import pytest
import torch

import sparsefield as sf
from sparsefield.core.errors import InputError
from sparsefield.data.normalize import Normalizer
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.model import Model
from sparsefield.models import build_model
from sparsefield.samplers import Exponential, Heun

SHAPE, C = (8, 6), 2


@pytest.fixture(scope="module")
def model():
    small = {"width": 16, "heads": 4, "features": 3, "flow_width": 8, "flow_layers": 1}
    settings = {"channels": C, "encoder_layers": 1, "decoder_layers": 1, "cells": True, **small}
    torch.manual_seed(0)
    backbone = build_model("hybrid", **settings)
    torch.nn.init.normal_(backbone.interpolator.head.weight)
    spec = ModelSpec("hybrid", settings, "data", 3.0, Normalizer.unit_range(C), SHAPE)
    return Model("tiny", Flow(backbone.eval().requires_grad_(False), "data", time_shift=3.0), spec)


@pytest.fixture(scope="module")
def obs():
    generator = torch.Generator().manual_seed(1)
    rows = torch.randperm(48, generator=generator)[:14]
    return sf.Observation(sf.Grid(*SHAPE).coords[rows], torch.rand(14, C, generator=generator))


def stated(obs, **how):
    return sf.Observation(obs.coords, obs.values, **how)


FREE = [[0.1, -0.3], [0.2, 0.7]]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ({"shape": (16, 12)}, lambda m, o: m.condition(o).mean(sf.Grid(16, 12)), "sf.Grid"),
        (
            {"shape": (16, 12), "samples": 2, "own_cells": True},
            lambda m, o: m.condition(o).sample(sf.Grid(16, 12, native=True), 2),
            "native=True",
        ),
        (
            {"coords": FREE, "samples": 2, "sampler": "heun", "steps": 3, "seed": 5},
            lambda m, o: m.condition(o).sample(sf.Points(FREE), 2, sampler=Heun(3), seed=5),
            "sf.Points.*sf.samplers.Heun",
        ),
        (
            {"samples": 2, "steps": 4},
            lambda m, o: m.condition(o).sample(None, 2, sampler=Exponential(4, "late")),
            "Heun.steps",
        ),
        (
            {"noise": 0.05, "samples": 2},
            lambda m, o: m.condition(stated(o, noise=0.05)).sample(None, 2),
            "noise=",
        ),
        (
            {"noise": (0.05, 0.1)},
            lambda m, o: m.condition(stated(o, noise=[[0.05, 0.1]])).mean(),
            "noise=",
        ),
        (
            {"grid": (16, 12), "samples": 1},
            lambda m, o: m.condition(stated(o, grid=(16, 12))).sample(sf.Grid(*SHAPE)),
            "grid=",
        ),
        ({"nfe": 21}, lambda m, o: m.condition(o).within(None, 21), "within"),
        (
            {"samples": 2, "recalibrate": True},
            lambda m, o: m.condition(o).recalibrated().sample(None, 2),
            "recalibrated",
        ),
        ({"chunk": 7}, lambda m, o: m.condition(o, chunk=7).mean(), "condition"),
    ],
)
def test_an_old_call_gives_the_numbers_of_the_new_one(model, obs, old, new, named):
    with pytest.warns(DeprecationWarning, match=named):
        before = sf.reconstruct(model, obs, **old)
    after = new(model, obs)
    assert torch.equal(before.mean, after.mean)
    assert (before.samples is None) == (after.samples is None)
    assert before.samples is None or torch.equal(before.samples, after.samples)
    assert (before.shape, before.nfe, before.spread) == (after.shape, after.nfe, after.inflation)


def test_a_shape_in_third_place_is_taken(model, obs):
    with pytest.warns(DeprecationWarning, match="Grid"):
        field = sf.reconstruct(model, obs, (16, 12), samples=2)
    assert torch.equal(field.samples, model.condition(obs).sample(sf.Grid(16, 12), 2).samples)


def test_the_new_call_does_not_warn(model, obs, recwarn):
    sf.reconstruct(model, obs)
    sf.reconstruct(model, obs, sf.Grid(4, 4), samples=2, sampler=Heun(2), seed=1)
    assert not recwarn.list


def test_the_fit_of_the_spread_is_that_of_the_recalibrated_posterior(model, obs):
    with pytest.warns(DeprecationWarning, match="recalibrated"):
        factor = sf.fit_spread(model, obs, folds=4, samples=3, steps=5, seed=2)
    sampler = Exponential(5, grid="late")
    posterior = model.condition(obs).recalibrated(folds=4, samples=3, sampler=sampler, seed=2)
    assert factor == posterior.inflation.factor


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (3, 4), "coords": FREE}, "either shape= or coords="),
        ({"coords": FREE, "own_cells": True}, "give shape="),
        ({"nfe": 5, "samples": 2}, "give one of the two"),
        ({"recalibrate": True}, "ask for samples"),
        ({"shape": (0, 4)}, "at least one"),
        ({"samples": 1, "sampler": "rk4"}, "unknown sampler 'rk4'"),
        ({"samples": 1, "steps": 0}, "at least 1 step"),
        ({"samples": -1, "steps": 3}, "at least 0, not -1"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_did_not_fit_together_still_does_not(model, obs, settings, message):
    with pytest.raises(InputError, match=message):
        sf.reconstruct(model, obs, **settings)
