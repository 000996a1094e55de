"""Tables of numbers as text: a header, then one measurement a line."""

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.core.memory import check_memory
from sparsefield.data.formats.guard import read_bytes, readable
from sparsefield.data.formats.reading import Reading
from sparsefield.data.observation import Observation

# Coordinate columns that are looked for, by the columns that a table has: the most first.
AXES = (("z", "y", "x"), ("y", "x"), ("x",))

# Python keeps text in lists in so many times its bytes.
_EXPANSION = 20

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Table(NamedTuple):
    """A table as text.

    Attributes:
        path: The file it comes from.
        names: Name of each column.
        rows: The cells of each line that is not blank.
        lines: The number of each such line in the file.
        comma: Whether a decimal point may be a comma.
    """

    path: Path
    names: list[str]
    rows: list[list[str]]
    lines: list[int]
    comma: bool

    def columns(self, names: Sequence[str]) -> np.ma.MaskedArray:
        """Return columns as numbers, shape (M, len(names)); empty cells are masked.

        Raises:
            InputError: There is no such column, two have its name, or a cell is no number.
        """
        numbers = np.ma.masked_all((len(self.rows), len(names)))
        for column, at in enumerate(map(self._find, names)):
            filled = [row for row, cells in enumerate(self.rows) if cells[at]]
            numbers[filled, column] = [self._number(row, at) for row in filled]
        return numbers

    def without(self, names: Sequence[str]) -> list[str]:
        """Return the names of the other columns."""
        return [name for name in self.names if name not in names]

    def _find(self, name: str) -> int:
        if self.names.count(name) != 1:
            problem = "no column" if name not in self.names else "several columns"
            raise InputError(
                f"{self.path} has {problem} '{name}'; its columns are: {', '.join(self.names)}"
            )
        return self.names.index(name)

    def _number(self, row: int, column: int) -> float:
        text = self.rows[row][column]
        plain = text.replace(",", ".") if self.comma and "." not in text else text
        try:
            if "_" in plain:  # Python allows it within numbers, tables do not
                raise ValueError
            return float(plain)
        except ValueError as error:
            raise InputError(
                f"{self.path} is not a table of numbers: line {self.lines[row]} has {text[:40]!r} "
                f"in column '{self.names[column]}'"
            ) from error


def read_observation(path: Path, reading: Reading) -> Observation:
    """Return the measurements in a table, one a line.

    Cells are separated by commas, semicolons or tabs, whichever the header has most of. With
    semicolons and tabs a decimal point may be a comma. The text is UTF-8, with a byte-order mark
    or without, UTF-16 with one, or else Latin-1. Blank lines are skipped.

    Raises:
        InputError: The file is no such table, or lacks a column.
    """
    reading.refuse(path, density="density is a fraction of pixels; this is a table")
    table = read_table(path)
    named = (reading.noise,) if isinstance(reading.noise, str) else ()
    axes = reading.coords or _axes(table, reading.values or (), named)
    channels = reading.values or _rest(table, (*axes, *named))
    coords, values = table.columns(axes), table.columns(channels)
    seen = ~np.asarray(np.ma.getmaskarray(values).all(axis=1))
    places = _needed(table, coords, axes, seen)
    if named:
        return Observation(places, values, _needed(table, table.columns(named), named, seen))
    return Observation(places, values, reading.noise)


def read_table(path: Path) -> Table:
    """Return a table with its header, as text.

    Raises:
        InputError: The file is no text, or a line has other cells than the header.
    """
    data = read_bytes(path)
    check_memory(_EXPANSION * len(data), str(path))
    with readable(path, "table"):
        text = _decode(data)
        if "\0" in text:
            raise InputError(f"{path} is no text; a table of numbers with a header is needed")
        separator = _separator(text)
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
    rows, lines = [row for row, _ in rest], [line for _, line in rest]
    return Table(path, names, rows, lines, comma=separator != ",")


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
    first = next((line for line in text.splitlines() if line.strip()), "")
    counts = {mark: len(next(csv.reader([first], delimiter=mark), ())) for mark in ",;\t"}
    return max(counts, key=lambda mark: counts[mark])


def _axes(table: Table, values: Sequence[str], noise: Sequence[str]) -> tuple[str, ...]:
    """Return the coordinate columns: as many of z, y and x as leave at least one channel."""
    free = table.without([*values, *noise])
    for axes in AXES:
        if set(axes) <= set(free) and (values or len(free) > len(axes)):
            return axes
    raise InputError(
        f"{table.path} needs a header with y, x (or x, or z, y, x) and one name per channel, or "
        f"the names of its coordinates in coords; it has {', '.join(table.names)}"
    )


def _rest(table: Table, used: Sequence[str]) -> tuple[str, ...]:
    names = tuple(table.without(used))
    if not names:
        raise InputError(
            f"{table.path} has no column left for the values; its columns are: "
            f"{', '.join(table.names)}"
        )
    return names


def _needed(
    table: Table, columns: np.ma.MaskedArray, names: Sequence[str], seen: np.ndarray
) -> np.ndarray:
    """Return columns of which every row that was observed needs all numbers."""
    lacking = np.ma.getmaskarray(columns) & seen[:, None]
    if lacking.any():
        row, column = np.argwhere(lacking)[0]
        raise InputError(
            f"{table.path}: line {table.lines[row]} has values but nothing in column "
            f"'{names[column]}'; fill or remove it"
        )
    filled: np.ndarray = columns.filled(0)
    return filled
