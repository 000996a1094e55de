"""Fields over time in NetCDF files: items along time, cells along the other axes."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.core.memory import check_memory
from sparsefield.data.formats.examples import Examples, Request
from sparsefield.data.formats.guard import readable, regular_file
from sparsefield.data.formats.netcdf import need_xarray, opened
from sparsefield.data.formats.splits import unsplit
from sparsefield.data.series import Series

_TIMES = ("time", "date", "datetime", "valid_time", "month", "day", "t")
# An axis counts as regular if its steps differ by less than this share of them.
_UNEVEN = 1e-2


def read_series(path: Path, request: Request) -> Examples:
    """Return the fields in a NetCDF file, one for each time.

    Variables on the same axes are channels; `request.values` chooses among them. Numbers are
    unpacked, and fill values are missing. Axes that fall are turned round.

    Args:
        path: The file.
        request: What to read of it; `period` is the first and the last time.

    Raises:
        InputError: xarray is not installed, the file is damaged, no variable or none of these
            names is a field, the variables lie on different axes, or no time is in the period.
    """
    with opened(path) as data:
        names = _variables(data, request.values, path)
        array = _stack(data, names, path)
        times = _times(array, path)
        items = _period(times, request.period, array.shape[0], path)[: request.limit]
        array = array.isel({array.dims[0]: items})
        check_memory(4 * array.size, str(path), regular_file(path))
        with readable(path, "NetCDF file"):
            numbers = np.asarray(array.values, np.float32)
        unit = str(data[names[0]].attrs.get("units", "")) if len(names) == 1 else ""
    values, series = _rising(numbers, array, path)
    series = replace(series, times=None if times is None else times[items], unit=unit)
    said = f"{path.name}: {', '.join(names)}; {series.describe()}"
    return Examples(values, (said, *unsplit(path.name, request.split)), series=series)


def _variables(data: Any, wanted: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """Return the variables that are fields: those named, or all on the axes of the first."""
    fields = [
        str(name)
        for name, variable in data.data_vars.items()
        if variable.ndim >= 2 and variable.dtype.kind in "iuf"
    ]
    for name in wanted:
        if name not in fields:
            raise InputError(
                f"{path} has no field '{name}'; it has: {', '.join(fields) or 'none'}"
            )
    if not fields:
        raise InputError(f"{path} holds no variable with two axes or more")
    return wanted or tuple(n for n in fields if data[n].dims == data[fields[0]].dims)


def _stack(data: Any, names: tuple[str, ...], path: Path) -> Any:
    """Return the variables as one array (N, *grid, C) whose first axis is time."""
    if len({data[name].dims for name in names}) > 1:
        axes = "; ".join(f"{name}: {', '.join(map(str, data[name].dims))}" for name in names)
        raise InputError(f"{path}: channels need the same axes ({axes}); choose one variable")
    xarray = need_xarray(f"reading {path}")
    array = xarray.concat([data[name] for name in names], "channel", coords="minimal")
    time = [dim for dim in array.dims if _is_time(array, dim)]
    if not time:
        array, time = array.expand_dims("item"), ["item"]
    grid = [dim for dim in array.dims if dim not in (time[0], "channel")]
    # Channels would be last, but an axis without coordinates is none of the grid.
    found = array.transpose(time[0], *grid, "channel")
    if not grid or 0 in found.shape:
        raise InputError(f"{path}: {', '.join(names)} has no axis beside {time[0]}")
    return found


def _is_time(array: Any, dim: Any) -> bool:
    unit = str(array[dim].attrs.get("units", "")) if dim in array.coords else ""
    return str(dim).lower() in _TIMES or " since " in unit


def _times(array: Any, path: Path) -> np.ndarray | None:
    """Return the time (N,) of each item, None where the file does not say."""
    dim = array.dims[0]
    if dim not in array.coords or " since " not in str(array[dim].attrs.get("units", "")):
        return None
    xarray = need_xarray(f"reading {path}")
    with readable(path, "NetCDF file", advice="check the units of its time"):
        try:
            decoded = xarray.decode_cf(array[dim].to_dataset(name="x"))[dim].values
            return np.asarray(decoded, "datetime64[s]")
        except (ValueError, TypeError):  # a calendar that datetime64 does not know
            return None


def _period(
    times: np.ndarray | None, period: tuple[str, ...], count: int, path: Path
) -> np.ndarray:
    """Return which items lie between two times, both included."""
    if not period:
        return np.arange(count)
    if len(period) != 2 or times is None:
        raise InputError(f"{path}: a period is a first and a last time, for fields with times")
    try:
        first, last = (np.datetime64(text) for text in period)
    except ValueError as error:
        raise InputError(f"{path}: '{' '.join(period)}' is no period: {error}") from error
    # A last day or hour counts whole.
    chosen = np.flatnonzero((times >= first) & (times < last + 1))
    if not len(chosen):
        raise InputError(
            f"{path}: no field from {period[0]} to {period[1]}; it has {times[0]} to {times[-1]}"
        )
    return chosen


def _rising(values: np.ndarray, array: Any, path: Path) -> tuple[np.ndarray, Series]:
    """Return values whose axes all rise, and where they lie."""
    axes, names, units = [], [], []
    for number, dim in enumerate(array.dims[1:-1], start=1):
        known = dim in array.coords
        axis = np.asarray(array[dim].values, float) if known else np.arange(values.shape[number])
        if len(axis) > 1 and axis[0] > axis[-1]:
            axis, values = axis[::-1], np.flip(values, number)
        _check_axis(axis, str(dim), path)
        axes.append(np.array(axis))
        names.append(str(dim))
        units.append(str(array[dim].attrs.get("units", "")) if known else "")
    return np.ascontiguousarray(values), Series(tuple(axes), tuple(names), tuple(units))


def _check_axis(axis: np.ndarray, name: str, path: Path) -> None:
    steps = np.diff(axis)
    if not np.isfinite(axis).all() or (steps <= 0).any():
        raise InputError(f"{path}: axis {name} neither rises nor falls throughout")
    if len(steps) and np.ptp(steps) > _UNEVEN * steps.mean():
        logging.getLogger(__name__).info(
            "%s: the steps of axis %s differ; its cells count as equal", path.name, name
        )
