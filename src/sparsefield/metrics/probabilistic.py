"""Scores of ensembles and forecasts: one value per item, never an average over the batch.

Fields have shape (B, L, C), samples (S, B, L, C). `where`, bool (B, L), restricts a metric
to some points, for example the unobserved ones.
"""

import math
from statistics import NormalDist

import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.metrics.error import item_mean, mse


def crps_ensemble(samples: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the fair continuous ranked probability score of each item.

    `mean_s |X_s - y| - sum_{s, r} |X_s - X_r| / (2 S (S - 1))`: the expected score of the
    distribution that the samples come from, whatever their number.

    Reference: Ferro, Fair scores for ensemble forecasts (2014).

    Args:
        samples: Sampled fields, shape (S, B, L, C), at least two.
        truth: True field, shape (B, L, C).
        where: Points that count, shape (B, L); all by default.

    Returns:
        CRPS in the units of the values, shape (B,); it can be slightly negative.

    Raises:
        InputError: There are fewer than two samples.
    """
    count = _sample_count(samples)
    ordered = samples.double().sort(dim=0).values
    # A sorted sample at rank k is the larger one of k pairs and the smaller one of S - 1 - k.
    rank = torch.arange(count, dtype=torch.float64, device=samples.device)
    pairs = torch.tensordot(2 * rank - count + 1, ordered, dims=1)
    error = (ordered - truth).abs().mean(dim=0)
    return item_mean(error - pairs / (count * (count - 1)), where)


def energy_score(samples: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the fair energy score of each item, which judges samples as whole fields.

    `mean_s |X_s - y| - sum_{s, r} |X_s - X_r| / (2 S (S - 1))`, where `|.|` is the root mean
    square over points and channels: the score has the units of the values on any grid, and is the
    CRPS for a single value. Unlike the CRPS it sees whether values vary together as they should.

    Reference: Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation
    (2007), equation 22, with the fair mean over pairs of Ferro (2014).

    Args:
        samples: Sampled fields, shape (S, B, L, C), at least two.
        truth: True field, shape (B, L, C).
        where: Points that count, shape (B, L); all by default.

    Returns:
        Energy score in the units of the values, shape (B,); it can be slightly negative.

    Raises:
        InputError: There are fewer than two samples.
    """
    count = _sample_count(samples)
    counted = torch.ones_like(truth[..., 0]) if where is None else where
    deviations = ((samples - truth).double() * counted[..., None]).flatten(2).movedim(0, 1)
    # Distances by way of scalar products would lose the small ones.
    apart = torch.cdist(deviations, deviations, compute_mode="donot_use_mm_for_euclid_dist")
    error = deviations.norm(dim=-1).mean(dim=1)
    score = error - apart.sum(dim=(1, 2)) / (2 * count * (count - 1))
    return score / (counted.double().sum(dim=1) * truth.shape[-1]).sqrt()


def crps_gaussian(mean: Tensor, std: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the continuous ranked probability score of Gaussian forecasts, per item.

    `std (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))` with `z = (y - mean) / std`; the absolute
    error where `std` is 0.

    Reference: Gneiting et al., Calibrated probabilistic forecasting using ensemble model output
    statistics and minimum CRPS estimation (2005), equation 5.

    Args:
        mean: Forecast mean, shape (B, L, C).
        std: Forecast standard deviation, at least 0, shape (B, L, C).
        truth: True field, shape (B, L, C).
        where: Points that count, shape (B, L); all by default.

    Returns:
        CRPS in the units of the values, shape (B,).
    """
    error, std = (truth - mean).double(), std.double()
    z = error / torch.where(std > 0, std, 1.0)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    score = std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
    return item_mean(torch.where(std > 0, score, error.abs()), where)


def covers(samples: Tensor, truth: Tensor, level: float) -> Tensor:
    """Return where the central interval of the samples holds the true value, bool (B, L, C).

    The interval ends at the Weibull quantiles, rank `q (S + 1)` among the sorted samples, where
    calibrated samples cover `level` in expectation if `S >= 2 / (1 - level) - 1`: 3 samples for
    50 %, 9 for 80 %, 19 for 90 %, 39 for 95 %. Numbers in between are nearly right: for normal
    values the 50 % interval of 6 samples covers 52 %. Fewer samples cover less than asked, namely
    `reachable_level`.

    Reference: Hyndman and Fan, Sample quantiles in statistical packages (1996), definition 6.

    Args:
        samples: Sampled fields, shape (S, B, L, C), at least two.
        truth: True field, shape (B, L, C).
        level: Nominal coverage, in (0, 1).

    Raises:
        InputError: There are fewer than two samples.
    """
    count = _sample_count(samples)
    ordered = samples.double().sort(dim=0).values
    position = min(max((1 - level) / 2 * (count + 1) - 1, 0.0), (count - 1) / 2)
    below, weight = int(position), position % 1
    low = torch.lerp(ordered[below], ordered[below + 1], weight)
    high = torch.lerp(ordered[count - 1 - below], ordered[count - 2 - below], weight)
    return (low <= truth) & (truth <= high)


def covers_gaussian(mean: Tensor, std: Tensor, truth: Tensor, level: float) -> Tensor:
    """Return where the central interval of a Gaussian forecast holds the truth, bool (B, L, C).

    `|y - mean| <= Phi^-1((1 + level) / 2) std`.

    Args:
        mean: Forecast mean, shape (B, L, C).
        std: Forecast standard deviation, at least 0, shape (B, L, C).
        truth: True field, shape (B, L, C).
        level: Nominal coverage, in (0, 1).
    """
    return (truth - mean).abs() <= NormalDist().inv_cdf((1 + level) / 2) * std


def reachable_level(level: float, samples: int) -> float:
    """Return what the interval of S calibrated samples covers, `min(level, (S - 1) / (S + 1))`.

    The widest interval, from the least sample to the largest, leaves out one of S + 1 equally
    probable ranks on either side.

    Args:
        level: Nominal coverage, in (0, 1).
        samples: Number of samples S, at least 1.
    """
    return min(level, (samples - 1) / (samples + 1))


def coverage(samples: Tensor, truth: Tensor, level: float, where: Tensor | None = None) -> Tensor:
    """Return the fraction of true values inside the central interval of the samples, per item.

    Compare it with `reachable_level(level, S)`; see `covers`.

    Args:
        samples: Sampled fields, shape (S, B, L, C), at least two.
        truth: True field, shape (B, L, C).
        level: Nominal coverage, in (0, 1).
        where: Points that count, shape (B, L); all by default.

    Returns:
        Observed coverage in [0, 1], shape (B,).

    Raises:
        InputError: There are fewer than two samples.
    """
    return item_mean(covers(samples, truth, level), where)


def rank_histogram(samples: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return how often the truth takes each rank among the samples, per item, shape (B, S + 1).

    Rank r means that r of the S samples are smaller. All ranks are equally probable if samples and
    truth are exchangeable. Outer ranks prevail if samples are too sure. Where samples equal the
    truth, as they do at the ends of a clipped range, the count is divided evenly among the tied
    ranks, which is the average of taking one of them at random. Histograms of items may be added.

    Reference: Hamill, Interpretation of rank histograms for verifying ensemble forecasts (2001).

    Args:
        samples: Sampled fields, shape (S, B, L, C), at least two.
        truth: True field, shape (B, L, C).
        where: Points that count, shape (B, L); all by default.

    Returns:
        Counts of values, float64; each item's sum is its number of values.

    Raises:
        InputError: There are fewer than two samples.
    """
    count = _sample_count(samples)
    first = (samples < truth).sum(dim=0)
    last = (samples <= truth).sum(dim=0)
    share = 1 / (last - first + 1).double()
    if where is not None:
        share = share * where[..., None]
    ranks = [(share * ((first <= r) & (r <= last))).sum(dim=(1, 2)) for r in range(count + 1)]
    return torch.stack(ranks, dim=1)


def variance(samples: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the unbiased variance of the samples, averaged over each item, shape (B,).

    Args:
        samples: Sampled fields, shape (S, B, L, C), at least two.
        where: Points that count, shape (B, L); all by default.

    Raises:
        InputError: There are fewer than two samples.
    """
    _sample_count(samples)
    return item_mean(samples.double().var(dim=0), where)


def mse_of_averages(
    samples: Tensor, truth: Tensor, count: int, where: Tensor | None = None
) -> Tensor:
    """Return the mean squared error of averages of some samples, per item, shape (B,).

    The S samples make `S // count` groups of successive ones, whose errors are averaged.
    Samples from the true posterior give `1 + 1 / count` times the error of its mean.

    Args:
        samples: Sampled fields, shape (S, B, L, C).
        truth: True field, shape (B, L, C).
        count: Samples per average, from 1 to S.
        where: Points that count, shape (B, L); all by default.

    Raises:
        InputError: There are fewer samples than that.
    """
    if not 1 <= count <= len(samples):
        raise InputError(f"{len(samples)} samples have no averages of {count}")
    groups = (
        samples[: len(samples) // count * count].double().unflatten(0, (-1, count)).mean(dim=1)
    )
    return torch.stack([mse(average, truth, where) for average in groups]).mean(dim=0)


def spread_skill(samples: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the spread-skill ratio of each item, 1 if samples and truth are exchangeable.

    `sqrt((S + 1) / S) sqrt(mean variance of the samples) / rmse of their mean`.

    Reference: Fortin et al., Why should ensemble spread match the RMSE of the ensemble mean?
    (2014), equation 15.

    Args:
        samples: Sampled fields, shape (S, B, L, C), at least two.
        truth: True field, shape (B, L, C).
        where: Points that count, shape (B, L); all by default.

    Returns:
        The ratio, shape (B,): below 1 the samples are too sure, above 1 too wide.

    Raises:
        InputError: There are fewer than two samples.
    """
    count = _sample_count(samples)
    return ((count + 1) / count * delta_cal(samples, truth, where=where)).sqrt()


def delta_cal(
    samples: Tensor, truth: Tensor, mean: Tensor | None = None, where: Tensor | None = None
) -> Tensor:
    """Return the variance of the samples over the squared error of the mean, per item.

    Samples from the true posterior, with its mean, give 1. With the mean of S such samples in
    place of the posterior's they give `S / (S + 1)`. Both hold where numerator and denominator
    are averaged over many values. The ratio of a single item is large if its mean happens to be
    close to the truth.

    Args:
        samples: Sampled fields, shape (S, B, L, C), at least two.
        truth: True field, shape (B, L, C).
        mean: Posterior mean, shape (B, L, C); the mean of the samples by default.
        where: Points that count, shape (B, L); all by default.

    Returns:
        The ratio, shape (B,).

    Raises:
        InputError: There are fewer than two samples.
    """
    exact = samples.double()
    centre = exact.mean(dim=0) if mean is None else mean
    return variance(samples, where) / mse(centre, truth, where)


def _sample_count(samples: Tensor) -> int:
    if len(samples) < 2:
        raise InputError(f"this score needs at least 2 samples, got {len(samples)}")
    return len(samples)
