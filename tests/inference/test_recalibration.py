"""Recalibration of draws from a posterior in closed form that are too narrow by a known factor."""

import numpy as np
import pytest
import torch
from torch import nn

from sparsefield.core.errors import InputError
from sparsefield.data.gaussian import GaussianField
from sparsefield.data.grids import cell_centres
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Claims
from sparsefield.flow.flow import Flow
from sparsefield.flow.noise import WhiteNoise
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.model import Model
from sparsefield.inference.recalibration import hold_out, inflate, inflation_factor
from sparsefield.samplers import build_sampler

SHAPE, M, C = (41,), 23, 60
FIELD = GaussianField(length=0.1, nugget=1e-6)
SCALES = torch.logspace(-1, 1, C)
NORMALIZER = Normalizer((5.0,) * C, tuple(SCALES.tolist()))


class ExactPosterior(Backbone):
    """The exact flow of FIELD given observations, with draws narrower by `factor`."""

    claims = Claims(query_invariant=True, order_invariant=True, linear_cost=True)

    def __init__(self, factor):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.factor = factor
        self.solved = {}

    def solve(self, coords, obs):
        """Return the posterior's weights (L, M), variances (L,) and modes (L, L), once each."""
        seen, query = (x[0].double().numpy() for x in (obs.coords, coords))
        key = seen.tobytes(), query.tobytes()
        if key not in self.solved:
            modes = np.linalg.eigh(FIELD.posterior_covariance(seen, query))
            parts = (FIELD.posterior(seen, np.eye(len(seen)), query)[0], *modes)
            self.solved[key] = [torch.from_numpy(x).float() for x in parts]
        return self.solved[key]

    def forward(self, x_t, t, query, prepared=None):
        coords, obs = query.coords, query.obs
        weights, variances, modes = self.solve(coords, obs)
        mean = weights @ obs.values
        variances = variances.clamp_min(0) / self.factor**2
        time = float(t[0])
        gain = time * variances / (time**2 * variances + (1 - time) ** 2)
        return mean + modes @ (gain[:, None] * (modes.T @ (x_t - time * mean)))


def factor_of(model, obs, steps=10, sampler="deis:grid=late", **settings):
    """Return the inflation that held-out observations ask for."""
    chosen = build_sampler(sampler, steps)
    return model.condition(obs).recalibrated(sampler=chosen, **settings).inflation.factor


def make_model(factor):
    spec = ModelSpec("v1", {}, "data", 1.0, NORMALIZER, SHAPE)
    # the closed form is that of white noise, on the grid and off it
    return Model("posterior", Flow(ExactPosterior(factor), "data", noise=WhiteNoise()), spec)


@pytest.fixture(scope="module")
def field():
    """Truth (L, C) in physical units and observations of some of its points."""
    rng, coords = np.random.default_rng(0), cell_centres(SHAPE)
    unit = FIELD.sample(coords.double().numpy(), C, rng).T
    truth = NORMALIZER.invert(torch.from_numpy(unit).float())
    index = torch.from_numpy(rng.permutation(len(coords))[:M])
    return truth, Observation(coords[index], truth[index])


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_factor_by_which_draws_are_too_narrow_is_found_from_observations(field, factor):
    settings = {"folds": 4, "samples": 12, "steps": 20}
    assert factor_of(make_model(factor), field[1], **settings) == pytest.approx(factor, rel=0.06)


def test_recalibrated_draws_err_as_they_spread(field):
    truth, obs = field
    posterior, sampler = make_model(2.0).condition(obs), build_sampler("deis:grid=late", 20)
    plain = posterior.sample(None, 12, sampler=sampler)
    scaled = posterior.recalibrated(sampler=sampler).sample(None, 12, sampler=sampler)
    assert plain.inflation == 1
    assert torch.equal(plain.mean, scaled.mean)
    moved = plain.mean + scaled.inflation * (plain.samples - plain.mean)
    torch.testing.assert_close(scaled.samples, moved)
    torch.testing.assert_close(scaled.std, scaled.samples.std(0))
    error = ((truth - plain.mean) / SCALES).square().mean()
    for result, expected in ((plain, 0.25), (scaled, 1.0)):
        delta_cal = (result.std / SCALES).square().mean() / error
        assert delta_cal.item() == pytest.approx(expected, rel=0.15)
    each = (plain.nfe - 1) // len(plain.samples)
    assert scaled.nfe == plain.nfe + 5 * (1 + 8 * each)
    rows = torch.cdist(scaled.coords, obs.coords).argmin(0)
    assert torch.equal(scaled.samples[:, rows], obs.values.expand(12, -1, -1))


@pytest.fixture
def noisy(field, monkeypatch):
    """Measurements with an error of 0.3 normalised units, of a field whose prior is known."""

    def known(coords, values, noise, **candidates):
        return GaussianField(FIELD.length, (noise[0] / 0.3) ** 2, mean=5.0)

    monkeypatch.setattr("sparsefield.data.measurement.fit_gaussian_field", known)
    truth, obs = field
    error = 0.3 * SCALES * torch.randn(obs.values.shape)
    return truth, Observation(obs.coords, obs.values + error, (0.3 * SCALES)[None])


