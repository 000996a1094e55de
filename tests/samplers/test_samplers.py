"""Samplers on a Gaussian whose flow is known in closed form."""

import numpy as np
import pytest
import torch
from torch import nn

from sparsefield.errors import InputError
from sparsefield.fields.observation import Observation
from sparsefield.flow.flow import Flow
from sparsefield.flow.noise import white_noise_batch
from sparsefield.samplers import SAMPLERS, build_sampler

B, L, P, C = 2, 63, 3, 5
MEAN, SCALE = 0.7, 0.4
DETERMINISTIC = [name for name, sampler in SAMPLERS.items() if hasattr(sampler, "order")]


class GaussianBackbone(nn.Module):
    """E[x_1 | x_t] for data N(m, s^2); the flow then carries x_0 to m + s x_0."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.prepared = 0

    def prepare(self, coords, obs):
        self.prepared += 1
        return "prepared"

    def forward(self, x_t, t, coords, obs, prepared=None):
        assert prepared == "prepared"
        self.calls += 1
        t = t[:, None, None]
        gain = t * SCALE**2 / ((t * SCALE) ** 2 + (1 - t) ** 2)
        return MEAN + gain * (x_t - t * MEAN)


def sample(name, steps, x_0, time_shift=1.0):
    flow = Flow(GaussianBackbone(), "data", time_shift=time_shift)
    where = torch.zeros(len(x_0), L, P), Observation(torch.zeros(1, 1, P), torch.zeros(1, 1, C))
    return build_sampler(name, steps)(flow, x_0, *where), flow.backbone


@pytest.mark.parametrize("time_shift", [1.0, 3.0])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_error_falls_with_the_declared_order(name, time_shift):
    x_0 = white_noise_batch(L, C, 0, range(B)).double()
    steps = np.array([16, 32, 64, 128])
    errors = [
        (sample(name, int(n), x_0, time_shift)[0].values - (MEAN + SCALE * x_0)).abs().max().item()
        for n in steps
    ]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(SAMPLERS[name].order, abs=0.3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_have_the_moments_of_the_data(name):
    x_0 = white_noise_batch(L, C, 0, range(40)).double()
    values = sample(name, 100, x_0)[0].values
    assert values.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert values.std().item() == pytest.approx(SCALE, rel=0.03)


@pytest.mark.parametrize("name", SAMPLERS)
def test_sample_of_an_item_does_not_depend_on_its_batch(name):
    x_0 = white_noise_batch(L, C, 0, range(5))
    whole = sample(name, 6, x_0)[0].values
    parts = [sample(name, 6, part)[0].values for part in x_0.split(2)]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole, sample(name, 6, x_0)[0].values)


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("name", SAMPLERS)
def test_evaluations_are_counted_and_the_observations_prepared_once(name, steps):
    result, backbone = sample(name, steps, torch.randn(B, L, C))
    assert result.nfe == backbone.calls >= steps
    assert backbone.prepared == 1
    assert result.values.shape == (B, L, C)
    assert result.values.dtype == torch.float32


@pytest.mark.parametrize("name", SAMPLERS)
def test_times_stay_where_a_velocity_exists(name):
    seen = []
    flow = Flow(GaussianBackbone(), "data")
    flow.backbone.register_forward_hook(lambda module, args, out: seen.append(args[1]))
    where = torch.zeros(B, L, P), Observation(torch.zeros(1, 1, P), torch.zeros(1, 1, C))
    build_sampler(name, 4)(flow, torch.randn(B, L, C), *where)
    times = torch.stack(seen)
    assert times.shape[1:] == (B,)
    assert times.min() == 0
    assert times.max() < 1


def test_known_prices():
    x_0 = torch.randn(B, L, C)
    assert sample("euler", 7, x_0)[0].nfe == 7
    assert sample("heun", 7, x_0)[0].nfe == 13


def test_bad_sampler_settings_say_what_is_possible():
    with pytest.raises(InputError, match="unknown sampler 'rk4'.*euler, heun"):
        build_sampler("rk4")
    with pytest.raises(InputError, match="at least 1 step"):
        build_sampler("euler", 0)
