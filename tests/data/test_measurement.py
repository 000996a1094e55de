"""True values behind noisy measurements, against the Gaussian closed form."""

import numpy as np
import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.gaussian import GaussianField, fit_measured_field
from sparsefield.data.measurement import MOST_POINTS, true_values
from sparsefield.data.observation import Observation

M, P, C = 40, 2, 3
SIGMA = 0.5
PRIOR = GaussianField(length=0.6, variance=2.0, mean=3.0)


@pytest.fixture
def measured():
    """Measurements of three fields of the prior, and their true values."""
    rng = np.random.default_rng(1)
    coords = rng.uniform(-1, 1, (M, P))
    truth = PRIOR.sample(coords, C, rng).T
    noisy = truth + SIGMA * rng.standard_normal(truth.shape)
    return Observation(torch.from_numpy(coords), torch.from_numpy(noisy)), truth


def direct(obs, sigma=SIGMA, prior=PRIOR):
    """Return mean (M, C) and covariance (M, M) of the true values, by the formula as it stands."""
    coords = obs.coords.numpy()
    k = prior.variance * prior.correlation(coords, coords)
    gain = k @ np.linalg.inv(k + sigma**2 * np.eye(M))
    return prior.mean + gain @ (obs.values.numpy() - prior.mean), k - gain @ k


def known(sigma=SIGMA):
    return [GaussianField(0.6, 2.0, sigma**2 / 2, 3.0)] * C


def test_expectation_and_spread_are_those_of_the_closed_form(measured):
    obs, _ = measured
    expected, *draws = true_values(obs, SIGMA, draws=4000, priors=known())
    mean, covariance = direct(obs)
    np.testing.assert_allclose(expected.values.numpy(), mean, rtol=1e-6)
    drawn = torch.stack([draw.values for draw in draws]).numpy()
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.05)
    for c in range(C):
        np.testing.assert_allclose(np.cov(drawn[..., c].T), covariance, atol=0.03)
    assert abs(np.corrcoef(drawn[:, 0, 0], drawn[:, 0, 1])[0, 1]) < 0.1


def test_prediction_from_the_true_values_is_the_one_from_the_measurements(measured):
    """The law of total probability: kriging draws of f averages to kriging y with its nugget."""
    obs, _ = measured
    coords, query = obs.coords.numpy(), np.array([[0.1, 0.2], [-0.7, 0.9]])
    exact, spread = known()[0].posterior(coords, obs.values.numpy(), query)
    noiseless = GaussianField(0.6, 2.0, 1e-9, 3.0)
    draws = true_values(obs, SIGMA, draws=4000, priors=known())[1:]
    means, within = zip(
        *(noiseless.posterior(coords, draw.values.numpy(), query) for draw in draws), strict=True
    )
    np.testing.assert_allclose(np.mean(means, axis=0), exact, atol=0.06)
    total = np.var(means, axis=0) + within[0] ** 2
    np.testing.assert_allclose(np.sqrt(total), spread, rtol=0.06)


def test_fitted_prior_brings_measurements_closer_to_the_truth(measured):
    obs, truth = measured
    expected = true_values(obs, SIGMA)[0].values.numpy()
    before, after = (((v - truth) ** 2).mean() for v in (obs.values.numpy(), expected))
    assert after < 0.75 * before


def test_fit_with_known_noise_finds_the_signal_behind_it():
    rng = np.random.default_rng(0)
    coords = rng.uniform(-1, 1, (300, P))
    values = PRIOR.sample(coords, 1, rng).T + rng.standard_normal((300, 1))
    field = fit_measured_field(coords, values, 1.0)
    assert 0.3 < field.length < 1.2
    assert 0.7 < float(np.ravel(field.variance)[0]) < 5
    assert field.nugget * np.ravel(field.variance)[0] == pytest.approx(1.0)
    # the same measurements, said to be exact, are a rough field
    assert fit_measured_field(coords, values, 1e-3).length < field.length


def test_small_noise_leaves_the_measurements_alone(measured):
    obs, _ = measured
    for each in true_values(obs, 1e-4, draws=2):
        torch.testing.assert_close(each.values, obs.values, atol=1e-3, rtol=0)


def test_noise_may_differ_by_channel(measured):
    obs, _ = measured
    expected = true_values(obs, [1e-4, 0.5, 2.0])[0].values
    moved = (expected - obs.values).square().mean(0)
    assert moved[0] < 1e-6 < moved[1] < moved[2]


def test_a_draw_depends_on_seed_and_number_alone(measured):
    obs, _ = measured
    few, many = (true_values(obs, SIGMA, draws=n, seed=4) for n in (2, 5))
    for a, b in zip(few, many, strict=False):
        assert torch.equal(a.values, b.values)
    other = true_values(obs, SIGMA, draws=1, seed=5)
    assert torch.equal(other[0].values, few[0].values)
    assert not torch.allclose(other[1].values, few[1].values)


def test_constant_measurements_stay_constant():
    obs = Observation(torch.rand(7, 2), torch.full((7, 1), 3.0))
    torch.testing.assert_close(true_values(obs, 0.1)[0].values, obs.values)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (-0.1, "above 0, not -0.1"),
        (float("nan"), "finite number above 0"),
        ([0.1, 0.2], "takes one number or 3, not 2"),
    ],
)
def test_bad_noise_is_one_clear_line(measured, noise, message):
    with pytest.raises(InputError, match=message):
        true_values(measured[0], noise)


def test_too_many_measurements_are_refused_before_the_memory_is_gone():
    obs = Observation(torch.zeros(MOST_POINTS + 1, 2), torch.zeros(MOST_POINTS + 1, 1))
    with pytest.raises(InputError, match=f"{MOST_POINTS} measurements at most"):
        true_values(obs, 0.1)
