"""Recalibration: what held-out observations say about the spread of draws; no truth is needed."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError

# From which observations are held out (M,) to mean (M, C) and draws (S, M, C) given the others.
Predict = Callable[[Tensor], tuple[Tensor, Tensor]]


def spread_factor(
    predict: Predict, values: Tensor, folds: int, seed: int, noise: Tensor | float = 0.0
) -> float:
    """Return the factor f that makes the pooled spread of draws the pooled error of their mean.

    `f^2 = sum |y - mean|^2 / sum Var(draws)` over held-out values y, with the unbiased variance.
    The mean is the posterior's, whose error does not depend on the number of draws: the factor
    `(S + 1) / S` of a mean of S draws does not occur. Held-out points are farther from the
    observations left than other points are from all of them, which raises error and spread alike.
    What the measurement error adds to the numerator is taken off.

    Args:
        predict: Returns the posterior mean and at least two draws at all M places.
        values: Observed values (M, C), in units in which channels count alike.
        folds: Parts that are held out in turn, from 2 to M.
        seed: Seed of the random folds, at least 0.
        noise: Standard deviation of the measurement error, one number or one per channel (C,).

    Returns:
        f > 0; 1 where the mean is exact, as it may be in a constant field.

    Raises:
        InputError: There are fewer observations than folds, the draws do not vary, or the stated
            noise is larger than all errors together.
    """
    error = variance = 0.0
    for held in hold_out(len(values), folds, seed):
        mean, draws = predict(held)
        error += float((values - mean)[held].double().square().sum())
        variance += float(draws[:, held].double().var(dim=0).sum())
    if error == 0:
        return 1.0
    error -= float((torch.as_tensor(noise).double().square() * torch.ones_like(values)).sum())
    if error <= 0:
        raise InputError("held-out observations are closer to the mean than their stated noise")
    if variance == 0:
        raise InputError("draws do not vary at held-out observations; no factor gives them spread")
    return math.sqrt(error / variance)


def hold_out(count: int, folds: int, seed: int) -> Iterator[Tensor]:
    """Yield for each fold which of M points are held out (M,); every point is, once.

    Raises:
        InputError: The number of folds is below 2 or above that of points.
    """
    if not 2 <= folds <= count:
        raise InputError(f"{count} observations cannot be held out in {folds} folds")
    # Four keys: masks and noise have three.
    order = np.random.default_rng([seed, 0, 0, 1]).permutation(count)
    for part in np.array_split(order, folds):
        yield torch.zeros(count, dtype=torch.bool).index_fill(0, torch.from_numpy(part), True)


def scale_spread(draws: Tensor, mean: Tensor, factor: float) -> Tensor:
    """Return draws (S, L, C) with scaled deviations from the mean, `mean + f (draws - mean)`."""
    return mean + factor * (draws - mean)
