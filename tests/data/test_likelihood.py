"""The fit of Gaussian fields: its likelihood by hand, its search, and what it recovers."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from sparsefield.data.gaussian import GaussianField
from sparsefield.data.likelihood import (
    MATERN,
    Covariance,
    RestrictedLikelihood,
    candidates,
    fit_gaussian_field,
    search,
)

RNG = np.random.default_rng
M, L, P, C = 23, 41, 3, 5


def points(seed=0):
    rng = RNG(seed)
    return rng.uniform(-1, 1, (M, P)), rng.normal(size=(M, C)), rng.uniform(-1, 1, (L, P))


@pytest.mark.parametrize("noisy", [False, True])
def test_likelihood_is_that_of_contrasts(noisy):
    """It is the density of M - 1 orthonormal contrasts, whatever the mean (Stein 1999, 6.4)."""
    coords, values, _ = points()
    noise = RNG(2).uniform(0.1, 2, M) if noisy else None
    likelihood = RestrictedLikelihood(coords, values[:, :1], noise)
    contrasts = np.linalg.qr(np.column_stack([np.ones(M), np.eye(M)[:, 1:]]))[0][:, 1:]

    def density(length, share, total):
        field = GaussianField(length, kernel="matern52")
        covariance = (1 - share) * field.correlation(coords, coords) + share * np.eye(M)
        covariance = total * covariance + (np.diag(noise**2) if noisy else 0)
        spread = contrasts.T @ covariance @ contrasts
        return multivariate_normal(cov=spread).logpdf(contrasts.T @ values[:, 0])

    settings = [(0.3, 0.1, 2.0), (0.9, 0.01, 0.5), (0.2, 0.6, 1.0)]
    found = [likelihood(Covariance("matern52", *each)).likelihood for each in settings]
    expected = [density(*each) for each in settings]
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=1e-8)


def test_profiled_variance_and_mean_maximise_the_likelihood():
    coords, values, _ = points()
    likelihood = RestrictedLikelihood(coords, values[:, :1])
    best = likelihood(Covariance("matern32", 0.4, 0.1))
    variance = float(best.variance[0])
    heights = [
        likelihood(Covariance("matern32", 0.4, 0.1, factor * variance)).likelihood
        for factor in (0.99, 1.0, 1.01)
    ]
    assert heights[1] == pytest.approx(best.likelihood)
    assert heights[1] > max(heights[0], heights[2])


@pytest.mark.parametrize("seed", range(3))
def test_search_comes_close_to_the_best_of_a_fine_grid(seed):
    rng = RNG(seed)
    coords = rng.uniform(-1, 1, (60, 2))
    truth = GaussianField(0.4, nugget=0.05, kernel="exponential")
    values = truth.sample(coords, 2, rng).T + 0.2 * rng.normal(size=(60, 2))
    likelihood = RestrictedLikelihood(coords, values)

    def score(covariance):
        return likelihood(covariance).likelihood

    found = score(search(score, MATERN, candidates(coords)))
    fine = max(
        score(Covariance(kernel, length, share))
        for kernel in MATERN
        for length in np.geomspace(0.05, 4, 25)
        for share in (1e-8, 1e-3, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
    )
    assert found > fine - 0.5


def test_fit_recovers_the_parameters_of_a_sampled_field():
    rng = RNG(0)
    coords = rng.uniform(-1, 1, (300, 2))
    truth = GaussianField(0.25, variance=2.0, mean=10.0)
    values = truth.sample(coords, 4, rng).T + np.sqrt(0.2) * rng.standard_normal((300, 4))
    fitted = fit_gaussian_field(coords, values, kernels=("matern32",))
    assert 0.25 / 1.4 < fitted.length < 0.25 * 1.4
    assert 0.06 < fitted.nugget < 0.16
    np.testing.assert_allclose(np.mean(fitted.variance), 2, rtol=0.4)
    np.testing.assert_allclose(fitted.mean, 10, atol=1)


@pytest.mark.parametrize("kernel", MATERN)
def test_smoothness_is_found(kernel):
    rng = RNG(0)
    coords = rng.uniform(-1, 1, (200, 2))
    fields = GaussianField(0.3, kernel=kernel).sample(coords, 5, rng).T
    assert fit_gaussian_field(coords, fields).kernel == kernel


def test_fit_with_stated_errors_finds_the_signal_behind_them():
    rng = RNG(0)
    coords = rng.uniform(-1, 1, (300, 2))
    truth = GaussianField(0.6, variance=2.0, mean=3.0)
    noise = rng.uniform(0.2, 1.5, 300)
    values = truth.sample(coords, 1, rng).T + (noise * rng.normal(size=300))[:, None]
    field = fit_gaussian_field(coords, values, noise, kernels=("matern32",))
    assert 0.3 < field.length < 1.2
    assert 0.7 < float(field.variance[0]) < 6
    assert field.nugget < 0.1
    # the same measurements, said to be exact, have a nugget instead
    exact = fit_gaussian_field(coords, values, kernels=("matern32",))
    assert exact.nugget * exact.variance[0] == pytest.approx((noise**2).mean(), rel=0.3)


def test_fit_does_not_depend_on_units():
    coords, values, _ = points()
    base = fit_gaussian_field(coords, values)
    scaled = fit_gaussian_field(coords * 50, values * 1000 + 7)
    assert scaled.kernel == base.kernel
    assert scaled.length == pytest.approx(50 * base.length)
    assert scaled.nugget == pytest.approx(base.nugget)
    np.testing.assert_allclose(scaled.variance, 1e6 * base.variance, rtol=1e-6)
    np.testing.assert_allclose(scaled.mean, 1000 * base.mean + 7, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, M])
def test_fit_survives_constant_values(count):
    coords, _, query = points()
    values = np.full((count, C), 3.0)
    mean, std = fit_gaussian_field(coords[:count], values).posterior(coords[:count], values, query)
    np.testing.assert_allclose(mean, 3, atol=1e-6)
    np.testing.assert_allclose(std, 0, atol=1e-12)
