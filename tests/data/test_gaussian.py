import numpy as np
import pytest

from sparsefield.core.errors import InputError
from sparsefield.data.gaussian import KERNELS, GaussianField, fit_gaussian_field

RNG = np.random.default_rng
M, L, P, C = 23, 41, 3, 5


def points(seed=0):
    rng = RNG(seed)
    return rng.uniform(-1, 1, (M, P)), rng.normal(size=(M, C)), rng.uniform(-1, 1, (L, P))


@pytest.mark.parametrize("kernel", KERNELS)
def test_posterior_conditions_the_joint_normal_distribution(kernel):
    coords, values, query = points()
    variance, mean = np.linspace(0.5, 2, C), np.linspace(-1, 1, C)
    field = GaussianField(0.7, variance, nugget=0.1, mean=mean, kernel=kernel)
    prior = field.correlation(np.vstack([query, coords]), np.vstack([query, coords]))
    gain = prior[:L, L:] @ np.linalg.inv(prior[L:, L:] + 0.1 * np.eye(M))
    covariance = prior[:L, :L] - gain @ prior[L:, :L]
    predicted, std = field.posterior(coords, values, query)
    np.testing.assert_allclose(predicted, mean + gain @ (values - mean), atol=1e-8)
    np.testing.assert_allclose(std**2, np.diag(covariance)[:, None] * variance, atol=1e-8)
    np.testing.assert_allclose(field.posterior_covariance(coords, query), covariance, atol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_noise_the_posterior_passes_through_the_measurements(kernel):
    coords, values, _ = points()
    mean, std = GaussianField(0.3, kernel=kernel).posterior(coords, values, coords)
    np.testing.assert_allclose(mean, values, atol=1e-5)
    np.testing.assert_allclose(std, 0, atol=1e-3)


def test_samples_have_the_stated_moments():
    coords = RNG(1).uniform(-1, 1, (6, 2))
    field = GaussianField(0.8, variance=4.0, mean=3.0)
    draws = field.sample(coords, 40_000, RNG(0))
    np.testing.assert_allclose(draws.mean(axis=0), 3, atol=0.05)
    np.testing.assert_allclose(np.cov(draws.T), 4 * field.correlation(coords, coords), atol=0.12)


def test_fit_recovers_the_parameters_of_a_sampled_field():
    rng = RNG(0)
    coords = rng.uniform(-1, 1, (300, 2))
    truth = GaussianField(0.25, variance=2.0, mean=10.0)
    values = truth.sample(coords, 4, rng).T + np.sqrt(0.2) * rng.standard_normal((300, 4))
    fitted = fit_gaussian_field(coords, values)
    assert 0.25 / 1.6 < fitted.length < 0.25 * 1.6
    assert fitted.nugget in (0.03, 0.1, 0.3)
    np.testing.assert_allclose(np.mean(fitted.variance), 2, rtol=0.4)
    np.testing.assert_allclose(fitted.mean, 10, atol=1)


def test_fit_does_not_depend_on_units():
    coords, values, _ = points()
    base = fit_gaussian_field(coords, values)
    scaled = fit_gaussian_field(coords * 50, values * 1000 + 7)
    assert scaled.length == pytest.approx(50 * base.length)
    assert scaled.nugget == base.nugget
    np.testing.assert_allclose(scaled.variance, 1e6 * base.variance, rtol=1e-6)
    np.testing.assert_allclose(scaled.mean, 1000 * base.mean + 7, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, M])
def test_fit_survives_constant_values(count):
    coords, _, query = points()
    values = np.full((count, C), 3.0)
    mean, std = fit_gaussian_field(coords[:count], values).posterior(coords[:count], values, query)
    np.testing.assert_allclose(mean, 3, atol=1e-6)
    assert np.isfinite(std).all()


def test_parameters_out_of_range_are_errors():
    with pytest.raises(InputError, match="length > 0"):
        GaussianField(0.0)
    with pytest.raises(InputError, match="choose one of: exponential"):
        GaussianField(1.0, kernel="rbf")
    with pytest.raises(InputError, match="too close together"):
        GaussianField(1.0).posterior(np.zeros((2, 1)), np.zeros((2, 1)), np.ones((1, 1)))
