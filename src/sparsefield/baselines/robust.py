"""Measurements that a method cannot take as they are: points nearly at one place or on a line."""

from collections.abc import Callable

import numpy as np
from scipy.linalg import LinAlgError
from scipy.spatial import QhullError

from sparsefield.baselines.interpolators import linear, nearest
from sparsefield.baselines.points import Points, Prediction
from sparsefield.core.words import counted
from sparsefield.data.measurement import merge_readings

# Points closer than this share of their spacing are one place.
SAME_PLACE = 1e-5
# What is tried next, where a prediction explodes: places merge, and directions are flattened, in
# which the points reach no farther than this share of the spacing, or of their extent.
COARSER = (1e-3, 0.1)
# Ranges of the values that a prediction may be away from their middle, at the centre of the
# points; as many more for each radius of the points from there, as trends go on outside.
EXCURSION = 2.0
# Readings of one place that differ by less than this share of the range are equal.
EQUAL = 1e-9

Method = Callable[[Points], Prediction]


def merged(points: Points, share: float = SAME_PLACE) -> tuple[Points, str]:
    """Return points with those at one place averaged, and a note if their values differ.

    Args:
        points: Measurements.
        share: Distance below which two points are one place, as a share of their spacing.
    """
    within = share * points.spacing
    found = merge_readings(points.coords, points.values, points.noise, within=within)
    if len(found.coords) == len(points.coords):
        return points, ""
    apart = np.abs(points.values - found.values[found.place])
    merged = points._replace(coords=found.coords, values=found.values, noise=found.noise)
    extent = np.ptp(points.values, axis=0)
    if points.noise is not None or (apart <= EQUAL * extent).all():
        return merged, ""
    repeated = len(np.unique(found.place[(apart > EQUAL * extent).any(axis=1)]))
    return merged, (
        f"values differ at {counted(repeated, 'place')} with several points "
        f"(up to {apart.max():.3g} from their mean, which was taken); state their noise"
    )


def predict(name: str, method: Method, points: Points, dims: tuple[int, ...] | None) -> Prediction:
    """Predict from distinct points, the simpler the worse they determine the method.

    Points on a line, or in a plane, are interpolated within it. Where a prediction explodes or a
    system is singular, places are merged and directions flattened that are less and less small.
    Linear interpolation, which stays in the range of the values, comes last.

    Args:
        name: Name of the method, for the note.
        method: An interpolator that needs points that span the space.
        points: Measurements, all at different places.
        dims: Dimensions that the method knows; None for any.

    Returns:
        The prediction, with a note if it is not the method's own.
    """
    for share in (SAME_PLACE, *COARSER):
        simpler, _ = merged(points, share)
        simpler = flattened(simpler, share)
        if simpler.dims == 0:
            return nearest(points)._replace(note=f"{name} needs two places; the value is constant")
        if dims is not None and simpler.dims not in dims:
            continue
        found = _attempt(method, simpler)
        if found is not None and _bounded(found, points):
            return found._replace(note=_say(name, points, simpler))
    found = _attempt(linear, flattened(points, SAME_PLACE)) or nearest(points)
    return found._replace(note=f"{name} explodes on these points; linear interpolation instead")


def _attempt(method: Method, points: Points) -> Prediction | None:
    """Return a method's prediction, None if the points do not determine it."""
    try:
        return method(points)
    except (LinAlgError, QhullError):
        return None


def flattened(points: Points, share: float) -> Points:
    """Return points and queries in the directions in which the points extend.

    Args:
        points: Measurements.
        share: Extent below which a direction is left out, as a share of the largest extent.
    """
    centre = points.coords.mean(axis=0)
    _, extents, axes = np.linalg.svd(points.coords - centre, full_matrices=False)
    kept = axes[extents > share * extents[0]]
    if len(kept) == points.dims:
        return points
    # The origin stays in place, so that a sphere around it remains one.
    return points._replace(coords=points.coords @ kept.T, query=points.query @ kept.T)


def _bounded(prediction: Prediction, points: Points) -> bool:
    """Return whether a prediction stays near the range of the values."""
    low, high = points.values.min(axis=0), points.values.max(axis=0)
    away = np.linalg.norm(points.query - points.coords.mean(axis=0), axis=1) / points.radius
    reach = EXCURSION * (1 + away)[:, None] * (high - low)
    rounding = EQUAL * np.maximum(abs(low), abs(high))
    return bool((np.abs(prediction.mean - (low + high) / 2) <= reach + rounding).all())


def _say(name: str, points: Points, simpler: Points) -> str:
    """Say what was done to the points."""
    parts = []
    if len(simpler.coords) < len(points.coords):
        few, many = len(simpler.coords), len(points.coords)
        parts.append(f"{many} points were merged into {few}")
    if simpler.dims < points.dims:
        shape = {1: "a line", 2: "a plane"}.get(simpler.dims, f"{simpler.dims} dimensions")
        parts.append(f"the points are nearly on {shape}, along which they were interpolated")
    return f"{name}: {'; '.join(parts)}" if parts else ""
