import math

import numpy as np
import pytest
import scoringrules
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sparsefield import metrics
from sparsefield.core.errors import InputError
from sparsefield.metrics.statistics import Estimate, estimate

B, L, C, S = 2, 63, 5, 7


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pair(*shape):
    return torch.rand(*shape), torch.rand(*shape)


FIELD_METRICS = [metrics.mse, metrics.mae, metrics.psnr]
SAMPLE_METRICS = [
    metrics.energy_score,
    lambda samples, truth, where=None: metrics.variance(samples, where),
    metrics.crps_ensemble,
    lambda samples, truth, where=None: metrics.coverage(samples, truth, 0.5, where),
    metrics.spread_skill,
    lambda samples, truth, where=None: metrics.delta_cal(samples, truth, where=where),
]


@pytest.mark.parametrize("metric", FIELD_METRICS + SAMPLE_METRICS)
def test_items_are_scored_apart_and_only_where_asked(metric):
    truth, prediction = pair(B, L, C)
    if metric in SAMPLE_METRICS:
        prediction = torch.rand(S, B, L, C)
    where = torch.rand(B, L) < 0.5
    score = metric(prediction, truth, where=where)
    assert score.shape == (B,)
    second = metric(prediction[..., 1:, where[1], :], truth[1:, where[1]])
    torch.testing.assert_close(score[1:], second)


def test_perfect_prediction_scores_infinite_psnr_and_ssim_of_one():
    truth = torch.rand(B, 9, 11, C)
    assert (metrics.psnr(truth.flatten(1, 2), truth.flatten(1, 2)) == math.inf).all()
    torch.testing.assert_close(metrics.ssim(truth, truth), torch.ones(B).double())
    assert (metrics.residual_energy(truth, truth) == 0).all()


@pytest.mark.parametrize("data_range", [1.0, 40.0])
def test_psnr_and_ssim_agree_with_skimage(data_range):
    prediction, truth = (data_range * image.double() for image in pair(B, 13, 17, 3))
    psnr = metrics.psnr(prediction.flatten(1, 2), truth.flatten(1, 2), data_range=data_range)
    ssim = metrics.ssim(prediction, truth, data_range)
    for item in range(B):
        x, y = truth[item].numpy(), prediction[item].numpy()
        assert psnr[item].item() == pytest.approx(
            peak_signal_noise_ratio(x, y, data_range=data_range), abs=1e-6
        )
        expected = structural_similarity(x, y, data_range=data_range, channel_axis=-1)
        assert ssim[item].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(23,), (8, 9, 10), (7, 9, 8, 10)])
def test_ssim_agrees_with_skimage_on_any_number_of_axes(shape):
    prediction, truth = (field.double() for field in pair(1, *shape, 2))
    expected = structural_similarity(
        truth[0].numpy(), prediction[0].numpy(), data_range=1, channel_axis=-1
    )
    assert metrics.ssim(prediction, truth).item() == pytest.approx(expected, abs=1e-6)


def test_ssim_needs_room_for_its_window():
    with pytest.raises(InputError, match="at least 7 cells"):
        metrics.ssim(*pair(1, 6, 9, 3))


@given(st.integers(2, 9), st.integers(0, 2**31))
@settings(max_examples=20)
def test_crps_agrees_with_scoringrules(count, seed):
    rng = np.random.default_rng(seed)
    samples, truth = rng.normal(size=(count, B, L, C)), rng.normal(size=(B, L, C))
    score = metrics.crps_ensemble(torch.from_numpy(samples), torch.from_numpy(truth))
    expected = scoringrules.crps_ensemble(truth, samples, m_axis=0, estimator="fair")
    np.testing.assert_allclose(score, expected.mean(axis=(1, 2)), rtol=1e-9, atol=1e-12)


def test_crps_of_perfect_samples_is_zero():
    truth = torch.rand(B, L, C)
    assert (metrics.crps_ensemble(truth.expand(S, B, L, C), truth) == 0).all()


@given(st.integers(2, 9), st.integers(0, 2**31))
@settings(max_examples=20)
def test_energy_score_agrees_with_scoringrules(count, seed):
    rng = np.random.default_rng(seed)
    samples, truth = rng.normal(size=(count, B, L, C)), rng.normal(size=(B, L, C))
    score = metrics.energy_score(torch.from_numpy(samples), torch.from_numpy(truth))
    vectors = samples.reshape(count, B, L * C).swapaxes(0, 1)
    expected = scoringrules.es_ensemble(truth.reshape(B, L * C), vectors, estimator="fair")
    np.testing.assert_allclose(score, expected / math.sqrt(L * C), rtol=1e-9)


