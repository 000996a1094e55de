"""The universal interpolator from measurements to distributions."""

import time

import numpy as np
import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data import contexts
from sparsefield.inference.interpolation import interpolate
from sparsefield.inference.measurements import Measurements
from sparsefield.models.universal import UniversalInterpolator


@pytest.fixture(scope="module")
def model():
    """Return a network with weights away from their special start."""
    torch.manual_seed(0)
    model = UniversalInterpolator(width=24, heads=2).eval()
    with torch.no_grad():
        for weight in model.head.parameters():
            weight.normal_(std=0.05)
    return model


def field(count=40, axes=2, seed=0):
    rng = np.random.default_rng(seed)
    coords, query = rng.random((count, axes)), rng.random((9, axes))
    values = np.sin(4 * coords).sum(1) + 0.1 * rng.standard_normal(count)
    return coords, values, query


def predict(model, coords, values, query, noise=None):
    found = interpolate(model, Measurements(coords, values, noise), query)
    return torch.stack([found.value.mean, found.value.std, found.field_std])


def close(a, b, tolerance=2e-3):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("count", [3, 40])
def test_prediction_moves_with_the_coordinates(model, axes, count):
    coords, values, query = field(count, axes)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((axes, axes)))[0]
    moved = predict(model, 300 + 1e3 * coords @ turn, values, 300 + 1e3 * query @ turn)
    close(predict(model, coords, values, query), moved)


def test_prediction_moves_with_shift_and_scale_of_values(model):
    coords, values, query = field()
    mean, std, field_std = predict(model, coords, values, query)
    moved = predict(model, coords, 1e4 + 1e3 * values, query)
    close((moved[0] - 1e4) / 1e3, mean)
    close(moved[1:] / 1e3, torch.stack([std, field_std]))


def test_untrained_prediction_moves_with_the_sign_of_values():
    coords, values, query = field()
    plain, negated = (predict(UniversalInterpolator(), coords, s * values, query) for s in (1, -1))
    close(plain[0], -negated[0])
    close(plain[1:], negated[1:])


def test_order_of_measurements_and_other_queries_do_not_matter(model):
    coords, values, query = field()
    order = np.random.default_rng(2).permutation(len(values))
    all_at_once = predict(model, coords, values, query)
    close(all_at_once, predict(model, coords[order], values[order], query))
    one = predict(model, coords, values, query[4:5])
    close(all_at_once[:, 4:5], one)


def test_many_measurements_are_seen_from_each_place(model, monkeypatch):
    monkeypatch.setattr(contexts, "WHOLE", 100)
    coords, values, query = field(700)
    found = predict(model, coords, values, query)
    truth = torch.from_numpy(np.sin(4 * query).sum(1))
    assert float((found[0] - truth).abs().max()) < 0.4
    close(found[:, 2:3], predict(model, coords, values, query[2:3]))


def test_exact_measurements_are_returned():
    coords, _, _ = field()
    values = np.sin(4 * coords).sum(1)
    found = predict(UniversalInterpolator(), coords, values, coords, noise=0.0)
    close(found[0], torch.from_numpy(values), 0.01)
    assert float(found[1].max()) < 0.03


def test_stated_noise_weighs_measurements(model):
    """An enormous error of one measurement makes it count for nothing."""
    coords, values, query = field()
    noise = np.full(len(values), 0.1)
    noise[0], values[0] = 30.0, 25.0
    found = predict(UniversalInterpolator(), coords, values, query, noise)
    without = predict(UniversalInterpolator(), coords[1:], values[1:], query, noise[1:])
    assert float((found[0] - without[0]).abs().max()) < 0.3


def test_constant_values_are_predicted(model):
    coords, values, query = field()
    found = predict(model, coords, np.full_like(values, 7.5), query)
    close(found[0], torch.full((9,), 7.5).double())
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(
    ("coords", "values", "noise", "message"),
    [
        (np.zeros((2, 2)), np.zeros(2), None, "at least 3"),
        (np.zeros((4, 4)), np.zeros(4), None, "P from 1 to 3"),
        (np.zeros((4, 2)), np.full(4, np.nan), None, "finite"),
        (np.zeros((4, 2)), np.zeros(4), -1.0, "at least 0"),
    ],
)
def test_unusable_measurements_are_refused(coords, values, noise, message):
    with pytest.raises(InputError, match=message):
        Measurements(coords, values, noise)


def test_unusable_queries_are_refused(model):
    coords, values, _ = field()
    with pytest.raises(InputError, match=r"\(L, 2\)"):
        interpolate(model, Measurements(coords, values), np.zeros((3, 1)))


@pytest.mark.slow
def test_cost_is_linear_in_measurements_and_queries():
    """Ten times as much of both takes about ten times the processor time, and is quick."""
    seconds = []
    for count in (1000, 1000, 10_000):  # the first one compiles
        rng = np.random.default_rng(0)
        coords, query = rng.random((count, 2)), rng.random((10 * count, 2))
        start = time.process_time()
        predict(UniversalInterpolator(), coords, np.sin(8 * coords).sum(1), query)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 10
    assert seconds[2] < 20 * seconds[1]
