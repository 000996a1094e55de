"""Where a field is wanted: points from a table or an archive, a grid from NetCDF."""

from pathlib import Path
from typing import Any

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.formats import TEXT_SUFFIXES
from sparsefield.data.formats.arrays import open_archive
from sparsefield.data.formats.columns import Table
from sparsefield.data.formats.guard import readable
from sparsefield.data.formats.moments import count_moment, name_moments
from sparsefield.data.formats.netcdf import opened
from sparsefield.data.formats.placing import plain_axes
from sparsefield.data.frame import Frame, axis_kind
from sparsefield.data.query import Grid, Lattice, Points


def read_points(path: Path, frame: Frame | None, dims: int) -> Points:
    """Return the points in a table, or in the array coords (L, P) of an archive.

    Columns are found by the names of the observations' axes, or as latitude, longitude and time.

    Args:
        path: The file.
        frame: The frame of the observations, if they have one.
        dims: Their dimensions P.

    Raises:
        InputError: The file is damaged or of another kind, or lacks an axis.
    """
    name = path.name.lower()
    if name.endswith(".npz"):
        with open_archive(path) as archive:
            if "coords" not in archive.names:
                raise InputError(f"{path} lacks the array 'coords' with the points")
            return Points(archive.read("coords"))
    if not name.endswith((*TEXT_SUFFIXES, ".parquet")):
        raise InputError(f"{path}: points are read from {', '.join(TEXT_SUFFIXES[:3])}, .parquet "
                         "or .npz; a grid as in NetCDF is given with --like")  # fmt: skip
    table = read_any_table(path)
    if not table.lines:
        raise InputError(f"{path} has no row; at least one point is needed")
    axes = plain_axes(dims).names if frame is None else frame.names
    units = ("",) * dims if frame is None else frame.units
    columns = [_column(table, *axis) for axis in zip(axes, units, strict=True)]
    return Points(np.stack(columns, axis=-1))


def read_grid(path: Path, frame: Frame) -> Lattice:
    """Return the grid of a NetCDF file, along the axes of a frame.

    Raises:
        InputError: The file is damaged, or lacks an axis.
    """
    with opened(path) as dataset, readable(path, "NetCDF file"):
        axes = {}
        for name, unit in zip(frame.names, frame.units, strict=True):
            found = _coordinate(dataset, name, unit, path)
            positions = np.atleast_1d(found.values).astype(np.float64)
            own = str(found.attrs.get("units", ""))
            if axis_kind(name, unit) == "time" and own != unit:
                shift = count_moment(_origin(own), unit)
                rate = count_moment(_origin(own, 1.0), unit) - shift
                positions = shift + rate * positions
            axes[name] = positions
    return Grid.like(axes)


def read_any_table(path: Path) -> Table:
    """Return a table of text or of a parquet file."""
    from sparsefield.data.formats import parquet_tables, tables

    reader = parquet_tables if path.suffix.lower() == ".parquet" else tables
    return reader.read_table(path)


def _column(table: Table, axis: str, unit: str) -> np.ndarray:
    """Return the positions (L,) along an axis.

    Raises:
        InputError: No column is that axis, or a cell is missing.
    """
    kind = axis_kind(axis, unit)
    names = [c.header for c in table.columns if axis.lower() in (c.header.lower(), c.name.lower())]
    if not names and kind != "other":
        names = [c.header for c in table.columns if axis_kind(c.name, c.unit) == kind]
    if len(names) != 1:
        raise InputError(
            f"{table.path} needs one column '{axis}', as the observations have; its columns are: "
            f"{', '.join(table.names)}"
        )
    if kind == "time" and table.is_moment(table.find(names[0])):
        moments = table.moments(names)
        missing = np.ma.getmaskarray(moments)
        numbers = np.array([count_moment(m, unit) for m in moments.filled(np.datetime64(0, "us"))])
    else:
        column = table.numbers(names)[:, 0]
        missing, numbers = np.ma.getmaskarray(column), column.filled(0)
    if missing.any():
        line = table.lines[int(missing.argmax())]
        raise InputError(f"{table.path}: line {line} has nothing in column '{names[0]}'")
    return np.asarray(numbers)


def _coordinate(dataset: Any, name: str, unit: str, path: Path) -> Any:
    """Return the coordinate of a dataset that is an axis, by its name or by what it is."""
    coords = dataset.coords
    kind = axis_kind(name, unit)
    same = [key for key in coords if str(key).lower() == name.lower()]
    if not same and kind != "other":
        same = [
            key for key in coords
            if axis_kind(str(key), str(coords[key].attrs.get("units", ""))) == kind
        ]  # fmt: skip
    if len(same) != 1:
        raise InputError(
            f"{path} needs one axis '{name}', as the observations have; it has: "
            f"{', '.join(map(str, coords))}"
        )
    return coords[same[0]]


def _origin(unit: str, count: float = 0.0) -> np.datetime64:
    """Return the moment that stands `count` units after that which a unit counts from."""
    names = name_moments(np.array([count]), unit)
    if names is None:
        raise InputError(f"'{unit}' is no unit of time that is known here")
    return np.datetime64(names[0].removesuffix("Z"), "us")
