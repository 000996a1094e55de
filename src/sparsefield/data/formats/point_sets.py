"""Tables of many days: each day is an item, measured at places of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.formats import parquet_tables
from sparsefield.data.formats.columns import Table
from sparsefield.data.formats.guard import readable
from sparsefield.data.formats.tables import read_table
from sparsefield.data.scattered import ScatteredDataset

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
# Names of coordinates by which a table is understood, in the order of a grid's axes.
AXES = (
    ("z", "y", "x"),
    ("depth", "lat", "lon"),
    ("lat", "lon"),
    ("latitude", "longitude"),
    ("y", "x"),
    ("x",),
)
ITEMS = ("item", "day", "date", "time", "datetime", "timestamp", "valid_time")


class Columns(NamedTuple):
    """Which columns of a table are what; those left out are guessed by well-known names.

    Attributes:
        coords: Coordinates, in the order of a grid's axes.
        values: Channels.
        item: What tells items apart: rows with the same entry belong together.
    """

    coords: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    item: str = ""


def holds_points(path: Path) -> bool:
    """Tell whether a file is a table of points by its suffix; Parquet may hold images too."""
    name = path.name.lower()
    if not name.endswith(SUFFIXES) or not path.is_file():
        return False
    return not name.endswith(".parquet") or not _images(path)


def read_point_sets(
    paths: Sequence[Path], columns: Columns, size: tuple[int, ...] = ()
) -> ScatteredDataset:
    """Return the items of tables with the same columns.

    Coordinates are mapped to [-1, 1] along each axis, from the least to the largest of all tables.
    Rows without a value were not observed.

    Args:
        paths: The tables.
        columns: Which columns are what.
        size: See `ScatteredDataset`.

    Raises:
        InputError: A file is no table, lacks a column, or all places agree along an axis.
    """
    tables = [_read(path) for path in paths]
    items, coords, values = [], [], []
    for number, table in enumerate(tables):
        chosen = _choose(table, columns)
        items += [(number, key) for key in _texts(table, chosen.item)]
        coords.append(table.numbers(chosen.coords).filled(np.nan))
        values.append(table.numbers(chosen.values).filled(np.nan))
    return _pack(items, np.concatenate(coords), np.concatenate(values), paths, size)


def _pack(
    items: list[tuple[int, str]],
    coords: np.ndarray,
    values: np.ndarray,
    paths: Sequence[Path],
    size: tuple[int, ...],
) -> ScatteredDataset:
    """Return rows as items of equal length, in the order of their names."""
    name = "+".join(path.name for path in paths)
    seen = np.flatnonzero(np.isfinite(values).all(1) & np.isfinite(coords).all(1))
    if not len(seen):
        raise InputError(f"{name} has no row with coordinates and values")
    low, high = coords[seen].min(0), coords[seen].max(0)
    if (low == high).any():
        raise InputError(f"{name}: all places have the same coordinate along an axis")
    members: dict[tuple[int, str], list[int]] = {}
    for row in seen:
        members.setdefault(items[row], []).append(int(row))
    longest = max(map(len, members.values()))
    packed_coords = np.zeros((len(members), longest, coords.shape[1]), np.float32)
    packed = np.full((len(members), longest, values.shape[1]), np.nan, np.float32)
    for place, key in enumerate(sorted(members)):
        rows = members[key]
        packed_coords[place, : len(rows)] = (2 * coords[rows] - low - high) / (high - low)
        packed[place, : len(rows)] = values[rows]
    return ScatteredDataset(packed_coords.clip(-1, 1), packed, name, size)


def _choose(table: Table, columns: Columns) -> Columns:
    """Return which columns are what, guessed where it was not said."""
    small = {name.lower(): name for name in table.names}
    item = columns.item or next((small[n] for n in ITEMS if n in small), "")
    if not item or item not in table.names:
        raise _lacks(table, f"no column '{columns.item or 'day'}' that tells items apart", "item")
    guess = next((axes for axes in AXES if set(axes) <= small.keys()), ())
    coords = columns.coords or tuple(small[name] for name in guess)
    if not coords:
        raise _lacks(table, "no coordinates as lat, lon or y, x", "coords")
    values = columns.values or tuple(
        name for name in table.names if name not in (*coords, item) and _is_numeric(table, name)
    )
    if not values:
        raise _lacks(table, "no column of values", "values")
    return Columns(coords, values, item)


def _lacks(table: Table, what: str, key: str) -> InputError:
    return InputError(
        f"{table.path} has {what}; its columns are: {', '.join(table.names)}; set data.{key}"
    )


def _is_numeric(table: Table, name: str) -> bool:
    try:
        return bool(table.numbers([name]).count())
    except InputError:
        return False


def _texts(table: Table, name: str) -> list[str]:
    return list(map(str, table.find(name).cells))


def _read(path: Path) -> Table:
    """Return a table as text, whatever its format."""
    if path.suffix.lower() != ".parquet":
        return read_table(path)
    return parquet_tables.read_table(path)


def _images(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    with readable(path, "parquet file"):
        return [name for name in pq.read_schema(path).names if name in ("image", "img")]