def test_stated_noise_gives_the_posterior_of_noisy_measurements(noisy):
    _, obs = noisy
    sampler = build_sampler("deis:grid=late", 24)
    result = make_model(1.0).condition(obs).sample(None, 400, sampler=sampler)
    prior = GaussianField(FIELD.length, 1.0, 0.3**2)
    arrays = [obs.coords, NORMALIZER.apply(obs.values), result.coords]
    mean, std = prior.posterior(*(x.double().numpy() for x in arrays))
    np.testing.assert_allclose(NORMALIZER.apply(result.mean), mean, atol=2e-3)
    drawn = NORMALIZER.apply(result.samples)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 / 400**0.5)
    # averaged over the channels, which share the closed form
    spread = drawn.var(0).mean(-1).sqrt()
    np.testing.assert_allclose(spread, std[:, 0], rtol=0.06)


def test_recalibration_does_not_take_noise_for_error(noisy):
    _, obs = noisy
    exact = Observation(obs.coords, obs.values)
    settings = {"folds": 4, "samples": 12, "steps": 20}
    assert factor_of(make_model(1.0), obs, **settings) == pytest.approx(1, rel=0.1)
    assert factor_of(make_model(1.0), exact, **settings) > 1.2
    with pytest.raises(InputError, match="closer to the mean than their stated noise"):
        inflation_factor(
            lambda held: (torch.ones(4, 1), torch.randn(3, 4, 1)),
            torch.zeros(4, 1),
            2,
            0,
            noise=1.1,
        )


def test_observations_off_the_grid_and_padding_are_dealt_with(field):
    _, obs = field
    settings = {"folds": 3, "samples": 4, "steps": 6}
    shifted = Observation(obs.coords + 0.011, obs.values)
    assert factor_of(make_model(1.0), shifted, **settings) == pytest.approx(1, rel=0.15)
    padded = factor_of(make_model(1.0), shifted.pad(M + 5), **settings)
    assert padded == factor_of(make_model(1.0), shifted, **settings)


def test_every_observation_is_held_out_once():
    folds = list(hold_out(11, 3, seed=0))
    assert [int(held.sum()) for held in folds] == [4, 4, 3]
    assert torch.stack(folds).sum(0).tolist() == [1] * 11
    assert all(torch.equal(a, b) for a, b in zip(folds, hold_out(11, 3, seed=0), strict=True))
    assert not torch.equal(folds[0], next(hold_out(11, 3, seed=1)))


def test_the_factor_compares_held_out_errors_with_the_unbiased_variance():
    values = torch.tensor([[3.0], [0.0]])
    draws = torch.tensor([-1.0, 0.0, 1.0])[:, None, None].expand(3, 2, 1)  # variance 1
    found = inflation_factor(lambda held: (torch.zeros(2, 1), draws), values, folds=2, seed=0)
    assert found == pytest.approx(np.sqrt(9 / 2))


def test_exact_means_leave_the_spread_and_draws_without_spread_are_refused():
    values, same = torch.ones(4, 1), torch.ones(3, 4, 1)
    assert inflation_factor(lambda held: (values, same), values, folds=2, seed=0) == 1
    with pytest.raises(InputError, match="do not vary"):
        inflation_factor(lambda held: (values + 1, same), values, folds=2, seed=0)


def test_inflation_moves_samples_about_the_mean():
    draws, mean = torch.randn(3, 7, 2), torch.randn(7, 2)
    assert torch.equal(inflate(mean.expand(3, -1, -1), mean, 9.0), mean.expand(3, -1, -1))
    scaled = inflate(draws, mean, 2.0)
    torch.testing.assert_close(scaled - mean, 2 * (draws - mean))


def test_recalibrated_draws_stay_within_the_range_of_values(field):
    _, obs = field
    low, high = obs.values.min().item(), obs.values.max().item()
    bounded = Normalizer(NORMALIZER.offset, NORMALIZER.scale, low, high)
    spec = ModelSpec("v1", {}, "data", 1.0, bounded, SHAPE)
    model = Model("bounded", make_model(3.0).flow, spec)
    sampler = build_sampler("deis:grid=late", 4)
    result = model.condition(obs).recalibrated(sampler=sampler).sample(None, 3, sampler=sampler)
    assert result.inflation > 1
    assert result.samples.min() >= low
    assert result.samples.max() <= high


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, "23 observations cannot be held out in 1 fold"),
        ({"folds": 24}, "23 observations cannot be held out in 24 folds"),
        ({"samples": 1}, "samples >= 2"),
        ({"seed": -1}, "seed >= 0"),
        ({"sampler": "rk4"}, "unknown sampler 'rk4'"),
    ],
)
def test_what_cannot_be_fitted_is_refused(field, settings, message):
    with pytest.raises(InputError, match=message):
        factor_of(make_model(1.0), field[1], **settings)
