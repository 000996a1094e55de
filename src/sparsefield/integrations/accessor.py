"""The accessor `.sparsefield` of xarray's DataArrays: gaps filled, fields on other grids."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from sparsefield.core.errors import InputError
from sparsefield.integrations.interpolants import UNIVERSAL, fit_interpolant
from sparsefield.integrations.places import Places, find_places
from sparsefield.integrations.readings import Forecast, merge

FEWEST = 3
_NEW = "__new_"  # before names of dimensions while two grids have some in common


class GapWarning(UserWarning):
    """Gaps were left in a field, because too few of its values are observed."""


class _How(NamedTuple):
    """What is done to every field of an array.

    Attributes:
        model: As `fit_interpolant` takes it.
        noise: Standard deviation of all errors; None if it is unknown.
        extra: Names of the arrays that come after the values: "noise", "where".
        stds: Whether to return standard deviations.
    """

    model: str | Path
    noise: float | None
    extra: tuple[str, ...]
    stds: bool


class FieldAccessor:
    """Fields of a DataArray; `import sparsefield.xarray` puts it there as `.sparsefield`.

    A place is given by longitude and latitude, if there are both: distances are then those on the
    sphere. Otherwise it is given by every dimension but time; `coords` names other coordinates.
    Each entry along the other dimensions is a field of its own. Arrays of dask stay lazy, and are
    computed entry by entry, in parallel; chunk them along time.

    Args:
        array: The array.
    """

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    def fill(
        self,
        coords: Sequence[str] | None = None,
        *,
        model: str | Path = UNIVERSAL,
        noise: float | xr.DataArray | None = None,
        where: xr.DataArray | None = None,
        return_std: bool = False,
    ) -> Any:
        """Return the array with its NaNs filled; what was observed stays to the last bit.

        A field with fewer than three observed values keeps its gaps, and a `GapWarning` says so.

        Args:
            coords: Names of the coordinates that give places, one to three.
            model: "universal", a file with its weights, or the name of a baseline.
            noise: Standard deviation of the observations' error, at least 0, in the unit of the
                values: a number, or an array along some dimensions of this one. None if it is
                unknown.
            where: Which gaps to fill, bool, along some dimensions of this one: those in an ocean,
                say, and not those on land. All by default.
            return_std: Whether to return the standard deviation too. Where a value was observed it
                is that of its error, or 0 if that is unknown.

        Returns:
            An array of the same type, dimensions, coordinates and attributes; with `return_std`,
            a pair of it and the standard deviation.

        Raises:
            InputError: The coordinates give no places, the values are no real numbers, there is no
                such model, or it has no standard deviation.
        """
        array = _floating(self._array)
        places = find_places(array, coords)
        how, extra = _how(array, places, model, noise, where, return_std)
        options = {"places": places.positions, "how": how}
        found = _apply(_fill, [array, *extra], places.dims, places.dims, options)
        laid = [each.transpose(*array.dims) for each in found]
        filled = array.copy(data=laid[0].data)
        return (filled, _as_std(array.copy(data=laid[1].data))) if return_std else filled

    def reconstruct(
        self,
        like: xr.DataArray | xr.Dataset,
        *,
        coords: Sequence[str] | None = None,
        model: str | Path = UNIVERSAL,
        noise: float | xr.DataArray | None = None,
        return_std: bool = False,
    ) -> Any:
        """Return the field where another array has its values: a grid, a swath, stations.

        Args:
            like: Has coordinates of the same names; longitude and latitude may have other names.
            coords: Names of the coordinates that give places, in both arrays.
            model: As in `fill`.
            noise: As in `fill`.
            return_std: Whether to return the standard deviation too.

        Returns:
            An array along the other dimensions of this one and those of the places of `like`; with
            `return_std`, a pair of it and the standard deviation.

        Raises:
            InputError: The coordinates give no places, or different numbers of them do in the two
                arrays; the values are no real numbers; there is no such model, or it has no
                standard deviation.
        """
        array = _floating(self._array)
        places, target = find_places(array, coords), find_places(like, coords)
        if places.positions.shape[1] != target.positions.shape[1]:
            raise InputError(
                f"places lie along {places.dims} here and along {target.dims} in `like`; name the "
                "coordinates that both have with coords="
            )
        how, extra = _how(array, places, model, noise, None, return_std)
        sizes = {f"{_NEW}{d}": n for d, n in zip(target.dims, target.shape, strict=True)}
        options = {"places": places.positions, "target": target, "how": how}
        found = _apply(_reconstruct, [array, *extra], places.dims, tuple(sizes), options, sizes)
        mean, *std = [_located(each, like, target) for each in found]
        return (mean, _as_std(std[0])) if return_std else mean


def _how(
    array: xr.DataArray,
    places: Places,
    model: str | Path,
    noise: float | xr.DataArray | None,
    where: xr.DataArray | None,
    stds: bool,
) -> tuple[_How, list[xr.DataArray]]:
    """Return what to do, and the arrays that it takes beside the values."""
    arrays = {"noise": noise, "where": where}
    extra = {name: each for name, each in arrays.items() if isinstance(each, xr.DataArray)}
    shape = array.isel({d: 0 for d in array.dims if d not in places.dims}, drop=True)
    spread = [each.broadcast_like(shape) for each in extra.values()]
    constant = None if noise is None or "noise" in extra else float(noise)
    return _How(model, constant, tuple(extra), stds), spread


def _apply(
    function: Any,
    arrays: list[xr.DataArray],
    dims: tuple[str, ...],
    out: tuple[str, ...],
    options: dict[str, Any],
    sizes: dict[str, int] | None = None,
) -> list[xr.DataArray]:
    """Apply a function to every field of arrays, lazily if dask holds them."""
    count = 1 + options["how"].stds
    found = xr.apply_ufunc(
        function,
        *(each.chunk(dict.fromkeys(dims, -1)) if each.chunks else each for each in arrays),
        input_core_dims=[dims] * len(arrays),
        output_core_dims=[out] * count,
        vectorize=True,
        dask="parallelized",
        output_dtypes=[arrays[0].dtype] * count,
        dask_gufunc_kwargs={"output_sizes": sizes} if sizes else None,
        kwargs=options,
        keep_attrs=True,
    )
    return list(found) if count > 1 else [found]


def _fill(values: np.ndarray, *extra: np.ndarray, places: np.ndarray, how: _How) -> Any:
    """Fill the gaps of one field."""
    given = dict(zip(how.extra, extra, strict=True))
    gaps = np.isnan(values)
    noise = given.get("noise", how.noise)
    filled, std = values.copy(), np.where(gaps, np.nan, 0.0 if noise is None else noise)
    wanted = gaps & given["where"].astype(bool) if "where" in given else gaps
    forecast = _forecast(values, noise, places, places[wanted.reshape(-1)], how)
    if forecast is not None:
        filled[wanted] = forecast.mean
        std[wanted] = np.nan if forecast.std is None else forecast.std
    return (filled, std.astype(values.dtype)) if how.stds else filled


def _reconstruct(
    values: np.ndarray, *extra: np.ndarray, places: np.ndarray, target: Places, how: _How
) -> Any:
    """Predict one field at other places."""
    noise = extra[0] if extra else how.noise
    forecast = _forecast(values, noise, places, target.positions, how)
    unknown = np.full(len(target.positions), np.nan)
    mean, std = (unknown, unknown) if forecast is None else forecast
    parts = (mean, unknown if std is None else std)
    laid = [each.reshape(target.shape).astype(values.dtype) for each in parts]
    return tuple(laid) if how.stds else laid[0]


def _forecast(
    values: np.ndarray, noise: Any, places: np.ndarray, at: np.ndarray, how: _How
) -> Forecast | None:
    """Predict one field at positions (L, P), None if too little is observed."""
    seen = np.isfinite(values).reshape(-1)
    if not len(at):
        return None
    if seen.sum() < FEWEST:
        warnings.warn(
            f"{seen.sum()} of {values.size} values are observed, fewer than {FEWEST}: the gaps "
            "of this field stay",
            GapWarning,
            stacklevel=2,
        )
        return None
    sigma = None if noise is None else np.broadcast_to(noise, values.shape).reshape(-1)[seen]
    readings = merge(places[seen], values.reshape(-1)[seen].astype(np.float64), sigma)
    forecast = fit_interpolant(how.model, readings).predict(at)
    if how.stds and forecast.std is None:
        raise InputError(f"'{how.model}' has no standard deviation; use 'universal' or 'kriging'")
    return forecast


def _located(array: xr.DataArray, like: Any, target: Places) -> xr.DataArray:
    """Return an array with its new dimensions named and placed as those of another one."""
    named = array.rename({f"{_NEW}{d}": d for d in target.dims})
    there = {
        name: each
        for name, each in like.coords.items()
        if each.dims and set(each.dims) <= set(target.dims)
    }
    return named.assign_coords(there)


def _as_std(array: xr.DataArray) -> xr.DataArray:
    """Return an array named and described as a standard deviation."""
    name = array.name or "value"
    units = {key: text for key, text in array.attrs.items() if key == "units"}
    described = {"long_name": f"standard deviation of {array.attrs.get('long_name', name)}"}
    return array.rename(f"{name}_std").drop_attrs(deep=False).assign_attrs(units | described)


def _floating(array: xr.DataArray) -> xr.DataArray:
    if array.dtype.kind not in "iuf":
        raise InputError(f"'{array.name}' holds {array.dtype}, not real numbers")
    return array if array.dtype.kind == "f" else array.astype(np.float64)
