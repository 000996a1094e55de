"""NetCDF: fields with named axes, units and a record of how they were made."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.core.files import write_atomically
from sparsefield.core.memory import check_memory
from sparsefield.data.formats.gridded import GridAxis, observe_grid
from sparsefield.data.formats.guard import readable, regular_file
from sparsefield.data.formats.hdf5 import check_heaps
from sparsefield.data.formats.moments import count_moment, name_moments, parse_moment
from sparsefield.data.formats.placing import Axes, pick, place
from sparsefield.data.formats.reading import Reading
from sparsefield.data.frame import axis_kind
from sparsefield.data.observation import Observation

# How files begin, and what reads them.
_ENGINES = {b"CDF": "scipy", b"\x89HDF": "netcdf4"}

# What each number of a field is, for people.
_MEANINGS = {
    "mean": "posterior mean",
    "std": "standard deviation of the posterior samples",
    "samples": "posterior samples",
    "quantiles": "quantiles of the posterior samples",
}
# Axes in front of those of the grid.
_LEADING = {"samples": "sample", "quantiles": "level"}


def need_xarray(what: str) -> Any:
    """Return xarray.

    Raises:
        InputError: It is not installed.
    """
    try:
        return import_module("xarray")
    except ImportError as error:
        raise InputError(f"{what} needs xarray: install sparsefield[geo]") from error


def to_dataset(arrays: Mapping[str, np.ndarray]) -> Any:
    """Return a field as an xarray Dataset.

    Axes with names have their physical coordinates and units, and one channel needs no axis.

    Args:
        arrays: What `Field.arrays` returns.

    Raises:
        InputError: xarray is not installed.
    """
    xarray = need_xarray("to_xarray")
    mean, framed = arrays["mean"], "names" in arrays
    axes = _axes(arrays)
    squeezed = framed and mean.shape[-1] == 1
    variables: dict[str, Any] = {}
    for name, meaning in _MEANINGS.items():
        if name not in arrays:
            continue
        values = arrays[name][..., 0] if squeezed else arrays[name]
        dims = [_LEADING[name]] if name in _LEADING else []
        dims += [*axes, *([] if squeezed else ["channel"])]
        variables[name] = (dims, values, _attributes(arrays, meaning))
    if not framed and "coords" in arrays:
        variables["coords"] = ([*axes, "dimension"], arrays["coords"])
    made = json.loads(str(arrays["made"])) if "made" in arrays else {}
    return xarray.Dataset(variables, _coordinates(arrays, axes), made)


def _axes(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names of the axes of the mean."""
    cells = arrays["mean"].ndim - 1
    if "coords" in arrays and arrays["coords"].shape[-1] != cells:
        return ["point"]
    if "names" in arrays:
        return [str(name) for name in arrays["names"]]
    return [f"axis_{axis}" for axis in range(cells)]


def _coordinates(arrays: Mapping[str, np.ndarray], axes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "levels" in arrays:
        found["level"] = arrays["levels"]
    if "channels" in arrays and (arrays["mean"].shape[-1] > 1 or "names" not in arrays):
        found["channel"] = [str(name) for name in arrays["channels"]]
    if "names" not in arrays:
        return found
    for axis, (name, unit) in enumerate(zip(arrays["names"], arrays["units"], strict=True)):
        free = axes == ["point"]
        values = arrays["coords"][..., axis]
        along = (
            values if free else np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])[0]
        )
        attributes = {"units": str(unit)} if unit else {}
        found[str(name)] = (axes if free else [str(name)], along, attributes)
    return found


def _attributes(arrays: Mapping[str, np.ndarray], meaning: str) -> dict[str, str]:
    """Return what the values are, and their unit if they all have the same."""
    names = [str(name) for name in arrays.get("channels", ())]
    units = {str(unit) for unit in arrays.get("channel_units", ())}
    of = f" of {names[0]}" if len(names) == 1 and names[0] else ""
    found = {"long_name": f"{meaning}{of}"}
    return found | ({"units": units.pop()} if len(units) == 1 and units != {""} else {})


def read_observation(path: Path, reading: Reading) -> Observation:
    """Return the cells of a variable, or of several as channels, that are not missing.

    Packed values, fill values, units and axes are understood as CF says. Variables along one
    dimension with a coordinate for each axis are points.

    Raises:
        InputError: The file is damaged, several variables or moments might be meant, or axes are
            no axes.
    """
    with opened(path) as dataset, readable(path, "NetCDF file"):
        return observe(dataset, path, reading)


