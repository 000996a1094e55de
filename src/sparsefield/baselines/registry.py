"""Baselines: classical interpolators that every model has to beat.

All of them work in physical units on scattered points, reproduce exact observations, and are
equivariant to the unit and the offset of each channel. Thin-plate splines and kriging lead on
natural images.
"""

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from time import perf_counter
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from threadpoolctl import ThreadpoolController

from sparsefield.baselines import interpolators, peers
from sparsefield.baselines.kriging import kriging
from sparsefield.baselines.points import BaselineWarning, Points, Prediction
from sparsefield.baselines.robust import SAME_PLACE, merged, predict
from sparsefield.core.errors import InputError, unknown_name


class Baseline(NamedTuple):
    """One method and where it applies.

    Attributes:
        interpolate: Predicts from points at distinct places.
        dims: Coordinate dimensions P that it knows; None for any.
        spanning: Whether the points must span the space.
        on_grid: Whether the queries must be a whole grid that contains the observations.
        requires: Module outside the core dependencies that it needs.
        extra: What to install for it.
        spherical: Whether it takes points on a sphere, in space, for what they are.
        peer: Whether it is another package's, so slow that it runs only where it is named.
    """

    interpolate: Callable[[Points], Prediction]
    dims: tuple[int, ...] | None = None
    spanning: bool = False
    on_grid: bool = False
    requires: str | None = None
    extra: str = "sparsefield"
    spherical: bool = False
    peer: bool = False


BASELINES = {
    "nearest": Baseline(interpolators.nearest),
    "idw": Baseline(interpolators.inverse_distance),
    "linear": Baseline(interpolators.linear, spanning=True, spherical=True),
    "cubic": Baseline(interpolators.cubic, dims=(1, 2), spanning=True),
    "tps": Baseline(interpolators.thin_plate, spanning=True),
    "biharmonic": Baseline(
        interpolators.biharmonic,
        dims=(2,),
        on_grid=True,
        requires="skimage",
        extra="sparsefield[image]",
    ),
    "kriging": Baseline(kriging),
    "sklearn_gp": Baseline(peers.sklearn_gp, requires="sklearn", extra="scikit-learn", peer=True),
    "pykrige": Baseline(
        peers.pykrige, dims=(2, 3), requires="pykrige", extra="pykrige", peer=True
    ),
}


def available_baselines(dims: int, on_grid: bool = True, *, peers: bool = False) -> list[str]:
    """Return the names of the baselines that can run here.

    Args:
        dims: Number of coordinate dimensions P.
        on_grid: Whether queries are a whole grid that contains the observed points.
        peers: Whether to count other packages' methods, where they are installed.
    """
    return [
        name
        for name, baseline in BASELINES.items()
        if (baseline.dims is None or dims in baseline.dims)
        and (on_grid or not baseline.on_grid)
        and (peers or not baseline.peer)
        and (baseline.requires is None or find_spec(baseline.requires))
    ]


def reconstruct_baseline(
    name: str,
    coords: np.ndarray,
    values: np.ndarray,
    query: np.ndarray,
    *,
    noise: np.ndarray | float | None = None,
) -> Prediction:
    """Predict a field from scattered measurements by a classical method.

    Exact measurements keep their values where they were taken. Several at one place are averaged,
    with weights if their errors are stated. Where points are too close together, too few or too
    nearly on a line for the method, a simpler prediction takes its place; the prediction's `note`
    and a `BaselineWarning` say so.

    Args:
        name: A key of `BASELINES`.
        coords: Measured positions (M, P), in one unit along all axes.
        values: Measurements (M, C).
        query: Positions to predict (L, P).
        noise: Standard deviation of the measurements' errors, at least 0, in the units of the
            values: a number, (M,) or (M, C); None or 0 for exact ones. Kriging weighs by it, the
            other interpolators of this package only where they average one place.

    Returns:
        The prediction in the units of the measurements, float64; kriging gives its `std` too.

    Raises:
        InputError: The baseline is unknown, does not know these dimensions, needs a package that
            is missing, or the measurements are not finite or do not fit together; or the noise is
            negative, or `biharmonic` is given no whole grid.
    """
    start = perf_counter()
    given = _points(coords, values, query, noise)
    baseline = _baseline(name, given.dims)
    # Threads of BLAS that wait for a busy core turn milliseconds into seconds (scipy #23854).
    with _blas().limit(limits=1, user_api="blas"):
        points, note = merged(given)
        if baseline.spanning:
            prediction = predict(name, baseline.interpolate, points, baseline.dims)
        else:
            prediction = baseline.interpolate(points)
        prediction = _keep_observed(prediction, points)
    note = "; ".join(part for part in (note, prediction.note) if part)
    if note:
        warnings.warn(note, BaselineWarning, stacklevel=2)
    return prediction._replace(seconds=perf_counter() - start, note=note)


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
        raise InputError(f"{name} needs the package {baseline.requires}: install {baseline.extra}")
    return baseline


def _points(
    coords: np.ndarray, values: np.ndarray, query: np.ndarray, noise: np.ndarray | float | None
) -> Points:
    """Return checked points in float64."""
    coords, values, query = (np.asarray(x, np.float64) for x in (coords, values, query))
    shapes = (coords.shape, values.shape, query.shape)
    if any(len(shape) != 2 for shape in shapes) or not coords.size or not values.shape[1]:
        raise InputError(
            "a baseline takes coords (M, P), values (M, C) and queries (L, P) of at least one "
            f"point, not {shapes}"
        )
    if len(coords) != len(values) or coords.shape[1] != query.shape[1]:
        raise InputError(f"coords, values and queries do not fit together: {shapes}")
    for what, data in (("coords", coords), ("values", values), ("queries", query)):
        if not np.isfinite(data).all():
            raise InputError(f"{what} hold NaN or infinite numbers; drop those points")
    return Points(coords, values, query, _noise(noise, values))


def _noise(noise: np.ndarray | float | None, values: np.ndarray) -> np.ndarray | None:
    """Return the noise of each value (M, C), None if all are exact."""
    if noise is None:
        return None
    given = np.asarray(noise, np.float64)
    given = given[:, None] if given.ndim == 1 else given
    if given.ndim not in (0, 2) or any(
        n not in (1, m) for n, m in zip(given.shape, values.shape, strict=False)
    ):
        raise InputError(f"noise takes a number, (M,) or (M, C); got shape {given.shape}")
    if not np.isfinite(given).all() or (given < 0).any():
        raise InputError("noise must be finite and at least 0")
    return np.broadcast_to(given, values.shape) if given.any() else None


def _keep_observed(prediction: Prediction, points: Points) -> Prediction:
    """Return the prediction with exact values, and no deviation, where they were measured."""
    distance, index = cKDTree(points.coords).query(points.query)
    same = (distance <= SAME_PLACE * points.spacing)[:, None]
    exact = same if points.noise is None else same & (points.noise[index] == 0)
    std, field_std = (
        None if each is None else np.where(exact, 0.0, each)
        for each in (prediction.std, prediction.field_std)
    )
    mean = np.where(exact, points.values[index], prediction.mean)
    return prediction._replace(mean=mean, std=std, field_std=field_std)
