"""Samplers on Gaussian data, whose flow is known in closed form."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from sparsefield.core.errors import InputError
from sparsefield.data.observation import Observation
from sparsefield.flow.flow import Flow
from sparsefield.flow.noise import LatticeNoise, WhiteNoise, field_keys
from sparsefield.flow.path import PATHS, build_path
from sparsefield.samplers import GRIDS, SAMPLERS, build_sampler, steps_within

B, L, P, C = 2, 63, 3, 5
MEAN, SCALE = 0.7, 0.4
CELLS = (6, 7, 5)
FIXED = [name for name, kind in SAMPLERS.items() if not kind.adaptive]
# every kind of fresh noise
STOCHASTIC = ["sde", "sde:temperature=0.3", "sde:temperature=3", "ddim:eta=0.5", "ddim:eta=1"]
EVERY = [*SAMPLERS, *STOCHASTIC]


class GaussianBackbone(nn.Module):
    """E[x_1 | x_t] for data N(m, s²) on the linear path; the flow carries x_0 to m + s x_0."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.prepared = 0

    def prepare(self, coords, obs, cell=None):
        self.prepared += 1
        return "prepared"

    def forward(self, x_t, t, coords, obs, prepared=None, cell=None):
        assert prepared == "prepared"
        self.calls += 1
        t = t[:, None, None]
        gain = t * SCALE**2 / ((t * SCALE) ** 2 + (1 - t) ** 2)
        return MEAN + gain * (x_t - t * MEAN)


def fields(count, step, points=L, channels=C, seed=0):
    """Return source noise (B, L, C) in double precision."""
    keys = field_keys(seed, range(count), step)
    return WhiteNoise()(torch.zeros(count, points, P).double(), channels, keys, CELLS)


def sample(name, steps, noise, time_shift=1.0, path="linear"):
    """Sample from white noise, given as x_0 or as a function of the step."""
    flow = Flow(GaussianBackbone(), "data", build_path(path), time_shift)
    draw = noise if callable(noise) else {0: noise}.get
    count = len(draw(0))
    obs = Observation(torch.zeros(count, 1, P), torch.zeros(count, 1, C))
    return build_sampler(name, steps)(flow, draw, torch.zeros(count, L, P), obs), flow.backbone


def order_of(errors, steps):
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", [name for name in FIXED if not SAMPLERS[name].stochastic])
def test_error_falls_with_the_declared_order(name, grid, path):
    x_0, steps = fields(B, 0), np.array([32, 64, 128, 256])
    ends = [
        sample(f"{name}:grid={grid}", int(n), x_0, 3.0, path)[0].values - (MEAN + SCALE * x_0)
        for n in steps
    ]
    errors = [end.abs().max().item() for end in ends]
    assert order_of(errors, steps) == pytest.approx(SAMPLERS[name].order, abs=0.3)


def moments(name, steps, path="linear"):
    """Return mean and variance of a sampler's result, exactly.

    A step is affine in state and noise, so the variance is the sum of squared responses to unit
    noise at each step: point k sees noise in step k alone, and the last point sees none.
    """
    unit = torch.eye(steps + 1, steps + 2).double()
    result, _ = sample(name, steps, lambda step: unit[step].reshape(1, -1, 1), path=path)
    responses = result.values[0, :, 0]
    centre = responses[-1]
    return centre.item(), (responses[:-1] - centre).square().sum().item()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_mean_and_variance_converge_with_the_declared_order(name, path):
    steps = np.array([64, 128, 256, 512])
    errors = [abs(moments(name, int(n), path)[1] - SCALE**2) for n in steps]
    order = SAMPLERS[name.partition(":")[0]].order
    assert order_of(errors, steps) == pytest.approx(order, abs=0.3)
    mean, variance = moments(name, 1000, path)
    assert mean == pytest.approx(MEAN, abs=0.01)
    assert variance == pytest.approx(SCALE**2, rel=0.03)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_draws_of_a_field_have_the_covariance_of_its_posterior(name):
    """From noise of covariance K to data of s² K: every step keeps K, and scales it alone."""
    noise = LatticeNoise()
    coords = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.05, 0.0], [0.5, 0.1, -0.4]]).double()
    covariance = noise.covariance(coords, CELLS)
    assert covariance[0, 1] > 0.5
    where = coords.expand(4000, -1, -1)
    obs = Observation(torch.zeros(4000, 1, P), torch.zeros(4000, 1, 1))
    result = build_sampler(name, 12)(
        Flow(GaussianBackbone(), "data", noise=noise),
        lambda step: noise(where, 1, field_keys(0, range(4000), step), CELLS),
        where,
        obs,
    )
    empirical = result.values[..., 0].T.cov()
    expected = moments(name, 12)[1] * covariance
    torch.testing.assert_close(empirical, expected, atol=0.1 * expected[0, 0].item(), rtol=0)


@pytest.mark.parametrize("path", PATHS)
def test_without_fresh_noise_the_stochastic_samplers_are_deterministic(path):
    x_0 = fields(B, 0)
    still = [sample(name, 9, x_0, path=path)[0].values for name in ("ddim", "sde:temperature=0")]
    torch.testing.assert_close(*still)
    if path == "linear":
        torch.testing.assert_close(still[0], sample("euler", 9, x_0)[0].values)