def read_zarr_observation(path: Path, reading: Reading) -> Observation:
    """Return the cells of variables in a Zarr store, a folder, as `read_observation` does."""
    xarray = need_xarray(f"reading {path}")
    with readable(path, "Zarr store"):
        dataset = xarray.open_zarr(path, decode_times=False, chunks=None, consolidated=False)
    with dataset, readable(path, "Zarr store"):
        return observe(dataset, path, reading)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a NetCDF file of any version; values are unpacked, times are numbers.

    Raises:
        InputError: It is no NetCDF file, or a package that reads it is missing.
    """
    regular_file(path)
    xarray = need_xarray(f"reading {path}")
    with readable(path, "file"), path.open("rb") as file:
        start = file.read(4)
    engine = next((name for mark, name in _ENGINES.items() if start.startswith(mark)), None)
    if engine is None:
        raise InputError(f"{path} is not a readable NetCDF file; fetch it again")
    if engine == "netcdf4" and not find_spec("netCDF4"):
        raise InputError(f"reading {path} needs netCDF4: install sparsefield[geo]")
    if engine == "netcdf4":
        check_heaps(path)
    # Its warnings of a damaged file would come before our line.
    logging.getLogger("xarray").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packing that xarray would choose otherwise
        with readable(path, "NetCDF file"):
            dataset = xarray.open_dataset(path, engine=engine, decode_times=False)
    with dataset:
        yield dataset


def observe(dataset: Any, path: Path, reading: Reading) -> Observation:
    """Return the observations in a dataset of xarray whose times are numbers.

    Raises:
        InputError: See `read_observation`.
    """
    variables = [dataset[name] for name in _choose_variables(dataset, path, reading)]
    variables = [_at_moment(each, path, reading) for each in variables]
    labels = [(str(each.name), str(each.attrs.get("units", ""))) for each in variables]
    dims = _choose_axes(variables[0], path, reading)
    for each in variables:
        if set(each.dims) != set(variables[0].dims):
            raise InputError(
                f"{path}: {each.name} has the axes {', '.join(map(str, each.dims))}, and "
                f"{variables[0].name} has {', '.join(map(str, variables[0].dims))}"
            )
        stored = path.stat().st_size if path.is_file() else None
        check_memory(8 * each.size * (2 + len(each.dims)), f"{path} {each.name}", stored)
    if set(dims) == set(variables[0].dims):
        return _observe_cells(variables, dims, path, reading).labelled(*labels)
    return _observe_points(variables, dims, path, reading).labelled(*labels)


def _choose_variables(dataset: Any, path: Path, reading: Reading) -> list[str]:
    names = [str(name) for name, each in dataset.data_vars.items() if each.dtype.kind in "biuf"]
    if reading.values:
        return pick(names, reading.values, str(path), "variable")
    fields = [name for name in names if dataset[name].ndim and "bnds" not in dataset[name].dims]
    if reading.noise_names:
        fields = [name for name in fields if name not in reading.noise_names]
    if len(fields) != 1:
        raise InputError(
            f"{path} has {len(fields)} variables; choose with value (--value): {', '.join(names)}"
        )
    return fields


def _at_moment(variable: Any, path: Path, reading: Reading) -> Any:
    """Return a variable without its axis of times, unless that is to be one of the axes."""
    for dim in variable.dims:
        unit = str(variable[dim].attrs.get("units", "")) if dim in variable.coords else ""
        if axis_kind(str(dim), unit) != "time":
            continue
        chosen, moments = reading.time[:1], variable.sizes[dim]
        asked = {name.lower() for name in (*reading.time, *(reading.coords or ()))}
        if str(dim).lower() in asked:
            continue
        if not chosen and moments > 1:
            raise InputError(
                f"{path}: {variable.name} has {moments} times, {_range(variable, dim)}; choose "
                f"one with time (--time), by its date or number from 0, or name the axis '{dim}'"
            )
        index = _find_moment(variable, dim, unit, chosen[0], path) if chosen else 0
        return variable.isel({dim: index})
    if reading.time and not any(
        str(dim).lower() == reading.time[0].lower() for dim in variable.dims
    ):
        raise InputError(f"{path}: {variable.name} has no axis of times; leave time out")
    return variable


def _find_moment(variable: Any, dim: str, unit: str, wanted: str, path: Path) -> int:
    """Return the number of a moment: that number itself, or that of the date."""
    count = variable.sizes[dim]
    if wanted.lstrip("-").isdigit() and -count <= int(wanted) < count:
        return int(wanted)
    advice = f"the times go {_range(variable, dim)}, and their numbers from 0 to {count - 1}"
    try:
        number = count_moment(parse_moment(wanted), unit)
    except ValueError as error:
        raise InputError(f"{path}: no time '{wanted}'; {advice}") from error
    distance = np.abs(variable[dim].values.astype(np.float64) - number)
    step = np.median(np.abs(np.diff(variable[dim].values.astype(np.float64)))) if count > 1 else 0
    if not distance.min() <= 1e-3 * step:
        raise InputError(f"{path}: no time {wanted}; {advice}")
    return int(distance.argmin())


def _range(variable: Any, dim: str) -> str:
    """Return the first and last position along an axis in words."""
    if dim not in variable.coords:
        return f"numbered from 0 to {variable.sizes[dim] - 1}"
    ends = variable[dim].values[[0, -1]].astype(np.float64)
    texts = name_moments(ends, str(variable[dim].attrs.get("units", "")))
    first, last = texts or [f"{end:g}" for end in ends]
    return f"from {first} to {last}"


def _choose_axes(variable: Any, path: Path, reading: Reading) -> list[str]:
    """Return the coordinates of a variable in the order of the grid's axes."""
    here = [str(name) for name in {*variable.dims, *variable.coords}]
    if reading.coords:
        return pick(sorted(here), reading.coords, f"{path} {variable.name}", "axis")
    dims = [str(dim) for dim in variable.dims if variable.sizes[dim] > 1]
    if len(dims) == 1:
        beside = [str(name) for name, each in variable.coords.items() if each.dims == (dims[0],)]
        kinds = {
            axis_kind(name, str(variable[name].attrs.get("units", ""))): name for name in beside
        }
        if {"longitude", "latitude"} <= set(kinds):
            return [kinds["latitude"], kinds["longitude"]]
    if not 1 <= len(dims) <= 3:
        sizes = ", ".join(f"{dim} ({variable.sizes[dim]})" for dim in variable.dims)
        raise InputError(f"{path}: {variable.name} has the axes {sizes}; one to three are needed")
    return dims


