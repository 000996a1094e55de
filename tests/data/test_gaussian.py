import numpy as np
import pytest

from sparsefield.core.errors import InputError
from sparsefield.data.gaussian import KERNELS, GaussianField

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


@pytest.mark.parametrize("kernel", KERNELS)
def test_stated_errors_add_to_the_nugget(kernel):
    coords, values, query = points()
    noise = RNG(4).uniform(0, 2, M)
    field = GaussianField(0.7, 2.0, nugget=0.1, mean=1.0, kernel=kernel)
    prior = 2 * field.correlation(np.vstack([query, coords]), np.vstack([query, coords]))
    gain = prior[:L, L:] @ np.linalg.inv(prior[L:, L:] + np.diag(0.2 + noise**2))
    covariance = prior[:L, :L] - gain @ prior[L:, :L]
    mean, std = field.posterior(coords, values, query, noise=noise)
    np.testing.assert_allclose(mean, 1 + gain @ (values - 1), atol=1e-8)
    np.testing.assert_allclose(std**2, np.tile(np.diag(covariance)[:, None], C), atol=1e-8)
    found = 2 * field.posterior_covariance(coords, query, noise)
    np.testing.assert_allclose(found, covariance, atol=1e-8)


def test_stated_errors_need_one_variance():
    coords, values, query = points()
    with pytest.raises(InputError, match="channels one by one"):
        GaussianField(1.0, np.ones(C)).posterior(coords, values, query, noise=np.ones(M))


def test_parameters_out_of_range_are_errors():
    with pytest.raises(InputError, match="length > 0"):
        GaussianField(0.0)
    with pytest.raises(InputError, match="choose one of: exponential"):
        GaussianField(1.0, kernel="rbf")
    with pytest.raises(InputError, match="too close together"):
        GaussianField(1.0).posterior(np.zeros((2, 1)), np.zeros((2, 1)), np.ones((1, 1)))
