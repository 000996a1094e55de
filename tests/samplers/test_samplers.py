"""Samplers on Gaussian data, whose flow is known in closed form."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from sparsefield.core.errors import InputError
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Query
from sparsefield.flow.flow import Flow
from sparsefield.flow.noise import LatticeNoise, field_keys
from sparsefield.flow.path import PATHS, build_path
from sparsefield.samplers import (
    DEFAULT_SAMPLER,
    GRIDS,
    SAMPLERS,
    Exponential,
    FixedStepSampler,
    build_sampler,
)
from sparsefield.testing import check_sampler
from sparsefield.testing.samplers import (
    CELLS,
    MEAN,
    SCALE,
    GaussianBackbone,
    gaussian_moments,
    gaussian_noise,
    gaussian_sample,
)

B, L, P, C = 2, 63, 3, 5
FIXED = [name for name, kind in SAMPLERS.items() if not kind.adaptive]
# every kind of fresh noise
STOCHASTIC = ["sde", "sde:temperature=0.3", "sde:temperature=3", "ddim:eta=0.5", "ddim:eta=1"]


def sample(name, steps, noise, path="linear"):
    """Sample from white noise, given as x_0 or as a function of the step."""
    fields = noise if callable(noise) else {0: noise}.get
    return gaussian_sample(build_sampler(name, steps), fields, path)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_keeps_the_contract(name):
    check_sampler(SAMPLERS[name])


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if grid != "trained"])
@pytest.mark.parametrize("name", [name for name in FIXED if not SAMPLERS[name].stochastic])
def test_every_grid_keeps_the_order(name, grid):
    check_sampler(SAMPLERS[name], grid=grid)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("sde", {"temperature": 0.3}), ("sde", {"temperature": 3}), ("ddim", {"eta": 0.5})],
)
def test_every_size_of_fresh_noise_keeps_the_contract(name, settings):
    check_sampler(SAMPLERS[name], **settings)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_mean_and_variance_converge(name, path):
    mean, variance = gaussian_moments(build_sampler(name, 1000), 1000, path)
    assert mean == pytest.approx(MEAN, abs=0.01)
    assert variance == pytest.approx(SCALE**2, rel=0.03)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_samples_of_a_field_have_the_covariance_of_its_posterior(name):
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
        Query(where, obs),
    )
    empirical = result.values[..., 0].T.cov()
    expected = gaussian_moments(build_sampler(name, 12), 12)[1] * covariance
    torch.testing.assert_close(empirical, expected, atol=0.1 * expected[0, 0].item(), rtol=0)


@pytest.mark.parametrize("path", PATHS)
def test_without_fresh_noise_the_stochastic_samplers_are_deterministic(path):
    x_0 = gaussian_noise(B, 0)
    still = [sample(name, 9, x_0, path=path)[0].values for name in ("ddim", "sde:temperature=0")]
    torch.testing.assert_close(*still)
    if path == "linear":
        torch.testing.assert_close(still[0], sample("euler", 9, x_0)[0].values)


def test_ddim_keeps_the_noise_it_estimates():
    """Song et al. (2021), Eq. 12 with sigma = 0, step by step on the variance-preserving path."""
    x, flow = (
        gaussian_noise(B, 0),
        Flow(GaussianBackbone(), "data", build_path("variance_preserving")),
    )
    grid = torch.linspace(0, 1, 8).double()
    expected = x
    for t, s in pairwise(grid):
        now, then = (flow.path.coefficients(time) for time in (t, s))
        data = flow.denoise(expected, t.expand(B), None, "prepared")
        expected = then.alpha * data + then.sigma * (expected - now.alpha * data) / now.sigma
    result, _ = sample("ddim", 7, x, path="variance_preserving")
    torch.testing.assert_close(result.values, expected)


def test_ddim_of_eta_one_starts_from_noise_that_is_all_fresh():
    first, other = gaussian_noise(B, 0), gaussian_noise(B, 0, seed=1)
    ends = [
        sample("ddim:eta=1", 5, lambda step, x=x: x if step == 0 else gaussian_noise(B, step))[
            0
        ].values
        for x in (first, other)
    ]
    torch.testing.assert_close(*ends)


def test_known_prices():
    prices = {"euler": 7, "heun": 13, "ab2": 7, "deis": 7, "ddim": 7, "sde": 7}
    for name, price in prices.items():
        assert sample(name, 7, partial(gaussian_noise, B))[0].nfe == price


def test_adaptive_solver_keeps_its_tolerance():
    x_0 = gaussian_noise(B, 0)
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


def test_a_memory_handed_on_is_what_makes_two_step_methods_accurate():
    """Without it they are the Euler method; no state is hidden in the flow or the sampler."""
    x_0 = gaussian_noise(B, 0)
    for name in ("ab2", "deis"):
        sampler = build_sampler(name, 8)
        first, second = (gaussian_sample(sampler, {0: x_0}.get)[0].values for _ in range(2))
        assert torch.equal(first, second)
        assert not torch.allclose(first, sample("euler", 8, x_0)[0].values)


def test_the_default_is_what_the_documentation_says():
    default, said = build_sampler(DEFAULT_SAMPLER), Exponential(10, grid="late")
    assert (type(default), vars(default)) == (type(said), vars(said))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_says_what_it_is_in_one_line(name):
    text = repr(build_sampler(name, 7))
    assert text.startswith(SAMPLERS[name].__name__)
    if issubclass(SAMPLERS[name], FixedStepSampler):
        assert "steps=7" in text
    assert "\n" not in text
