"""Tables: one measurement a row, in text or in parquet files."""

import codecs
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsefield.core.checks import partly_missing
from sparsefield.core.errors import InputError
from sparsefield.core.files import write_atomically
from sparsefield.data.formats.columns import Column, Roles, Table, choose_roles
from sparsefield.data.formats.compressed import compress, read_expanded
from sparsefield.data.formats.flat import flat_columns
from sparsefield.data.formats.guard import readable
from sparsefield.data.formats.moments import count_hours
from sparsefield.data.formats.placing import Axes, place
from sparsefield.data.formats.reading import LOGGER, Reading
from sparsefield.data.formats.texts import split_cells
from sparsefield.data.observation import Observation

# Python keeps text in lists in so many times its bytes.
_EXPANSION = 20

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_observation(path: Path, reading: Reading) -> Observation:
    """Return the measurements in a table of text, one a line.

    Cells are separated by commas, semicolons or tabs, whichever the header has most of. With
    semicolons and tabs a decimal point may be a comma. The text is UTF-8, with a byte-order mark
    or without, UTF-16 with one, or else Latin-1. Blank lines are skipped, and empty cells are
    missing, as are NaN, NA and null.

    Raises:
        InputError: The file is no such table, or lacks a column.
    """
    return observe(read_table(path), reading)


def observe(table: Table, reading: Reading) -> Observation:
    """Return the measurements in a table.

    Raises:
        InputError: It lacks a column, or a row with values lacks something else.
    """
    reading.refuse(table.path, density="density is a fraction of pixels; this is a table")
    roles = choose_roles(table, reading)
    values = table.numbers(roles.values)
    seen = _observed(table, values, roles)
    coords = _needed(table, table.numbers(roles.coords), roles.coords, seen)
    units = tuple(table.find(name).unit for name in roles.coords)
    names = tuple(table.find(name).name for name in roles.coords)
    if roles.time:
        times, unit = _times(table, roles, seen)
        coords, names, units = np.column_stack([times, coords]), ("time", *names), (unit, *units)
    noise = reading.noise if isinstance(reading.noise, int | float) else None
    if roles.noise:
        noise = _needed(table, table.numbers(roles.noise), roles.noise, seen)[seen]
    obs = place(coords[seen], values.data[seen], noise, axes=Axes(names, units), reading=reading)
    return obs.labelled(*((table.find(name).name, table.find(name).unit) for name in roles.values))


def read_table(path: Path) -> Table:
    """Return a table of text with its header.

    Raises:
        InputError: The file is no text, or a line has other cells than the header.
    """
    data = read_expanded(path, _EXPANSION)
    with readable(path, "table"):
        text = _decode(data)
        if "\0" in text:
            raise InputError(f"{path} is no text; a table of numbers with a header is needed")
        separator = _separator(text)
        first = io.StringIO(text, newline=None).readline().rstrip("\n")
        names = [cell.strip() for cell in next(csv.reader([first], delimiter=separator), ())]
        cells = split_cells(text, separator, len(names)) if any(names) else None
        if cells is None:
            return _read_lines(path, text, separator)
    columns = [Column(*pair) for pair in zip(names, cells, strict=True)]
    return Table(path, columns, range(2, len(cells[0]) + 2), comma=separator != ",")


def _read_lines(path: Path, text: str, separator: str) -> Table:
    """Return a table line by line, some of which may be blank, or whose cells hold line ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    found = [([cell.strip() for cell in row], reader.line_num) for row in reader]
    filled = [(row, line) for row, line in found if any(row)]
    if not filled:
        raise InputError(f"{path} is empty; a header and rows of numbers are needed")
    (names, _), *rest = filled
    for row, line in rest:
        if len(row) != len(names):
            raise InputError(
                f"{path} is not a table of numbers: line {line} has {len(row)} cells, and the "
                f"header {len(names)}"
            )
    cells = [list(column) for column in zip(*(row for row, _ in rest), strict=True)]
    columns = [Column(*pair) for pair in zip(names, cells or [[] for _ in names], strict=True)]
    return Table(path, columns, [line for _, line in rest], comma=separator != ",")


def write_field(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a field as a table of text: a row for each point, with its coordinates.

    Raises:
        InputError: The file cannot be written.
    """
    columns = flat_columns(arrays)
    base = path.name.lower()
    separator = "\t" if ".tsv" in base else ","
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    data = compress(path, text.getvalue().encode())
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def _decode(data: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _separator(text: str) -> str:
    """Return what separates most cells of the first line that is not blank."""
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    counts = {mark: len(next(csv.reader([first], delimiter=mark), ())) for mark in ",;\t"}
    return max(counts, key=lambda mark: counts[mark])


def _observed(table: Table, values: np.ma.MaskedArray, roles: Roles) -> np.ndarray:
    """Return which rows (M,) were observed: those with all values; the others have none."""
    missing = np.ma.getmaskarray(values)
    for column, name in enumerate(roles.values):
        if len(missing) and missing[:, column].all():
            which = f"nothing is known of channel {column + 1} of {len(roles.values)}"
            raise InputError(f"{table.path}: {which}: column '{name}' holds no number in any row")
    partly = partly_missing(missing)
    if partly.size:
        raise InputError(
            f"{table.path}: line {table.lines[partly[0]]} and {partly.size - 1} others "
            "are empty or NaN in some channels only; choose one channel with value, or "
            "remove those rows"
        )
    seen = np.asarray(~missing.all(axis=1))
    if not seen.any():
        raise InputError(f"{table.path}: no row is a measurement; at least one point is needed")
    if not seen.all():
        LOGGER.info("%s: %d of %d rows have no value", table.path, (~seen).sum(), len(seen))
    return seen


def _times(table: Table, roles: Roles, seen: np.ndarray) -> tuple[np.ndarray, str]:
    """Return times (M,) as numbers, and their unit."""
    column = table.find(roles.time[0])
    if len(roles.time) == 1 and not table.is_moment(column) and table.is_number(column):
        return _needed(table, table.numbers(roles.time), roles.time, seen), column.unit
    moments = table.moments(roles.time)
    filled = _needed(table, moments[:, None], roles.time, seen, moments[seen].min())
    hours, unit = count_hours(filled[:, 0])
    return hours, unit


def _needed(
    table: Table,
    columns: np.ma.MaskedArray,
    names: Sequence[str],
    seen: np.ndarray,
    fill: Any = 0,
) -> np.ndarray:
    """Return columns of which every row that was observed needs all numbers."""
    lacking = np.ma.getmaskarray(columns) & seen[:, None]
    if lacking.any():
        row, column = np.argwhere(lacking)[0]
        raise InputError(
            f"{table.path}: line {table.lines[row]} has values but nothing in column "
            f"'{names[column]}'; fill or remove it"
        )
    filled: np.ndarray = columns.filled(fill)
    return filled
