"""What a place sees of many observations: the nearest ones."""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

WHOLE = 256  # so many are seen whole, from everywhere
NEAREST = 128  # of more


class Context(NamedTuple):
    """Observations that are seen from a place.

    Attributes:
        coords: Positions (N, P).
        values: Values (N,).
        noise: Noise variances (N,).
    """

    coords: np.ndarray
    values: np.ndarray
    noise: np.ndarray


def local_context(
    tree: cKDTree, values: np.ndarray, noise: np.ndarray, centre: np.ndarray
) -> Context:
    """Return the observations nearest to a centre.

    Args:
        tree: Tree of the positions (N, P).
        values: Values (N,).
        noise: Noise variances (N,).
        centre: A position (P,).
    """
    numbers = nearest(tree, centre)
    return Context(np.asarray(tree.data)[numbers], values[numbers], noise[numbers])


def nearest(tree: cKDTree, centre: np.ndarray) -> np.ndarray:
    """Return the numbers (N,) of the observations nearest to a centre (P,)."""
    return np.atleast_1d(tree.query(centre, min(NEAREST, tree.n))[1])


def halve(coords: np.ndarray, numbers: np.ndarray, parts: int) -> list[np.ndarray]:
    """Cut points into compact parts of about the same size.

    They are halved at the median of their principal axis, so that nothing depends on the axes of
    the coordinates.

    Args:
        coords: Positions (N, P).
        numbers: Points to cut, rows of `coords`.
        parts: Number of parts.
    """
    if parts == 1 or len(numbers) == 1:
        return [numbers]
    offset = coords[numbers] - coords[numbers].mean(0)
    axis = np.linalg.eigh(offset.T @ offset)[1][:, -1]
    order = numbers[np.argsort(offset @ axis, kind="stable")]
    half = len(order) // 2
    return [
        *halve(coords, order[:half], parts // 2),
        *halve(coords, order[half:], parts - parts // 2),
    ]
