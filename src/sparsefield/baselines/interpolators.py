"""Classical interpolators: nearest, inverse distance, linear, cubic, splines.

Each predicts from distinct points. Those that solve a system see values in their own units.
"""

import numpy as np
from scipy.interpolate import (
    CloughTocher2DInterpolator,
    CubicSpline,
    LinearNDInterpolator,
    RBFInterpolator,
)
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from sparsefield.baselines.points import Points, Prediction, in_own_units
from sparsefield.baselines.sphere import linear_on_sphere, on_sphere
from sparsefield.core.errors import InputError
from sparsefield.data.gaussian import query_blocks

# A thin-plate spline of more points takes gigabytes; each query then sees its nearest ones.
SPLINE_POINTS = 4000
SPLINE_NEIGHBOURS = 128
# A point is in a cell if it is no farther from its centre than this share of the cell.
IN_CELL = 1e-3


def nearest(points: Points) -> Prediction:
    """Take the value of the nearest point."""
    return Prediction(points.values[cKDTree(points.coords).query(points.query)[1]])


def inverse_distance(points: Points) -> Prediction:
    """Weigh all points by the inverse square of their distance.

    Reference: Shepard, A two-dimensional interpolation function for irregularly-spaced data
    (1968).
    """
    means = []
    for block in query_blocks(points.query, len(points.coords)):
        squares = cdist(block, points.coords, "sqeuclidean")
        closest = squares.min(axis=1, keepdims=True)
        # Over the closest one's, so that no weight is infinite; a point at distance 0 has all.
        weights = np.where(closest > 0, closest, 1) / np.where(squares > 0, squares, 1)
        weights = np.where(closest > 0, weights, squares == 0)
        means.append(weights @ points.values / weights.sum(axis=1, keepdims=True))
    return Prediction(np.concatenate(means))


def linear(points: Points) -> Prediction:
    """Interpolate linearly on the Delaunay triangulation, nearest outside the convex hull.

    Points in space at one distance from the origin lie on a sphere, and so do its triangles. A
    fourth coordinate is a third axis beside those of the sphere, as time or depth.
    """
    if on_sphere(points):
        return _fill_outside(linear_on_sphere(points), points)
    if points.dims > 1:
        inside = LinearNDInterpolator(points.coords, points.values)(points.query)
        return _fill_outside(inside, points)
    order = np.argsort(points.coords[:, 0])
    x, y = points.coords[order, 0], points.values[order]
    return Prediction(np.column_stack([np.interp(points.query[:, 0], x, c) for c in y.T]))


@in_own_units
def cubic(points: Points) -> Prediction:
    """Interpolate by smooth cubics, Clough-Tocher in two dimensions, nearest outside the hull."""
    if points.dims == 2:
        inside = CloughTocher2DInterpolator(points.coords, points.values)(points.query)
        return _fill_outside(inside, points)
    order = np.argsort(points.coords[:, 0])
    spline = CubicSpline(points.coords[order, 0], points.values[order], extrapolate=False)
    return _fill_outside(spline(points.query[:, 0]), points)


def _fill_outside(inside: np.ndarray, points: Points) -> Prediction:
    return Prediction(np.where(np.isnan(inside), nearest(points).mean, inside))


@in_own_units
def thin_plate(points: Points) -> Prediction:
    """Interpolate by the thin-plate spline, of more than 4,000 points of the nearest 128."""
    many = len(points.coords) > SPLINE_POINTS
    spline = RBFInterpolator(
        points.coords,
        points.values,
        neighbors=SPLINE_NEIGHBOURS if many else None,
        kernel="thin_plate_spline",
    )
    return Prediction(spline(points.query))


@in_own_units
def biharmonic(points: Points) -> Prediction:
    """Solve the biharmonic equation on the unobserved cells of a grid."""
    from skimage.restoration import inpaint_biharmonic

    axes = [np.unique(column) for column in points.query.T]
    shape = tuple(len(axis) for axis in axes)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    distance, cells = cKDTree(points.query).query(points.coords)
    cell = points._replace(coords=points.query).spacing
    if not np.array_equal(grid, points.query) or distance.max() > IN_CELL * cell:
        raise InputError(
            "biharmonic needs a whole grid whose cells hold the observations; use tps"
        )
    image = np.zeros((len(grid), points.values.shape[1]))
    image[cells] = points.values
    missing = np.ones(len(grid), dtype=bool)
    missing[cells] = False
    filled = inpaint_biharmonic(image.reshape(*shape, -1), missing.reshape(shape), channel_axis=-1)
    return Prediction(filled.reshape(image.shape))
