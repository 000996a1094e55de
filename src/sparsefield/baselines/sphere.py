"""Linear interpolation on a sphere, alone or with a third axis, as time or depth."""

import numpy as np
from scipy.spatial import ConvexHull, cKDTree

from sparsefield.baselines.points import Points

# Distances from the origin that differ by less than this share are one: points on a sphere.
SAME_RADIUS = 1e-6
# Points are moved by this share of their spacing: any triangulation of four on a circle, as on a
# grid of latitudes and longitudes, would do, and Qhull's may have flat simplices.
MOVED = 1e-7
# A weight this little below nought is on an edge.
ON_EDGE = 1e-6
# Simplices that are passed on the way from the nearest point to a query.
MOST_STEPS = 500


def on_sphere(points: Points) -> bool:
    """Tell whether measurements and queries are at one distance from the origin of space."""
    radius = np.linalg.norm(np.concatenate([points.coords, points.query])[:, :3], axis=1)
    return points.dims in (3, 4) and float(np.ptp(radius)) <= SAME_RADIUS * radius.max()


def linear_on_sphere(points: Points) -> np.ndarray:
    """Return values (L, C) on spherical simplices, NaN outside of all.

    The hull of points on a sphere is their Delaunay triangulation. A place is a sum of the corners
    of the simplex around it, whose weights, made to sum to 1, are linear on the chord plane. With
    a third axis, places are rays in four dimensions, and lie between the two ends of that axis.
    """
    corners, query = _rays(points)
    radius = float(np.linalg.norm(points.coords[0, :3]))
    hull = _triangulate(corners, MOVED * points.spacing / radius)
    at = _locate(hull, query, cKDTree(points.coords).query(points.query)[1])
    # What faces the centre, or has a corner at an end, is outside of the measurements.
    measured = (hull.equations[:, -1] < 0) & (hull.simplices < len(corners)).all(axis=1)
    inside = np.flatnonzero(measured[at])
    corner = hull.simplices[at[inside]]
    weights = _shares(np.linalg.pinv(corners[corner].swapaxes(1, 2)) @ query[inside, :, None])
    values = np.full((len(query), points.values.shape[1]), np.nan)
    values[inside] = (_shares(weights.clip(0)) * points.values[corner]).sum(axis=1)
    values[inside[weights.min(axis=(1, 2)) < -ON_EDGE]] = np.nan
    return values


def _rays(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return measurements and queries on the unit sphere, a third axis around its middle."""
    radius = np.linalg.norm(points.coords[0, :3])
    corners, query = points.coords / radius, points.query / radius
    middle = (corners[:, 3:].min(axis=0) + corners[:, 3:].max(axis=0)) / 2
    corners[:, 3:] -= middle
    query[:, 3:] -= middle
    return corners, query


def _triangulate(corners: np.ndarray, move: float) -> ConvexHull:
    """Return the hull of the directions of corners (M, P), moved a little, and of the ends."""
    moves = np.random.default_rng(0).normal(scale=move, size=corners.shape)
    ends = np.eye(corners.shape[1])[3:]
    return ConvexHull(np.vstack([_directions(_directions(corners) + moves), ends, -ends]))


def _directions(rays: np.ndarray) -> np.ndarray:
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _locate(hull: ConvexHull, query: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the simplex around each query (L,), or the one at which the way to it ends.

    From the nearest point, the way goes through the face that is most between.
    """
    front = np.flatnonzero(hull.equations[:, -1] < 0)
    start = np.full(len(hull.points), front[0])
    start[hull.simplices[front]] = front[:, None]
    at, moving = start[near], np.arange(len(query))
    for _ in range(MOST_STEPS):
        moving = moving[hull.equations[at[moving], -1] < 0]
        edges = hull.points[hull.simplices[at[moving]]].swapaxes(1, 2)
        weights = _shares(np.linalg.solve(edges, query[moving, :, None]))[..., 0]
        beyond = weights.min(axis=1) < -ON_EDGE
        moving, face = moving[beyond], weights[beyond].argmin(axis=1)
        if not len(moving):
            break
        # Qhull gives a neighbour the place of the corner that is opposite to it.
        at[moving] = hull.neighbors[at[moving], face]
    return at


def _shares(weights: np.ndarray) -> np.ndarray:
    """Return weights (L, K, 1) with sizes that sum to 1."""
    return weights / np.abs(weights).sum(axis=1, keepdims=True)