def _observe_cells(
    variables: list[Any], dims: list[str], path: Path, reading: Reading
) -> Observation:
    squeezed = [dim for dim in variables[0].dims if dim not in dims]
    ordered = [each.squeeze(squeezed).transpose(*dims) for each in variables]
    values = np.stack([_valid(each) for each in ordered], axis=-1)
    axes = [_axis(ordered[0], dim, path) for dim in dims]
    return observe_grid(path, values, axes, reading)


def _observe_points(
    variables: list[Any], names: list[str], path: Path, reading: Reading
) -> Observation:
    """Return values at points whose coordinates are variables themselves."""
    reading.refuse(path, density="density is a fraction of cells; these are points")
    first = variables[0]
    places = [first[name].broadcast_like(first).transpose(*first.dims) for name in names]
    coords = np.stack([each.values.ravel() for each in places], -1).astype(np.float64)
    values = np.stack([_valid(each.transpose(*first.dims)).ravel() for each in variables], -1)
    seen = np.isfinite(values).all(-1) & np.isfinite(coords).all(-1)
    if not seen.any():
        raise InputError(f"{path}: {first.name} has no number at any point")
    noise = None if reading.noise_names else reading.noise
    units = tuple(str(first[name].attrs.get("units", "")) for name in names)
    return place(
        coords[seen], values[seen], noise, axes=Axes(tuple(names), units), reading=reading
    )


def _valid(variable: Any) -> np.ndarray:
    """Return values as float64, NaN where they are missing or out of their stated range."""
    values = variable.values.astype(np.float64)
    attributes, packing = variable.attrs, variable.encoding
    low, high = attributes.get("valid_range", (-np.inf, np.inf))
    low, high = attributes.get("valid_min", low), attributes.get("valid_max", high)
    scale, shift = packing.get("scale_factor", 1.0), packing.get("add_offset", 0.0)
    ends = sorted((scale * np.float64(low) + shift, scale * np.float64(high) + shift))
    with np.errstate(invalid="ignore"):
        slack = abs(scale) / 2 if "scale_factor" in packing else 0.0
        return np.where((values >= ends[0] - slack) & (values <= ends[1] + slack), values, np.nan)


def _axis(variable: Any, dim: str, path: Path) -> GridAxis:
    """Return an axis with its positions: numbers from 0 where there are none."""
    if dim not in variable.coords:
        return GridAxis(dim, "", np.arange(variable.sizes[dim], dtype=np.float64))
    coordinate = variable[dim]
    if coordinate.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: axis '{dim}' holds {coordinate.dtype} values; numbers are needed"
        )
    unit = str(coordinate.attrs.get("units", ""))
    return GridAxis(dim, unit, coordinate.values.astype(np.float64))


def write_field(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a field with its axes, units and provenance as NetCDF 4, compressed.

    Raises:
        InputError: xarray is missing, or the file cannot be written.
    """
    dataset = to_dataset(arrays)
    packed = {name: {"zlib": True, "complevel": 4} for name in dataset.data_vars}

    def save(temporary: Path) -> None:
        dataset.to_netcdf(temporary, engine="netcdf4", encoding=packed)

    write_atomically(path, save)


def write_zarr_field(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a field as a Zarr store, a folder; one that exists is not replaced.

    Raises:
        InputError: xarray is missing, or there is something already.
    """
    dataset = to_dataset(arrays)
    if path.exists():
        raise InputError(f"{path} exists; a Zarr store is not replaced, remove it first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            dataset.to_zarr(Path(folder) / path.name, consolidated=False, zarr_format=2)
            (Path(folder) / path.name).rename(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
