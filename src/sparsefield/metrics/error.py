"""Errors of fields: one value per item, never an average over the batch.

Fields have shape (B, L, C). `where`, bool of shape (B, L), restricts a metric
to some points, for example the unobserved ones.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsefield.core.errors import InputError


def mse(prediction: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the mean squared error of each item, shape (B,).

    Args:
        prediction: Predicted field, shape (B, L, C).
        truth: True field, shape (B, L, C).
        where: Points that count, shape (B, L); all by default.
    """
    return item_mean((prediction - truth).double().square(), where)


def mae(prediction: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the mean absolute error of each item, shape (B,); arguments as for `mse`."""
    return item_mean((prediction - truth).double().abs(), where)


def psnr(
    prediction: Tensor, truth: Tensor, where: Tensor | None = None, data_range: float = 1.0
) -> Tensor:
    """Return the peak signal-to-noise ratio of each item in dB, `10 log10(range^2 / mse)`.

    Args:
        prediction: Predicted field, shape (B, L, C).
        truth: True field, shape (B, L, C).
        where: Points that count, shape (B, L); all by default.
        data_range: Difference between the largest and the smallest possible value, above 0.

    Returns:
        PSNR in dB, shape (B,), infinite for a perfect prediction.
    """
    return 10 * torch.log10(data_range**2 / mse(prediction, truth, where))


def ssim(prediction: Tensor, truth: Tensor, data_range: float = 1.0) -> Tensor:
    """Return the mean structural similarity of each item, as scikit-image defines it by default.

    Windows of 7 cells along each axis, with uniform weight and sample covariances, wherever they
    fit into the grid; `K1 = 0.01`, `K2 = 0.03`.

    Reference: Wang et al., Image quality assessment: from error visibility to structural
    similarity (2004), equation 13.

    Args:
        prediction: Predicted fields on a grid of any number of axes, shape (B, *grid, C).
        truth: True fields, shape (B, *grid, C).
        data_range: Difference between the largest and the smallest possible value.

    Returns:
        SSIM averaged over windows and channels, shape (B,).

    Raises:
        InputError: A window does not fit into the grid.
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


def residual_energy(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return the speckle: the error's high-frequency energy where the truth is smooth, per item.

    The residual `r = prediction - truth` is high-pass filtered, `h = r - (3 x 3 mean of r)`, and
    `h^2` is averaged over the quarter of the cells around which the truth varies least (its
    variance in 3 x 3 windows, summed over channels; cells at the border have no window). White
    noise of variance `v` gives `8/9 v`; an error that is linear in space gives 0.

    Args:
        prediction: Predicted images, shape (B, H, W, C), H and W at least 3.
        truth: True images, shape (B, H, W, C).

    Returns:
        Energy in squared units of the values, shape (B,).
    """
    error, target = (x.double().movedim(-1, 1) for x in (prediction - truth, truth))
    high_pass = error[..., 1:-1, 1:-1] - _window_mean(error, 3)
    variation = (_window_mean(target**2, 3) - _window_mean(target, 3) ** 2).sum(dim=1).flatten(1)
    energy = high_pass.square().mean(dim=1).flatten(1)
    smoothest = variation.argsort(dim=1, stable=True)[:, : math.ceil(variation.shape[1] / 4)]
    return energy.gather(1, smoothest).mean(dim=1)


def item_mean(values: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the mean over points and channels of each item, shape (B,); NaN where none counts.

    Args:
        values: Numbers or truth values, shape (B, L, C).
        where: Points that count, shape (B, L); all by default.
    """
    over_channels = values.double().mean(dim=-1)
    if where is None:
        return over_channels.mean(dim=-1)
    return over_channels.masked_fill(~where, 0).sum(dim=-1) / where.sum(dim=-1)


def _window_mean(values: Tensor, width: int) -> Tensor:
    """Return the means of all windows that fit into a grid, for shape (B, C, *grid)."""
    axes = values.ndim - 2
    if axes <= 3:
        return (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1](values, width, stride=1)
    for axis in range(2, values.ndim):
        values = values.unfold(axis, width, 1).mean(dim=-1)
    return values
