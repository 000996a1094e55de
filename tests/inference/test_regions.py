"""Decisions that neighbouring leaves share, where there are many."""

import numpy as np
import pytest
import torch

from sparsefield.inference import interpolation
from sparsefield.inference.interpolation import interpolate
from sparsefield.inference.interpolator import load_interpolator
from sparsefield.inference.measurements import Measurements


@pytest.fixture(scope="module")
def model():
    return load_interpolator()


def make(count=3000):
    rng = np.random.default_rng(0)
    coords, query = rng.random((count, 2)), rng.random((200, 2))
    noise = 0.1 * rng.standard_normal(count)
    return coords, truth(coords) + noise, query


def truth(coords):
    return np.sin(9 * coords).sum(1) + np.cos(20 * coords[:, 0] * coords[:, 1])


@pytest.mark.parametrize("stated", [None, 0.1])
def test_shared_decisions_predict_as_well(model, monkeypatch, stated):
    coords, values, query = make()
    measurements = Measurements(coords, values, stated)
    alone = interpolate(model, measurements, query)
    monkeypatch.setattr(interpolation, "MANY", 1)
    together = interpolate(model, measurements, query)
    goal = torch.from_numpy(truth(query))
    errors = [float((x.value.mean - goal).square().mean().sqrt()) for x in (alone, together)]
    assert errors[1] < 1.1 * errors[0]
    for mine, theirs in ((alone.value.std, together.value.std), (alone[1], together[1])):
        assert float((theirs / mine).log().abs().median()) < 0.2


def test_no_query_depends_on_another(model, monkeypatch):
    monkeypatch.setattr(interpolation, "MANY", 1)
    coords, values, query = make()
    measurements = Measurements(coords, values)
    everyone, some = (interpolate(model, measurements, q) for q in (query, query[::7]))
    for whole, part in zip(everyone.value, some.value, strict=True):
        torch.testing.assert_close(whole[::7], part, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(everyone.field_std[::7], some.field_std, rtol=1e-9, atol=1e-9)
