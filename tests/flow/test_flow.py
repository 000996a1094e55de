"""The path and the table of conversions."""

import pytest
import torch
from torch import nn

from sparsefield.core.errors import InputError
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Query
from sparsefield.flow.flow import PREDICTIONS, Flow
from sparsefield.flow.objectives import flow_matching_loss
from sparsefield.flow.path import PATHS, build_path

B, L, P, C, M = 2, 63, 3, 5, 17

# What each prediction type says about a pair (x_0, x_1) where the path has coefficients c, for a
# flow of time_shift k.
TARGETS = {
    "velocity": lambda x_0, x_1, c, k=1.0: c.d_alpha * x_1 + c.d_sigma * x_0,
    "data": lambda x_0, x_1, c, k=1.0: x_1,
    "noise": lambda x_0, x_1, c, k=1.0: x_0,
    "score": lambda x_0, x_1, c, k=1.0: -x_0 / c.sigma,
    "correction": lambda x_0, x_1, c, k=1.0: (
        (c.alpha**2 + k**2 * c.sigma**2).sqrt()
        / c.sigma
        * (x_1 - c.alpha * (c.alpha * x_1 + c.sigma * x_0) / (c.alpha**2 + k**2 * c.sigma**2))
    ),
}
every_path = pytest.mark.parametrize("path", PATHS)


class Fixed(Backbone):
    """A backbone that predicts the same tensor everywhere and records what it saw."""

    def __init__(self, prediction):
        super().__init__()
        self.prediction = prediction
        self.states, self.times = [], []

    def forward(self, x_t, t, query, prepared=None):
        self.states.append(x_t)
        self.times.append(t)
        return self.prediction


def at(path, t):
    return build_path(path).coefficients(t[:, None, None])


@pytest.fixture
def pair():
    return torch.randn(B, L, C).double(), torch.randn(B, L, C).double()


@pytest.fixture
def where():
    return Query(
        torch.rand(B, L, P) * 2 - 1, Observation(torch.rand(B, M, P), torch.randn(B, M, C))
    )


@every_path
def test_path_starts_at_noise_and_ends_at_data(path, pair):
    for end, expected in ((torch.zeros(B), pair[0]), (torch.ones(B), pair[1])):
        torch.testing.assert_close(build_path(path).interpolate(*pair, end.double()), expected)


@every_path
def test_derivatives_of_the_path_agree_with_autograd(path):
    t = torch.linspace(0.1, 0.9, L).double().requires_grad_()
    c = build_path(path).coefficients(t)
    assert all(part.shape == t.shape for part in c)
    for value, derivative in ((c.alpha, c.d_alpha), (c.sigma, c.d_sigma)):
        (slope,) = torch.autograd.grad(value.sum(), t)
        torch.testing.assert_close(slope, derivative)


def test_variance_preserving_path_preserves_variance():
    c = build_path("variance_preserving").coefficients(torch.linspace(0, 1, L).double())
    torch.testing.assert_close(c.alpha**2 + c.sigma**2, torch.ones(L).double())


@every_path
@pytest.mark.parametrize("name", PREDICTIONS)
def test_every_prediction_converts_to_every_quantity(name, path, pair, where):
    assert name in TARGETS, f"give '{name}' its definition in TARGETS"
    x_0, x_1 = pair
    t = torch.tensor([0.2, 0.7]).double()
    c = at(path, t)
    flow = Flow(Fixed(TARGETS[name](x_0, x_1, c)), name, build_path(path))
    x_t = flow.path.interpolate(x_0, x_1, t)
    torch.testing.assert_close(flow.denoise(x_t, t, where), x_1)
    torch.testing.assert_close(flow.velocity(x_t, t, where), TARGETS["velocity"](x_0, x_1, c))
    torch.testing.assert_close(flow.score(x_t, t, where), -x_0 / c.sigma)


@every_path
def test_the_backbone_sees_the_linear_path_whatever_the_path(path, pair, where):
    x_0, x_1 = pair
    flow = Flow(Fixed(x_1), "data", build_path(path))
    t = torch.tensor([0.0, 0.7]).double()
    flow.denoise(flow.path.interpolate(x_0, x_1, t), t, where)
    (state,), (time,) = flow.backbone.states, flow.backbone.times
    torch.testing.assert_close(state, build_path("linear").interpolate(x_0, x_1, time))


def test_times_apply_per_item_even_where_the_batch_is_as_long_as_the_channels(where):
    x_0, x_1 = torch.randn(C, L, C).double(), torch.randn(C, L, C).double()
    t = torch.linspace(0.1, 0.9, C).double()
    flow = Flow(Fixed(x_1 - x_0), "velocity")
    together = flow.denoise(flow.path.interpolate(x_0, x_1, t), t, where)
    torch.testing.assert_close(together, x_1)


@every_path
@pytest.mark.parametrize("name", ["velocity", "data", "correction"])
def test_posterior_mean_is_the_data_estimate_at_time_zero(name, path, pair, where):
    x_0, x_1 = pair
    backbone = Fixed(TARGETS[name](x_0, x_1, at(path, torch.zeros(B).double())))
    flow = Flow(backbone, name, build_path(path))
    torch.testing.assert_close(flow.posterior_mean(x_0, where), x_1)
    assert [t.tolist() for t in backbone.times] == [[0.0] * B]