def test_energy_score_of_one_value_is_the_crps():
    samples, truth = torch.randn(S, B, 1, 1), torch.randn(B, 1, 1)
    expected = metrics.crps_ensemble(samples, truth)
    torch.testing.assert_close(metrics.energy_score(samples, truth), expected)


def test_energy_score_sees_samples_that_do_not_vary_together():
    truth, samples = torch.randn(200, 1, C).expand(-1, 9, -1), torch.randn(S, 200, 1, C)
    whole = samples.expand(-1, -1, 9, -1)
    shuffled = torch.stack([whole[torch.randperm(S), :, i] for i in range(9)], dim=2)
    torch.testing.assert_close(
        metrics.crps_ensemble(whole, truth), metrics.crps_ensemble(shuffled, truth)
    )
    scores = (metrics.energy_score(values, truth).mean() for values in (whole, shuffled))
    assert next(scores) < 0.99 * next(scores)


def test_fair_crps_does_not_depend_on_the_number_of_draws():
    truth, samples = torch.randn(1, 200_000, 1), torch.randn(20, 1, 200_000, 1)
    expected = 1 / math.sqrt(math.pi)  # E|X - Y| / 2 of two standard normal variables
    for count in (2, 20):
        score = metrics.crps_ensemble(samples[:count], truth).item()
        assert score == pytest.approx(expected, abs=0.01)


def test_gaussian_crps_agrees_with_scoringrules_and_is_the_error_without_spread():
    mean, truth = pair(B, L, C)
    std = torch.rand(B, L, C).double()
    expected = scoringrules.crps_normal(truth.numpy(), mean.numpy(), std.numpy()).mean(axis=(1, 2))
    np.testing.assert_allclose(metrics.crps_gaussian(mean, std, truth), expected, rtol=1e-5)
    sure = metrics.crps_gaussian(mean, torch.zeros_like(std), truth)
    torch.testing.assert_close(sure, metrics.mae(mean, truth))


@pytest.mark.parametrize(("level", "count"), [(0.5, 3), (0.5, 8), (0.9, 19), (0.9, 40)])
def test_samples_from_the_truth_s_distribution_are_calibrated(level, count):
    truth, samples = torch.randn(1, 40_000, 1), torch.randn(count, 1, 40_000, 1)
    assert metrics.coverage(samples, truth, level).item() == pytest.approx(level, abs=0.01)
    assert metrics.spread_skill(samples, truth).item() == pytest.approx(1, abs=0.02)
    exact = metrics.delta_cal(samples, truth, mean=torch.zeros_like(truth)).item()
    assert exact == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_few_samples_cover_what_is_said_to_be_within_their_reach(level):
    truth, samples = torch.randn(1, 40_000, 1), torch.randn(S, 1, 40_000, 1)
    expected = metrics.reachable_level(level, S)
    assert expected == (S - 1) / (S + 1)
    assert metrics.coverage(samples, truth, level).item() == pytest.approx(expected, abs=0.01)
    assert metrics.reachable_level(0.5, S) == 0.5


def test_gaussian_intervals_cover_their_level():
    truth = 3 + 2 * torch.randn(B, 40_000, 1)
    mean, std = torch.full_like(truth, 3), torch.full_like(truth, 2)
    for level in (0.5, 0.95):
        covered = metrics.covers_gaussian(mean, std, truth, level).double().mean().item()
        assert covered == pytest.approx(level, abs=0.01)


def test_errors_of_averages_fall_as_one_plus_one_over_their_number():
    truth, samples = torch.randn(1, 40_000, 1), torch.randn(8, 1, 40_000, 1)
    for count in (1, 3, 8):
        error = metrics.mse_of_averages(samples, truth, count).item()
        assert error == pytest.approx(1 + 1 / count, rel=0.03)
    with pytest.raises(InputError, match="8 samples have no averages of 9"):
        metrics.mse_of_averages(samples, truth, 9)


def test_ranks_of_exchangeable_truths_are_uniform_and_of_sure_samples_extreme():
    truth, samples = torch.randn(1, 40_000, 1), torch.randn(S, 1, 40_000, 1)
    counts = metrics.rank_histogram(samples, truth)
    assert counts.shape == (1, S + 1)
    assert counts.sum() == 40_000
    np.testing.assert_allclose(counts[0], 40_000 / (S + 1), rtol=0.06)  # four deviations
    sure = metrics.rank_histogram(0.3 * samples, truth)[0]
    assert sure[[0, -1]].sum() > 0.6 * 40_000


