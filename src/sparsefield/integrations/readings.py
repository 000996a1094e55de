"""Measurements of one channel at positions in any units, one row a place."""

from typing import NamedTuple

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.repeats import merge_repeats


class Readings(NamedTuple):
    """What was measured, in the user's units.

    Rows are sorted by place, so that nothing depends on the order in which they were given.

    Attributes:
        coords: Places (N, P), all different.
        values: Mean reading of each place (N,).
        noise: Standard deviation of its error (N,); relative, 1 for one reading, if not stated.
        stated: Whether `noise` is in the units of the values.
    """

    coords: np.ndarray
    values: np.ndarray
    noise: np.ndarray
    stated: bool


class Forecast(NamedTuple):
    """What is known at some points.

    Attributes:
        mean: Expected values (L,).
        std: Standard deviation (L,) of a new reading, or of the field alone where the errors of
            the readings are stated; None if the method has none.
    """

    mean: np.ndarray
    std: np.ndarray | None


def merge(
    coords: np.ndarray,
    values: np.ndarray,
    noise: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> Readings:
    r"""Return readings with those of one place made one.

    A row of weight :math:`w_i` counts as as many readings with independent errors. Together, the
    rows of a place are a reading of

    .. math:: \bar y = \sigma^2 \sum_i w_i y_i / \sigma_i^2, \qquad
        \sigma^{-2} = \sum_i w_i / \sigma_i^2,

    with all :math:`\sigma_i = 1` where no error is stated.

    Args:
        coords: Positions (M, P).
        values: Readings (M,).
        noise: Standard deviation of each error (M,), at least 0; None if it is unknown.
        weight: Weight of each row (M,), at least 0; rows of weight 0 are left out.

    Raises:
        InputError: Exact readings of one place differ, or no row has a weight.
    """
    weight = np.ones(len(values)) if weight is None else weight
    kept = weight > 0
    if not kept.any():
        raise InputError("every weight is zero; at least one row needs a weight above zero")
    sigma = np.ones(len(values)) if noise is None else noise
    sigma = (sigma[kept] / np.sqrt(weight[kept]))[:, None]
    coords, values = coords[kept], values[kept][:, None]
    found = merge_repeats(_in_units_of_extent(coords), values, sigma)
    if found is not None:
        first, values, merged = found
        coords, sigma = coords[first], sigma[first] if merged is None else merged
    order = np.lexsort(coords.T[::-1])
    return Readings(coords[order], values[order, 0], sigma[order, 0], noise is not None)


def _in_units_of_extent(coords: np.ndarray) -> np.ndarray:
    """Return positions as `merge_repeats` compares them: what it calls close is a length."""
    extent = float(np.ptp(coords, axis=0).max())
    return (coords - coords.min(axis=0)) * (2 / extent if extent > 0 else 1.0)
