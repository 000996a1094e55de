"""Flows of noise and score, which say nothing at t = 0, on Gaussian data."""

import math

import pytest
import torch

from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Query
from sparsefield.flow.flow import FIRST_TIME, MEAN_TIME, OF_NOISE, PREDICTIONS, Flow
from sparsefield.flow.path import PATHS, build_path
from sparsefield.flow.residual import interpolate, standardise
from sparsefield.samplers import SAMPLERS, build_sampler
from sparsefield.testing.samplers import (
    MEAN,
    SCALE,
    GaussianBackbone,
    gaussian_moments,
    gaussian_sample,
)

NAMES = [*SAMPLERS, "deis:grid=late", "sde:temperature=0.3", "ddim:eta=1"]
every_name = pytest.mark.parametrize("name", NAMES)
every_path = pytest.mark.parametrize("path", PATHS)
of_noise = pytest.mark.parametrize("prediction", OF_NOISE)


class Oracle(GaussianBackbone):
    """The exact noise or score of data N(m, s²), times `factor` and plus `shift`."""

    def __init__(self, prediction, path, factor=1.0, shift=0.0):
        super().__init__("noise")
        self.prediction, self.factor, self.shift = prediction, factor, shift
        # alpha + sigma where the linear path has the time t
        self.total = {
            "linear": torch.ones_like,
            "variance_preserving": lambda t: 1 / torch.hypot(t, 1 - t),
        }[path]

    def forward(self, x_t, t, query, prepared=None):
        said, self.prediction = self.prediction, "noise"
        noise = self.factor * super().forward(x_t, t, query, prepared) + self.shift
        self.prediction = said
        t = t[:, None, None]
        return noise if said == "noise" else -noise / ((1 - t) * self.total(t))


def moments(name, steps, path, backbone):
    """Return mean and variance of the samples; every sampler is affine in its noise."""
    if not SAMPLERS[name.partition(":")[0]].adaptive:
        return gaussian_moments(build_sampler(name, steps), steps, path, backbone)
    sampler = build_sampler(f"{name}:tolerance=1e-7")
    ends = [
        gaussian_sample(sampler, {0: x.reshape(1, 1, 1)}.get, path, backbone=backbone)[0].values
        for x in torch.eye(2)[1].double()
    ]
    return ends[0].item(), (ends[1] - ends[0]).item() ** 2


def coefficients(path, t):
    c = build_path(path).coefficients(torch.tensor(t).double())
    return c.alpha.item(), c.sigma.item()


@every_path
@of_noise
@every_name
def test_samples_have_the_mean_and_the_variance_of_the_data(name, prediction, path):
    """The start is N(0, sigma² + alpha²); that of the data is N(alpha m, sigma² + alpha² s²)."""
    alpha, sigma = coefficients(path, FIRST_TIME)
    spread = math.hypot(sigma, alpha * SCALE)
    mean, variance = moments(name, 800, path, Oracle(prediction, path))
    if not SAMPLERS[name.partition(":")[0]].stochastic or name == "ddim":
        start = SCALE * alpha * MEAN / spread  # what fresh noise would forget
        assert mean == pytest.approx(MEAN - start, abs=0.005 * SCALE)
    assert mean == pytest.approx(MEAN, abs=0.03 * SCALE)
    assert variance == pytest.approx(SCALE**2 * (sigma**2 + alpha**2) / spread**2, rel=0.03)
    assert variance == pytest.approx(SCALE**2, rel=0.03)


@every_path
@of_noise
@pytest.mark.parametrize("off", [{"factor": 1.01}, {"factor": 0.99}, {"shift": 0.01}])
@every_name
def test_a_prediction_off_by_a_hundredth_moves_samples_by_some_hundredths(
    name, off, prediction, path
):
    steps = 20
    exact = moments(name, steps, path, Oracle(prediction, path))
    moved = moments(name, steps, path, Oracle(prediction, path, **off))
    assert abs(moved[0] - exact[0]) < 0.1 * SCALE
    assert math.sqrt(moved[1] / exact[1]) == pytest.approx(1, abs=0.1)


