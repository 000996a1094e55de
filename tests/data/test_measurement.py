"""True values behind noisy measurements, against the Gaussian closed form."""

import numpy as np
import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.gaussian import GaussianField
from sparsefield.data.measurement import MOST_POINTS, merge_readings, true_values
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
    gain = k @ np.linalg.inv(k + np.diag(np.full(M, sigma) ** 2))
    return prior.mean + gain @ (obs.values.numpy() - prior.mean), k - gain @ k


KNOWN = [PRIOR] * C


def test_expectation_and_deviation_are_those_of_the_closed_form(measured):
    obs, _ = measured
    expected, *samples = true_values(obs, SIGMA, 4000, priors=KNOWN)
    mean, covariance = direct(obs)
    np.testing.assert_allclose(expected.values.numpy(), mean, rtol=1e-6)
    found = torch.stack([sample.values for sample in samples]).numpy()
    np.testing.assert_allclose(found.mean(0), mean, atol=0.05)
    for c in range(C):
        np.testing.assert_allclose(np.cov(found[..., c].T), covariance, atol=0.03)
    assert abs(np.corrcoef(found[:, 0, 0], found[:, 0, 1])[0, 1]) < 0.1


def test_prediction_from_the_true_values_is_the_one_from_the_measurements(measured):
    """The law of total probability: kriging samples of f averages to kriging y with its noise."""
    obs, _ = measured
    coords, query = obs.coords.numpy(), np.array([[0.1, 0.2], [-0.7, 0.9]])
    noise = np.full(M, SIGMA)
    exact, deviation = PRIOR.posterior(coords, obs.values.numpy(), query, noise=noise)
    noiseless = GaussianField(0.6, 2.0, 1e-9, 3.0)
    samples = true_values(obs, SIGMA, 4000, priors=KNOWN)[1:]
    means, within = zip(
        *(noiseless.posterior(coords, each.values.numpy(), query) for each in samples), strict=True
    )
    np.testing.assert_allclose(np.mean(means, axis=0), exact, atol=0.06)
    total = np.var(means, axis=0) + within[0] ** 2
    np.testing.assert_allclose(np.sqrt(total), deviation, rtol=0.06)


def test_fitted_prior_brings_measurements_closer_to_the_truth(measured):
    obs, truth = measured
    expected = true_values(obs, SIGMA)[0].values.numpy()
    before, after = (((v - truth) ** 2).mean() for v in (obs.values.numpy(), expected))
    assert after < 0.75 * before


def test_small_noise_leaves_the_measurements_alone(measured):
    obs, _ = measured
    for each in true_values(obs, 1e-4, 2):
        torch.testing.assert_close(each.values, obs.values, atol=1e-3, rtol=0)


def test_noise_may_differ_by_channel(measured):
    obs, _ = measured
    expected = true_values(obs, [1e-4, 0.5, 2.0])[0].values
    moved = (expected - obs.values).square().mean(0)
    assert moved[0] < 1e-6 < moved[1] < moved[2]


def test_noise_may_differ_by_point_and_is_taken_from_the_observation(measured):
    obs, _ = measured
    noise = np.random.default_rng(0).uniform(0.01, 3, (M, C))
    own = Observation(obs.coords, obs.values, noise)
    found = true_values(own, priors=KNOWN)[0].values.numpy()
    for c in range(C):
        mean, _ = direct(obs, noise[:, c])
        np.testing.assert_allclose(found[:, c], mean[:, c], rtol=1e-6)
    stated = true_values(obs, noise, priors=KNOWN)[0].values.numpy()
    np.testing.assert_allclose(found, stated, rtol=1e-12)


