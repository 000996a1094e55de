"""A first guess for every cell of a grid of which some were observed."""

import torch
from torch import Tensor
from torch.nn import functional as F


def fill_by_averaging(values: Tensor, weight: Tensor) -> Tensor:
    """Return values (B, C, H, W) with those of weight 0 put in from averages over wider cells.

    A pull-push pyramid: weighted means over 2 x 2 cells, again and again; what is missing on one
    level is interpolated linearly from the next. Cells of weight above 0 are returned as given.

    References:
        The Lumigraph (Gortler et al., 1996), section 3.4.

    Args:
        values: Values; those of weight 0 are not read.
        weight: Weights (B, 1, H, W) in [0, 1], above 0 somewhere.
    """
    if max(values.shape[-2:]) == 1:
        return values
    weighted = F.avg_pool2d(values * weight, 2, ceil_mode=True)
    total = F.avg_pool2d(weight, 2, ceil_mode=True)
    means = weighted / total.clamp_min(1e-8)
    coarse = fill_by_averaging(means, (total * 4).clamp_max(1))
    guess = F.interpolate(coarse, values.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(weight > 0, values, guess)