@every_path
@of_noise
def test_the_posterior_mean_is_read_where_errors_of_the_noise_count_little(prediction, path):
    """It is E[x_1 | x_t] for x_t ~ N(0, sigma² + alpha²), whatever the data; off by a fifth."""
    alpha, sigma = coefficients(path, MEAN_TIME)
    x_0 = torch.randn(4, 9, 1).double()
    query = Query(torch.zeros(4, 9, 2), Observation(torch.zeros(4, 1, 2), torch.zeros(4, 1, 1)))
    exact, off = (
        Flow(Oracle(prediction, path, shift=shift), prediction, build_path(path)).posterior_mean(
            x_0, query, "prepared"
        )
        for shift in (0.0, 0.01)
    )
    gain = alpha * SCALE**2 / (sigma**2 + (alpha * SCALE) ** 2)
    expected = MEAN + gain * (math.hypot(sigma, alpha) * x_0 - alpha * MEAN)
    torch.testing.assert_close(exact, expected)
    assert (exact - MEAN).square().mean().sqrt() < 0.2 * SCALE
    torch.testing.assert_close(exact - off, torch.full_like(x_0, 0.01 * sigma / alpha))
    assert sigma / alpha < 4.001


class Fixed(Backbone):
    """Predicts the same everywhere."""

    def __init__(self, prediction):
        super().__init__()
        self.prediction = prediction

    def forward(self, x_t, t, query, prepared=None):
        return self.prediction


class Unit(Backbone):
    """The exact noise of residuals N(0, s²) whose size s is the one that is expected of them."""

    def forward(self, x_t, t, query, prepared=None):
        t = t[:, None, None]
        return (1 - t) * x_t / (t**2 + (1 - t) ** 2)


def around(unit):
    """Return a query with an interpolation of its observations, and of what size they differ."""
    values = 5 + unit * torch.tensor([[[-1.0], [0.5], [2.0]]]).double()
    obs = Observation(torch.tensor([[[-0.6, 0.1], [0.4, -0.3], [0.2, 0.7]]]).double(), values)
    query = Query(torch.tensor([[[0.0, 0.0], [0.5, 0.5]]]).double(), obs)
    return query, interpolate("nearest", standardise("nearest", obs), query.coords)


@pytest.mark.parametrize("name", ["heun", "ab2", "deis", "deis:grid=late", "dopri5"])
def test_a_residual_starts_from_its_interpolation(name):
    """The start has its distribution then: nothing is off."""
    query, (mean, size) = around(1.0)
    x_0 = torch.tensor([[[1.3], [-0.4]]]).double()
    values = build_sampler(name, 400)(
        Flow(Unit(), "noise", residual="nearest"), {0: x_0}.get, query
    ).values
    torch.testing.assert_close((values - mean) / size, x_0, rtol=0, atol=2e-3)


@of_noise
def test_a_residual_of_no_size_to_speak_of_is_read_exactly(prediction):
    query, (mean, size) = around(1e-6)
    assert size.max() < 1e-4
    x_0, x_1 = torch.randn(1, 2, 1).double(), mean + size * torch.randn(1, 2, 1).double()
    t = torch.tensor([FIRST_TIME]).double()
    said = x_0 if prediction == "noise" else -x_0 / (1 - t)
    flow = Flow(Fixed(said), prediction, residual="nearest")
    found = flow.denoise(flow.path.interpolate(x_0, x_1, t), t, query)
    torch.testing.assert_close((found - mean) / size, (x_1 - mean) / size, rtol=0, atol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("grid", ["trained", "late", (0.0, 0.3, 0.9, 1.0)])
def test_times_begin_where_the_prediction_says_something(grid, prediction):
    flow = Flow(GaussianBackbone(), prediction, time_shift=3.0)
    times = SAMPLERS["euler"](grid=grid).time_grid(flow)
    assert times[0] == (FIRST_TIME if prediction in OF_NOISE else 0)
    assert times[-1] == 1
    assert (times.diff() > 0).all()