@every_path
@pytest.mark.parametrize("name", PREDICTIONS)
def test_every_quantity_is_finite_at_both_ends(name, path, pair, where):
    flow = Flow(Fixed(pair[0]), name, build_path(path))
    for end in (0.0, 1.0):
        t = torch.full((B,), end).double()
        for quantity in (flow.denoise, flow.velocity, flow.score):
            assert quantity(pair[1], t, where).isfinite().all()


@every_path
def test_errors_of_a_correction_weigh_the_same_at_every_time(path, pair, where):
    x_0, x_1 = pair
    t = torch.tensor([0.05, 0.95]).double()
    exact = TARGETS["correction"](x_0, x_1, at(path, t), 3.0)
    flow = Flow(Fixed(exact + 1), "correction", build_path(path), 3.0)
    loss = flow_matching_loss(flow, x_0, x_1, t, where)
    torch.testing.assert_close(loss, torch.full((B,), 1 / 9).double())


# What the loss of an error of 1 in each prediction is where the path has coefficients c, for a
# flow of time_shift k: x_1 is off by the derivative of the table in docs/math.md.
LOSSES = {
    "velocity": lambda c, k: (
        (c.sigma / (c.d_alpha * c.sigma - c.alpha * c.d_sigma)) ** 2
        * (1 + (c.alpha / (k * c.sigma)) ** 2)
    ),
    "data": lambda c, k: 1 + (c.alpha / (k * c.sigma)) ** 2,
    "noise": lambda c, k: torch.ones_like(c.sigma),
    "score": lambda c, k: c.sigma**2,
    "correction": lambda c, k: torch.ones_like(c.sigma) / k**2,
}


@every_path
@pytest.mark.parametrize("residual", ["none", "kriging"])
@pytest.mark.parametrize("name", ["noise", "score"])
def test_the_loss_of_noise_is_its_squared_error(name, residual, path, pair, where):
    x_0, x_1 = pair
    t, error = torch.tensor([0.02, 0.98]).double(), torch.randn(B, L, C).double()
    c = at(path, t)
    exact = x_0 if name == "noise" else -x_0 / c.sigma
    where = Query(where.coords.double(), where.obs.to(dtype=torch.float64))
    flow = Flow(Fixed(exact + error), name, build_path(path), 3.0, residual=residual)
    expected = error.square().mean(dim=(1, 2))
    if name == "score":
        expected = expected * c.sigma[:, 0, 0] ** 2
    torch.testing.assert_close(flow_matching_loss(flow, x_0, x_1, t, where), expected)


@every_path
@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_loss_of_every_prediction_weighs_its_error_as_stated(name, path, pair, where):
    x_0, x_1 = pair
    t = torch.tensor([0.02, 0.9]).double()
    c = at(path, t)
    flow = Flow(Fixed(TARGETS[name](x_0, x_1, c, 3.0) + 1), name, build_path(path), 3.0)
    loss = flow_matching_loss(flow, x_0, x_1, t, where)
    torch.testing.assert_close(loss, LOSSES[name](c, 3.0)[:, 0, 0])


@pytest.mark.parametrize("name", PREDICTIONS)
def test_only_noise_and_score_are_read_late(name):
    flow = Flow(nn.Identity(), name)
    u = torch.linspace(0, 1, 11).double()
    if name in ("noise", "score"):
        torch.testing.assert_close(flow.delay(u), 0.02 + 0.98 * u)
    else:
        assert torch.equal(flow.delay(u), u)
        assert flow.start(u, None) is u


def test_unknown_prediction_lists_the_choices():
    with pytest.raises(InputError, match="unknown prediction 'speed'.*data.*velocity"):
        Flow(nn.Identity(), "speed")


def test_unknown_path_lists_the_choices():
    with pytest.raises(InputError, match="unknown path 'curved'.*linear.*variance_preserving"):
        build_path("curved")


@pytest.mark.parametrize("factor", [0.5, 1.0, 7.0])
def test_time_shift_maps_the_unit_interval_onto_itself(factor):
    flow = Flow(nn.Identity(), time_shift=factor)
    t = flow.shift(torch.linspace(0, 1, 11).double())
    assert (t[0], t[-1]) == (0, 1)
    assert (t.diff() > 0).all()
    torch.testing.assert_close(t[5].item(), factor / (1 + factor))


def test_velocity_loss_is_the_squared_velocity_error_up_to_its_weight(pair, where):
    x_0, x_1 = pair
    t = torch.tensor([0.0, 0.6]).double()
    error = torch.randn(B, L, C).double()
    loss = flow_matching_loss(Flow(Fixed(x_1 - x_0 + error)), x_0, x_1, t, where)
    weight = t.square() + (1 - t).square()
    torch.testing.assert_close(loss, weight * error.square().mean(dim=(1, 2)))


@every_path
@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_perfect_prediction_has_no_loss(name, path, pair, where):
    x_0, x_1 = pair
    t = torch.tensor([0.3, 0.95]).double()
    flow = Flow(Fixed(TARGETS[name](x_0, x_1, at(path, t), 3.0)), name, build_path(path), 3.0)
    assert flow_matching_loss(flow, x_0, x_1, t, where).max() < 1e-20