def test_ddim_keeps_the_noise_it_estimates():
    """Song et al. (2021), Eq. 12 with sigma = 0, step by step on the variance-preserving path."""
    x, flow = fields(B, 0), Flow(GaussianBackbone(), "data", build_path("variance_preserving"))
    grid = torch.linspace(0, 1, 8).double()
    expected = x
    for t, s in pairwise(grid):
        now, then = (flow.path.coefficients(time) for time in (t, s))
        data = flow.denoise(expected, t.expand(B), None, None, "prepared")
        expected = then.alpha * data + then.sigma * (expected - now.alpha * data) / now.sigma
    result, _ = sample("ddim", 7, x, path="variance_preserving")
    torch.testing.assert_close(result.values, expected)


def test_ddim_of_eta_one_starts_from_noise_that_is_all_fresh():
    first, other = fields(B, 0), fields(B, 0, seed=1)
    ends = [
        sample("ddim:eta=1", 5, lambda step, x=x: x if step == 0 else fields(B, step))[0].values
        for x in (first, other)
    ]
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_have_the_moments_of_the_data(name):
    values = sample(name, 200, partial(fields, 40))[0].values
    assert values.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert values.std().item() == pytest.approx(SCALE, rel=0.03)


@pytest.mark.parametrize("name", EVERY)
def test_sample_of_an_item_does_not_depend_on_its_batch(name):
    def rows(which):
        return sample(name, 6, lambda step: fields(5, step).float()[which])[0].values

    whole = rows(slice(None))
    assert torch.equal(whole, torch.cat([rows(slice(0, 2)), rows(slice(2, 5))]))
    assert torch.equal(whole, rows(slice(None)))


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("name", FIXED)
def test_evaluations_are_counted_and_the_observations_prepared_once(name, steps):
    result, backbone = sample(name, steps, partial(fields, B))
    assert result.nfe == backbone.calls >= steps
    assert backbone.prepared == 1
    assert result.values.shape == (B, L, C)


@pytest.mark.parametrize("name", EVERY)
def test_single_precision_stays_single(name):
    values = sample(name, 3, lambda step: fields(B, step).float())[0].values
    assert values.dtype == torch.float32


@pytest.mark.parametrize("name", EVERY)
def test_times_stay_where_a_velocity_exists(name):
    seen = []
    flow = Flow(GaussianBackbone(), "data")
    flow.backbone.register_forward_hook(lambda module, args, out: seen.extend(args[1]))
    where = torch.zeros(B, L, P), Observation(torch.zeros(B, 1, P), torch.zeros(B, 1, C))
    build_sampler(name, 4)(flow, partial(fields, B), *where)
    times = torch.stack(seen)
    assert times.min() == 0
    assert times.max() < 1


def test_known_prices():
    prices = {"euler": 7, "heun": 13, "ab2": 7, "deis": 7, "ddim": 7, "sde": 7}
    for name, price in prices.items():
        assert sample(name, 7, partial(fields, B))[0].nfe == price


@pytest.mark.parametrize("budget", [3, 8, 21])
@pytest.mark.parametrize("name", [*FIXED, *STOCHASTIC])
def test_steps_within_a_budget_are_as_many_as_it_allows(name, budget):
    steps = steps_within(name, budget)
    assert sample(name, steps, partial(fields, B))[0].nfe <= budget
    assert sample(name, steps + 1, partial(fields, B))[0].nfe > budget


def test_adaptive_solver_keeps_its_tolerance():
    x_0 = fields(B, 0)
    results = {tol: sample(f"dopri5:tolerance={tol}", 1, x_0)[0] for tol in (1e-2, 1e-6)}
    errors = {k: (r.values - (MEAN + SCALE * x_0)).abs().max() for k, r in results.items()}
    assert errors[1e-6] < 1e-5
    assert results[1e-6].nfe > results[1e-2].nfe


def test_own_times_are_used_as_they_are():
    times = (0.0, 0.1, 0.15, 0.9, 1.0)
    sampler = SAMPLERS["euler"](grid=times)
    assert sampler.time_grid(Flow(GaussianBackbone(), "data")).tolist() == list(times)


@pytest.mark.parametrize("grid", GRIDS)
def test_grids_rise_from_noise_to_data(grid):
    times = build_sampler(f"euler:grid={grid}", 9).time_grid(Flow(nn.Identity(), time_shift=3.0))
    assert (times[0], len(times)) == (0, 10)
    assert times[-1].item() == pytest.approx(1)
    assert (times.diff() > 0).all()


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("rk4", 10, "unknown sampler 'rk4'.*euler, heun"),
        ("euler", 0, "at least 1 step"),
        ("heun:eta=1", 5, "unknown setting of heun 'eta'.*grid"),
        ("heun:grid=log", 5, "unknown grid 'log'.*trained"),
        ("sde:temperature=hot", 5, "sde: temperature must be a number, not 'hot'"),
        ("sde:temperature=-1", 5, "at least 0, not -1"),
        ("ddim:eta=1.5", 5, "between 0 and 1, not 1.5"),
        ("dopri5:tolerance=0", 5, "tolerance must be above 0"),
    ],
)
def test_bad_sampler_settings_say_what_is_possible(name, steps, message):
    with pytest.raises(InputError, match=message):
        build_sampler(name, steps)


@pytest.mark.parametrize("times", [(0.0, 0.5), (0.0, 0.5, 0.5, 1.0), (0.1, 1.0), (1.0,)])
def test_own_times_must_rise_from_zero_to_one(times):
    with pytest.raises(InputError, match="must rise from 0 to 1"):
        SAMPLERS["euler"](grid=times)