def test_a_rank_is_the_number_of_smaller_samples_and_ties_are_shared_out():
    samples = torch.tensor([0.0, 1.0, 1.0, 2.0]).reshape(4, 1, 1, 1).expand(4, 1, 3, 2)
    truth = torch.tensor([1.5, 1.0, 9.0]).reshape(1, 3, 1).expand(1, 3, 2)
    counts = metrics.rank_histogram(samples, truth)
    expected = 2 * torch.tensor([[0, 1 / 3, 1 / 3, 4 / 3, 1]], dtype=torch.float64)
    torch.testing.assert_close(counts, expected)
    where = torch.tensor([[True, False, False]])
    assert metrics.rank_histogram(samples, truth, where).tolist() == [[0, 0, 0, 2, 0]]


def test_samples_that_are_too_sure_are_found_out():
    truth, samples = torch.randn(1, 5000, 1), 0.5 * torch.randn(20, 1, 5000, 1)
    assert metrics.coverage(samples, truth, 0.9).item() < 0.7
    assert metrics.spread_skill(samples, truth).item() < 0.6
    assert metrics.delta_cal(samples, truth).item() < 0.35


@pytest.mark.parametrize("metric", SAMPLE_METRICS)
def test_one_draw_is_no_ensemble(metric):
    with pytest.raises(InputError, match="at least 2 samples"):
        metric(torch.rand(1, B, L, C), torch.rand(B, L, C))


def ramp(size=64):
    """Return an image whose left half is a ramp and whose right half is a fine texture."""
    i, j = np.mgrid[:size, :size] / size
    texture = 0.3 * np.sin(40 * i) * np.sin(37 * j)
    image = np.where(j < 0.5, 0.2 + 0.5 * i, 0.5 + texture)
    return torch.from_numpy(np.repeat(image[None, ..., None], 3, axis=-1))


def test_residual_energy_measures_the_variance_of_white_noise():
    truth = ramp()
    noise = 0.1 * torch.randn(truth.shape, dtype=torch.float64)
    energy = metrics.residual_energy(truth + noise, truth).item()
    assert energy == pytest.approx(8 / 9 * 0.01, rel=0.1)


def test_residual_energy_counts_speckles_but_not_smooth_or_textured_errors():
    truth = ramp()
    speckled = truth.clone()
    speckled[:, 5:60:6, 3:30:6] = 1.0
    smooth_error = truth + torch.linspace(-0.2, 0.2, 64).double()[:, None, None]
    wrong_texture = truth.clone()
    wrong_texture[:, :, 34:] = 0.5
    assert metrics.residual_energy(smooth_error, truth).item() < 1e-15
    assert metrics.residual_energy(wrong_texture, truth).item() < 1e-15
    assert metrics.residual_energy(speckled, truth).item() > 1e-3


def test_bootstrap_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = metrics.bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert metrics.bootstrap_interval(torch.from_numpy(values)) == (low, high)
    assert metrics.bootstrap_interval(values, level=0.5)[0] > low


def test_bootstrap_interval_of_infinite_values_is_infinite():
    assert metrics.bootstrap_interval(np.full(9, np.inf), resamples=50) == (np.inf, np.inf)


@pytest.mark.parametrize("values", [[3.0], [[3.0, 1.0]], [np.inf]])
def test_one_item_has_no_interval(values):
    """Resamples of it are all alike: no width would be a claim that nothing varies."""
    assert np.isnan(metrics.bootstrap_interval(np.array(values), resamples=50)).all()
    found = estimate(np.array(values))
    assert found.text(".1f") == f"{found.value:.1f}"
    assert Estimate(1.0, 0.5, 2.0).text("+.1f") == "+1.0 [+0.5, +2.0]"


def test_bootstrap_interval_of_a_ratio_of_sums_is_that_of_the_delta_method():
    rng = np.random.default_rng(0)
    pairs = rng.uniform(1, 3, (400, 2))

    def ratio(items):
        above, below = items.sum(axis=0)
        return above / below

    low, high = metrics.bootstrap_interval(pairs, statistic=ratio)
    centre, below = ratio(pairs), pairs[:, 1].mean()
    half = 1.96 * (pairs[:, 0] - centre * pairs[:, 1]).std() / below / 20
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=0.01)