def test_readings_of_a_place_equal_their_mean_with_less_noise(measured):
    """N readings with sigma are one with sigma / sqrt(n), given a prior and fitted alike."""
    obs, _ = measured
    rng = np.random.default_rng(0)
    readings = obs.values[:, None] + SIGMA * torch.from_numpy(rng.normal(size=(M, 4, C)))
    many = Observation(obs.coords.repeat_interleave(4, 0), readings.flatten(0, 1), SIGMA)
    one = Observation(obs.coords, readings.mean(dim=1), SIGMA / 2)
    for priors in (KNOWN, None):
        pairs = zip(
            true_values(many, samples=2, priors=priors),
            true_values(one, samples=2, priors=priors),
            strict=True,
        )
        for found, expected in pairs:
            repeated = expected.values.repeat_interleave(4, 0)
            torch.testing.assert_close(found.values, repeated, atol=1e-9, rtol=0)


def test_merged_readings_are_the_posterior_of_all():
    """The exact check: a prior given the readings equals the prior given what they merge to."""
    rng = np.random.default_rng(0)
    coords = np.repeat(rng.uniform(-1, 1, (9, P)), [1, 2, 3, 1, 4, 1, 2, 1, 5], axis=0)
    values, noise = rng.normal(size=(20, 1)), rng.uniform(0.1, 2, (20, 1))
    order = rng.permutation(20)
    coords, values, noise = coords[order], values[order], noise[order]
    query = rng.uniform(-1, 1, (6, P))
    places = merge_readings(coords, values, noise)
    assert len(places.coords) == 9
    np.testing.assert_array_equal(places.coords[places.place], coords)
    all_of_them = PRIOR.posterior(coords, values, query, noise=noise[:, 0])
    merged = PRIOR.posterior(places.coords, places.values, query, noise=places.noise[:, 0])
    np.testing.assert_allclose(merged[0], all_of_them[0], atol=1e-9)
    np.testing.assert_allclose(merged[1], all_of_them[1], atol=1e-9)


def test_an_exact_reading_outweighs_noisy_ones():
    coords, values = np.zeros((4, P)), np.array([[1.0], [2.0], [4.0], [9.0]])
    places = merge_readings(coords, values, np.array([[0.0], [0.5], [0.0], [0.1]]))
    np.testing.assert_array_equal(places.values, [[2.5]])
    np.testing.assert_array_equal(places.noise, [[0.0]])


def test_a_channel_without_noise_is_left_alone(measured):
    obs, _ = measured
    noise = np.tile([0.0, 0.5, 2.0], (M, 1))
    for each in true_values(obs, noise, 2):
        torch.testing.assert_close(each.values[:, 0], obs.values[:, 0])
    assert not torch.allclose(true_values(obs, noise)[0].values[:, 2], obs.values[:, 2])


def test_a_sample_depends_on_seed_and_number_alone(measured):
    obs, _ = measured
    few, many = (true_values(obs, SIGMA, n, seed=4) for n in (2, 5))
    for a, b in zip(few, many, strict=False):
        assert torch.equal(a.values, b.values)
    other = true_values(obs, SIGMA, 1, seed=5)
    assert torch.equal(other[0].values, few[0].values)
    assert not torch.allclose(other[1].values, few[1].values)


def test_constant_measurements_stay_constant():
    obs = Observation(torch.rand(7, 2), torch.full((7, 1), 3.0))
    torch.testing.assert_close(true_values(obs, 0.1)[0].values, obs.values)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (-0.1, "at least 0, not -0.1"),
        (float("nan"), "must be finite"),
        ([0.1, 0.2], "takes one number, 3 or 40 x 3, not 2"),
    ],
)
def test_bad_noise_is_one_clear_line(measured, noise, message):
    with pytest.raises(InputError, match=message):
        true_values(measured[0], noise)


def test_too_many_measurements_are_refused_before_the_memory_is_gone():
    coords = np.random.default_rng(0).uniform(-1, 1, (MOST_POINTS + 1, 2))
    obs = Observation(coords, np.zeros((MOST_POINTS + 1, 1)))
    with pytest.raises(InputError, match=f"{MOST_POINTS} measurements at most"):
        true_values(obs, 0.1)
