"""Places that were measured more than once."""

import numpy as np
from scipy.spatial import cKDTree

from sparsefield.core.errors import InputError
from sparsefield.data.conversion import SAME_POINT

# Exact readings of one place agree if they differ by less than this share of all values' range.
SAME_READING = 1e-4

# Standard deviations below this have no square in float64.
_TINY = 1e-150


def merge_repeats(
    coords: np.ndarray,
    values: np.ndarray,
    noise: np.ndarray | None,
    shown: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Return the first row of every place, and the readings of it as one.

    Args:
        coords: Positions, float64, shape (M, P).
        values: Readings, float64, shape (M, C).
        noise: Standard deviation of their errors, shape (M, C); None if they are exact.
        shown: Positions as an error message shows them; `coords` if None.

    Returns:
        Rows (K,), values (K, C) and their standard deviation (K, C) or None; None in all if every
        place was read once.

    Raises:
        InputError: Exact readings of one place differ.
    """
    place = places(coords)
    _, first, group = np.unique(place, return_index=True, return_inverse=True)
    if len(first) == len(coords):
        return None
    sigma = np.zeros_like(values) if noise is None else noise
    exact = sigma == 0
    settled = np.zeros((len(first), values.shape[1]), dtype=bool)
    np.logical_or.at(settled, group, exact)
    _check_agreement(coords if shown is None else shown, values, exact, group)
    # Where there is an exact reading the others weigh nothing.
    weights = np.where(settled[group], exact, 1 / np.where(exact, 1, sigma).clip(_TINY) ** 2)
    total = _sums(weights, group, len(first))
    # Differences to the first reading: equal readings give that number to the last bit.
    excess = _sums(weights * (values - values[place]), group, len(first)) / total
    merged = values[first] + excess
    return first, merged, None if noise is None else np.where(settled, 0, total**-0.5)


def places(coords: np.ndarray, within: float = SAME_POINT) -> np.ndarray:
    """Return for each of M points the first one in the same place, shape (M,).

    The first point that has no place yet takes in all others closer than `within`; so no place is
    wider than twice that, however densely points follow each other.
    """
    _, first, inverse = np.unique(coords, axis=0, return_index=True, return_inverse=True)
    distinct = coords[first]
    tree = cKDTree(distinct)
    gap = tree.query(distinct, k=2, distance_upper_bound=within)[0][:, 1]
    close = np.flatnonzero(np.isfinite(gap))
    owner = np.full(len(first), -1)
    for point in close[np.argsort(first[close])]:
        if owner[point] < 0:
            around = np.array(tree.query_ball_point(distinct[point], within))
            owner[around[owner[around] < 0]] = first[point]
    return np.where(owner < 0, first, owner)[inverse.reshape(-1)]


def _sums(values: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, group, values)
    return sums


def _check_agreement(
    coords: np.ndarray, values: np.ndarray, exact: np.ndarray, group: np.ndarray
) -> None:
    """Raise unless the exact readings of each place agree in each channel."""
    low = np.full((group.max() + 1, values.shape[1]), np.inf)
    high = -low
    np.minimum.at(low, group, np.where(exact, values, np.inf))
    np.maximum.at(high, group, np.where(exact, values, -np.inf))
    apart = high - low > SAME_READING * np.ptp(values, axis=0)
    if not apart.any():
        return
    place, channel = np.argwhere(apart)[0]
    rows = np.flatnonzero((group == place) & exact[:, channel])
    readings = values[rows, channel]
    one, other = sorted((int(rows[readings.argmin()]), int(rows[readings.argmax()])))
    where = ", ".join(f"{number:g}" for number in coords[one])
    raise InputError(
        f"{int(apart.any(axis=1).sum())} of {len(low)} places have exact readings that differ, as "
        f"rows {one} and {other} at ({where}) with {values[one, channel]:g} and "
        f"{values[other, channel]:g}; state a noise, or drop one"
    )
