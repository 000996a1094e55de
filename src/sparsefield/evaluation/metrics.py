"""Metrics of fields and of ensembles: one value per item, never an average over the batch.

Fields have shape (B, L, C), draws (S, B, L, C). `where`, bool of shape (B, L), restricts a metric
to some points, for example the unobserved ones.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsefield.errors import InputError


def mse(prediction: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the mean squared error of each item, shape (B,).

    Args:
        prediction: predicted field, shape (B, L, C).
        truth: true field, shape (B, L, C).
        where: points that count, shape (B, L); all by default.
    """
    return _mean((prediction - truth).double().square(), where)


def mae(prediction: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the mean absolute error of each item, shape (B,); arguments as for `mse`."""
    return _mean((prediction - truth).double().abs(), where)


def psnr(
    prediction: Tensor, truth: Tensor, where: Tensor | None = None, data_range: float = 1.0
) -> Tensor:
    """Return the peak signal-to-noise ratio of each item in dB, `10 log10(range^2 / mse)`.

    Args:
        prediction: predicted field, shape (B, L, C).
        truth: true field, shape (B, L, C).
        where: points that count, shape (B, L); all by default.
        data_range: difference between the largest and the smallest possible value.

    Returns:
        PSNR, shape (B,), infinite for a perfect prediction.
    """
    return 10 * torch.log10(data_range**2 / mse(prediction, truth, where))


def ssim(prediction: Tensor, truth: Tensor, data_range: float = 1.0) -> Tensor:
    """Return the mean structural similarity of each item, as scikit-image defines it by default.

    Windows of 7 cells along each axis, with uniform weight and sample covariances, wherever they
    fit into the grid; `K1 = 0.01`, `K2 = 0.03`.

    Reference: Wang et al., Image quality assessment: from error visibility to structural
    similarity (2004), equation 13.

    Args:
        prediction: predicted fields on a grid of one to three axes, shape (B, *grid, C).
        truth: true fields, shape (B, *grid, C).
        data_range: difference between the largest and the smallest possible value.

    Returns:
        SSIM averaged over windows and channels, shape (B,).

    Raises:
        InputError: if a window does not fit into the grid.
    """
    if min(truth.shape[1:-1]) < 7:
        raise InputError(f"ssim needs at least 7 cells along each axis, got {truth.shape[1:-1]}")
    x, y = (field.double().movedim(-1, 1) for field in (prediction, truth))
    mean_x, mean_y = _window_mean(x, 7), _window_mean(y, 7)
    cells = 7 ** (x.ndim - 2)
    unbiased = cells / (cells - 1)
    var_x = unbiased * (_window_mean(x * x, 7) - mean_x**2)
    var_y = unbiased * (_window_mean(y * y, 7) - mean_y**2)
    cov = unbiased * (_window_mean(x * y, 7) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return (luminance * structure).flatten(1).mean(dim=1)


def crps_ensemble(draws: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the fair continuous ranked probability score of each item.

    `mean_s |X_s - y| - sum_{s, r} |X_s - X_r| / (2 S (S - 1))`: the expected score of the
    distribution that the draws come from, whatever their number.

    Reference: Ferro, Fair scores for ensemble forecasts (2014).

    Args:
        draws: sampled fields, shape (S, B, L, C), at least two.
        truth: true field, shape (B, L, C).
        where: points that count, shape (B, L); all by default.

    Returns:
        CRPS in the units of the values, shape (B,); it can be slightly negative.

    Raises:
        InputError: if there are fewer than two draws.
    """
    count = _draw_count(draws)
    ordered = draws.double().sort(dim=0).values
    # A sorted draw at rank k is the larger one of k pairs and the smaller one of S - 1 - k.
    rank = torch.arange(count, dtype=torch.float64, device=draws.device)
    pairs = torch.tensordot(2 * rank - count + 1, ordered, dims=1)
    error = (ordered - truth).abs().mean(dim=0)
    return _mean(error - pairs / (count * (count - 1)), where)


def crps_gaussian(mean: Tensor, std: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the continuous ranked probability score of Gaussian forecasts, per item.

    `std (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))` with `z = (y - mean) / std`; the absolute
    error where `std` is 0.

    Reference: Gneiting et al., Calibrated probabilistic forecasting using ensemble model output
    statistics and minimum CRPS estimation (2005), equation 5.

    Args:
        mean: forecast mean, shape (B, L, C).
        std: forecast standard deviation, at least 0, shape (B, L, C).
        truth: true field, shape (B, L, C).
        where: points that count, shape (B, L); all by default.

    Returns:
        CRPS in the units of the values, shape (B,).
    """
    error, std = (truth - mean).double(), std.double()
    z = error / torch.where(std > 0, std, 1.0)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    score = std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
    return _mean(torch.where(std > 0, score, error.abs()), where)


def coverage(draws: Tensor, truth: Tensor, level: float, where: Tensor | None = None) -> Tensor:
    """Return the fraction of true values inside the central interval of the draws, per item.

    The interval ends at the Weibull quantiles, rank `q (S + 1)` among the sorted draws, so that
    calibrated draws cover `level` in expectation if `S >= 2 / (1 - level) - 1`: 3 draws for 50 %,
    19 for 90 %. Fewer draws reach `(S - 1) / (S + 1)` at most.

    Reference: Hyndman and Fan, Sample quantiles in statistical packages (1996), definition 6.

    Args:
        draws: sampled fields, shape (S, B, L, C), at least two.
        truth: true field, shape (B, L, C).
        level: nominal coverage, in (0, 1).
        where: points that count, shape (B, L); all by default.

    Returns:
        Observed coverage in [0, 1], shape (B,).

    Raises:
        InputError: if there are fewer than two draws.
    """
    count = _draw_count(draws)
    ordered = draws.double().sort(dim=0).values
    position = min(max((1 - level) / 2 * (count + 1) - 1, 0.0), (count - 1) / 2)
    below, weight = int(position), position % 1
    low = torch.lerp(ordered[below], ordered[below + 1], weight)
    high = torch.lerp(ordered[count - 1 - below], ordered[count - 2 - below], weight)
    return _mean(((low <= truth) & (truth <= high)).double(), where)


def spread_skill(draws: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the ratio of spread to skill of each item, 1 if draws and truth are exchangeable.

    `sqrt((S + 1) / S) sqrt(mean variance of the draws) / rmse of their mean`.

    Reference: Fortin et al., Why should ensemble spread match the RMSE of the ensemble mean?
    (2014), equation 15.

    Args:
        draws: sampled fields, shape (S, B, L, C), at least two.
        truth: true field, shape (B, L, C).
        where: points that count, shape (B, L); all by default.

    Returns:
        The ratio, shape (B,): below 1 the draws are too sure, above 1 too wide.

    Raises:
        InputError: if there are fewer than two draws.
    """
    count = _draw_count(draws)
    return ((count + 1) / count * delta_cal(draws, truth, where=where)).sqrt()


def delta_cal(
    draws: Tensor, truth: Tensor, mean: Tensor | None = None, where: Tensor | None = None
) -> Tensor:
    """Return the variance of the draws over the squared error of the mean, per item.

    It is 1 for draws from the true posterior and its mean; with the mean of S such draws in place
    of the posterior's, `S / (S + 1)`.

    Args:
        draws: sampled fields, shape (S, B, L, C), at least two.
        truth: true field, shape (B, L, C).
        mean: posterior mean, shape (B, L, C); the mean of the draws by default.
        where: points that count, shape (B, L); all by default.

    Returns:
        The ratio, shape (B,).

    Raises:
        InputError: if there are fewer than two draws.
    """
    _draw_count(draws)
    exact = draws.double()
    variance = _mean(exact.var(dim=0), where)
    return variance / mse(exact.mean(dim=0) if mean is None else mean, truth, where)


def speckle_energy(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return the energy of isolated wrong cells where the truth is smooth, per item.

    The residual `r = prediction - truth` is high-pass filtered, `h = r - (3 x 3 mean of r)`, and
    `h^2` is averaged over the quarter of the cells around which the truth varies least (its
    variance in 3 x 3 windows, summed over channels; cells at the border have no window). White
    noise of variance `v` gives `8/9 v`; an error that is linear in space gives 0.

    Args:
        prediction: predicted images, shape (B, H, W, C).
        truth: true images, shape (B, H, W, C).

    Returns:
        Energy in squared units of the values, shape (B,).
    """
    error, target = (x.double().movedim(-1, 1) for x in (prediction - truth, truth))
    high_pass = error[..., 1:-1, 1:-1] - _window_mean(error, 3)
    variation = (_window_mean(target**2, 3) - _window_mean(target, 3) ** 2).sum(dim=1).flatten(1)
    energy = high_pass.square().mean(dim=1).flatten(1)
    smoothest = variation.argsort(dim=1, stable=True)[:, : math.ceil(variation.shape[1] / 4)]
    return energy.gather(1, smoothest).mean(dim=1)


def bootstrap_interval(
    values: np.ndarray | Tensor, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean over items.

    Args:
        values: one value per item, shape (N,).
        level: confidence, in (0, 1).
        resamples: number of resamples of the items.
        seed: seed of the resampling.

    Returns:
        Lower and upper end of the interval.
    """
    sample = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = [sample[rng.integers(len(sample), size=len(sample))].mean() for _ in range(resamples)]
    # Ends at resampled means rather than between them: a perfect PSNR is infinite.
    ends = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return float(ends[0]), float(ends[1])


def _mean(values: Tensor, where: Tensor | None) -> Tensor:
    """Return the mean over points and channels of each item, shape (B,)."""
    over_channels = values.mean(dim=-1)
    if where is None:
        return over_channels.mean(dim=-1)
    return over_channels.masked_fill(~where, 0).sum(dim=-1) / where.sum(dim=-1)


def _window_mean(values: Tensor, width: int) -> Tensor:
    """Return the means of all windows that fit into a grid, for shape (B, C, *grid)."""
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[values.ndim - 3]
    return pool(values, width, stride=1)


def _draw_count(draws: Tensor) -> int:
    if len(draws) < 2:
        raise InputError(f"this score needs at least 2 draws, got {len(draws)}")
    return len(draws)
