"""What a place sees of many observations: the near ones singly, the far ones in groups."""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

WHOLE = 512  # so many are seen whole
SINGLE = 96  # nearest observations, taken as they are
RINGS = ((8, 16), (64, 16))  # size and number of the groups of the next ones, from near to far


class Context(NamedTuple):
    """Observations and means of groups of observations.

    Attributes:
        coords: Positions, of groups their centres (N, P).
        values: Values, of groups their means (N,).
        noise: Noise variances (N,), of groups those of the mean.
        count: Observations in each (N,).
        radius: Root mean square distance from the centre (N,); 0 for one observation.
    """

    coords: np.ndarray
    values: np.ndarray
    noise: np.ndarray
    count: np.ndarray
    radius: np.ndarray


def whole_context(coords: np.ndarray, values: np.ndarray, noise: np.ndarray) -> Context:
    """Return a context of all observations, singly.

    Args:
        coords: Positions (N, P).
        values: Values (N,).
        noise: Noise variances (N,).
    """
    return Context(coords, values, noise, np.ones(len(values)), np.zeros(len(values)))


def local_context(
    tree: cKDTree, values: np.ndarray, noise: np.ndarray, centre: np.ndarray
) -> Context:
    """Return what is seen from a centre.

    Groups are cut from rings around the centre by halving them at the median of their widest
    axis, which is the principal one, so that nothing depends on the axes of the coordinates.

    Args:
        tree: Tree of the positions (N, P).
        values: Values (N,).
        noise: Noise variances (N,).
        centre: A position (P,).
    """
    coords = np.asarray(tree.data)
    reach = min(len(values), SINGLE + sum(size * groups for size, groups in RINGS))
    order = tree.query(centre, reach)[1]
    parts = [np.array([i]) for i in order[:SINGLE]]
    start = SINGLE
    for size, groups in RINGS:
        ring = order[start : start + size * groups]
        start += len(ring)
        if len(ring):
            parts += halve(coords, ring, groups)
    rows = [_summarise(coords[p], values[p], noise[p]) for p in parts]
    return Context(*(np.array(column) for column in zip(*rows, strict=True)))


def halve(coords: np.ndarray, numbers: np.ndarray, parts: int) -> list[np.ndarray]:
    """Cut points into compact parts of about the same size."""
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


def _summarise(
    coords: np.ndarray, values: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, float, float, float, float]:
    count = len(values)
    spread = float(coords.var(0).sum()) ** 0.5
    return coords.mean(0), values.mean(), noise.mean() / count, count, spread
