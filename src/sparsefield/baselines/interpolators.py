"""Baselines: classical interpolators that every model has to beat.

All of them work in physical units on scattered points, reproduce noise-free observations exactly,
and treat channels alike. Thin-plate splines and kriging lead on natural images.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from time import perf_counter
from typing import NamedTuple

import numpy as np
from scipy.interpolate import (
    CloughTocher2DInterpolator,
    CubicSpline,
    LinearNDInterpolator,
    RBFInterpolator,
)
from scipy.spatial import cKDTree
from threadpoolctl import ThreadpoolController

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.data.conversion import SAME_POINT
from sparsefield.data.gaussian import fit_gaussian_field


class Prediction(NamedTuple):
    """A reconstructed field in physical units.

    Args:
        mean: values, shape (L, C).
        std: standard deviation of a Gaussian forecast, shape (L, C); None if there is none.
        seconds: wall-clock time it took.
    """

    mean: np.ndarray
    std: np.ndarray | None = None
    seconds: float = 0.0


class Points(NamedTuple):
    """One task: measured points and where to predict.

    Args:
        coords: measured positions, shape (M, P).
        values: measurements in physical units, shape (M, C).
        query: positions to predict, shape (L, P).
    """

    coords: np.ndarray
    values: np.ndarray
    query: np.ndarray


class Baseline(NamedTuple):
    """One method and where it applies.

    Args:
        interpolate: predicts from distinct points that span the space.
        dims: coordinate dimensions P that it knows; None for any.
        on_grid: whether the queries must be a whole grid that contains the observations.
        requires: module outside the core dependencies that it needs.
    """

    interpolate: Callable[[Points], Prediction]
    dims: tuple[int, ...] | None = None
    on_grid: bool = False
    requires: str | None = None


def _nearest(points: Points) -> Prediction:
    return Prediction(points.values[cKDTree(points.coords).query(points.query)[1]])


def _linear(points: Points) -> Prediction:
    """Interpolate linearly on the Delaunay triangulation, nearest outside the convex hull."""
    if points.coords.shape[1] > 1:
        inside = LinearNDInterpolator(points.coords, points.values)(points.query)
        return _fill_outside(inside, points)
    order = np.argsort(points.coords[:, 0])
    x, y = points.coords[order, 0], points.values[order]
    return Prediction(np.column_stack([np.interp(points.query[:, 0], x, c) for c in y.T]))


def _cubic(points: Points) -> Prediction:
    """Interpolate by smooth cubics, Clough-Tocher in two dimensions, nearest outside the hull."""
    if points.coords.shape[1] == 2:
        inside = CloughTocher2DInterpolator(points.coords, points.values)(points.query)
        return _fill_outside(inside, points)
    order = np.argsort(points.coords[:, 0])
    spline = CubicSpline(points.coords[order, 0], points.values[order], extrapolate=False)
    return _fill_outside(spline(points.query[:, 0]), points)


def _fill_outside(inside: np.ndarray, points: Points) -> Prediction:
    return Prediction(np.where(np.isnan(inside), _nearest(points).mean, inside))


def _thin_plate(points: Points) -> Prediction:
    spline = RBFInterpolator(points.coords, points.values, kernel="thin_plate_spline")
    return Prediction(spline(points.query))


def _biharmonic(points: Points) -> Prediction:
    """Solve the biharmonic equation on the unobserved cells of a grid."""
    from skimage.restoration import inpaint_biharmonic

    axes = [np.unique(column) for column in points.query.T]
    shape = tuple(len(axis) for axis in axes)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    distance, cells = cKDTree(points.query).query(points.coords)
    if not np.array_equal(grid, points.query) or distance.max() > SAME_POINT:
        raise InputError(
            "biharmonic needs a whole grid whose cells hold the observations; use tps"
        )
    image = np.zeros((len(grid), points.values.shape[1]))
    image[cells] = points.values
    missing = np.ones(len(grid), dtype=bool)
    missing[cells] = False
    filled = inpaint_biharmonic(image.reshape(*shape, -1), missing.reshape(shape), channel_axis=-1)
    return Prediction(filled.reshape(image.shape))


def _kriging(points: Points) -> Prediction:
    """Predict by ordinary kriging with a fitted Matern-3/2 correlation.

    The nugget stands for variation below the spacing of the points, which a prediction of the
    value at a new point has to include.
    """
    field = fit_gaussian_field(points.coords, points.values)
    mean, std = field.posterior(points.coords, points.values, points.query)
    return Prediction(mean, np.sqrt(std**2 + field.nugget * field.variance))


BASELINES = {
    "nearest": Baseline(_nearest),
    "linear": Baseline(_linear),
    "cubic": Baseline(_cubic, dims=(1, 2)),
    "tps": Baseline(_thin_plate),
    "biharmonic": Baseline(_biharmonic, dims=(2,), on_grid=True, requires="skimage"),
    "kriging": Baseline(_kriging),
}


def available_baselines(dims: int, on_grid: bool = True) -> list[str]:
    """Return the names of the baselines that can run here.

    Args:
        dims: number of coordinate dimensions P.
        on_grid: whether queries are a whole grid that contains the observed points.
    """
    return [
        name
        for name, baseline in BASELINES.items()
        if (baseline.dims is None or dims in baseline.dims)
        and (on_grid or not baseline.on_grid)
        and (baseline.requires is None or find_spec(baseline.requires))
    ]


def reconstruct_baseline(
    name: str, coords: np.ndarray, values: np.ndarray, query: np.ndarray
) -> Prediction:
    """Predict a field from scattered measurements by a classical method.

    Observed points keep their values, and measurements at one place are averaged. Points that do
    not span the space (too few, or all on one line) leave only the nearest one to go by.

    Args:
        name: a key of `BASELINES`.
        coords: measured positions, shape (M, P).
        values: measurements, shape (M, C).
        query: positions to predict, shape (L, P).

    Returns:
        The prediction in the units of the measurements, float64; kriging gives its `std` too.

    Raises:
        InputError: if the baseline is unknown, does not know these dimensions, or needs a package
            that is missing.
    """
    start = perf_counter()
    points = _distinct(
        Points(*(np.asarray(array, np.float64) for array in (coords, values, query)))
    )
    baseline = _baseline(name, points.coords.shape[1])
    # Threads of BLAS that wait for a busy core turn milliseconds into seconds (scipy #23854).
    with _blas().limit(limits=1, user_api="blas"):
        spans = np.linalg.matrix_rank(points.coords - points.coords[0]) == points.coords.shape[1]
        prediction = baseline.interpolate(points) if spans else _nearest(points)
    return _keep_observed(prediction, points)._replace(seconds=perf_counter() - start)


def run_baselines(
    tasks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], names: Iterable[str]
) -> Iterator[dict[str, Prediction]]:
    """Yield, for each (coords, values, query), the predictions of several baselines by name."""
    names = list(names)
    for coords, values, query in tasks:
        yield {name: reconstruct_baseline(name, coords, values, query) for name in names}


@cache
def _blas() -> ThreadpoolController:
    """Return the control of the BLAS libraries: finding them takes longer than a baseline."""
    return ThreadpoolController()


def _baseline(name: str, dims: int) -> Baseline:
    if name not in BASELINES:
        raise unknown_name("baseline", name, list(BASELINES))
    baseline = BASELINES[name]
    if baseline.dims is not None and dims not in baseline.dims:
        raise InputError(f"{name} works in {baseline.dims} dimensions, not {dims}; use tps")
    if baseline.requires and not find_spec(baseline.requires):
        raise InputError(
            f"{name} needs the package {baseline.requires}: install sparsefield[image]"
        )
    return baseline


def _distinct(points: Points) -> Points:
    """Return the points with measurements at one place averaged, in order of appearance."""
    _, first, inverse, counts = np.unique(
        points.coords, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    if len(first) == len(points.coords):
        return points
    sums = np.zeros((len(first), points.values.shape[1]))
    np.add.at(sums, inverse.reshape(-1), points.values)
    order = np.argsort(first)
    means = sums / counts[:, None]
    return points._replace(coords=points.coords[first[order]], values=means[order])


def _keep_observed(prediction: Prediction, points: Points) -> Prediction:
    """Return the prediction with the measured values, and no spread, where they were taken."""
    distance, index = cKDTree(points.coords).query(points.query)
    same = (distance < SAME_POINT)[:, None]
    std = None if prediction.std is None else np.where(same, 0.0, prediction.std)
    return Prediction(np.where(same, points.values[index], prediction.mean), std)
