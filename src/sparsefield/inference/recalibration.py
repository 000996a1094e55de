"""Recalibration: how much samples should vary, by held-out observations; no truth is needed."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.moved import moved_names
from sparsefield.core.words import counted

__getattr__ = moved_names(__name__)

# From which observations are held out (M,) to mean (M, C) and samples (S, M, C) given the others.
Predict = Callable[[Tensor], tuple[Tensor, Tensor]]


def inflation_factor(
    predict: Predict, values: Tensor, folds: int, seed: int, noise: Tensor | float = 0.0
) -> float:
    r"""Return the factor f with which samples vary as much as their mean errs.

    .. math:: f^2 = \frac{\sum |y - \mathrm{mean}|^2}{\sum \mathrm{Var}(\mathrm{samples})}

    over held-out values y, with the unbiased variance. The mean is the posterior's, whose error
    does not depend on the number of samples: the factor `(S + 1) / S` of a mean of S samples does
    not occur. Held-out points are farther from the observations left than other points are from
    all of them, which raises error and variance alike. What the measurement error adds to the
    numerator is taken off.

    Args:
        predict: Returns the posterior mean and at least two samples at all M places.
        values: Observed values (M, C), in units in which channels count alike.
        folds: Parts that are held out in turn, from 2 to M.
        seed: Seed of the random folds, at least 0.
        noise: Standard deviation of the measurement error: one number, one per channel (C,), or
            one per value (M, C).

    Returns:
        f > 0, above 1 where samples are too sure; 1 where the mean is exact, as it may be in a
        constant field.

    Raises:
        InputError: There are fewer observations than folds, the samples do not vary, or the stated
            noise is larger than all errors together.
    """
    error = variance = 0.0
    for held in hold_out(len(values), folds, seed):
        mean, samples = predict(held)
        error += float((values - mean)[held].double().square().sum())
        variance += float(samples[:, held].double().var(dim=0).sum())
    if error == 0:
        return 1.0
    error -= float((torch.as_tensor(noise).double().square() * torch.ones_like(values)).sum())
    if error <= 0:
        raise InputError("held-out observations are closer to the mean than their stated noise")
    if variance == 0:
        raise InputError("samples do not vary at held-out observations; no factor makes them")
    return math.sqrt(error / variance)


def hold_out(count: int, folds: int, seed: int) -> Iterator[Tensor]:
    """Yield for each fold which of M points are held out (M,); every point is, once.

    Raises:
        InputError: The number of folds is below 2 or above that of points.
    """
    if not 2 <= folds <= count:
        raise InputError(
            f"{counted(count, 'observation')} cannot be held out in {counted(folds, 'fold')}"
        )
    # Four keys: masks and noise have three.
    order = np.random.default_rng([seed, 0, 0, 1]).permutation(count)
    for part in np.array_split(order, folds):
        yield torch.zeros(count, dtype=torch.bool).index_fill(0, torch.from_numpy(part), True)


def inflate(samples: Tensor, mean: Tensor, factor: float) -> Tensor:
    """Return samples (S, L, C) with scaled deviations from the mean, `mean + f (x - mean)`."""
    return mean + factor * (samples - mean)
