"""Tables as columns, and what each column is for: chosen by name, or guessed and said."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.formats.moments import is_moment, parse_moments
from sparsefield.data.formats.reading import LOGGER, Reading
from sparsefield.data.formats.texts import parse_numbers
from sparsefield.data.frame import LATITUDES, LONGITUDES, TIMES

# Cells that stand for nothing, in small letters.
MISSING = frozenset(("", "nan", "na", "n/a", "null", "none", "-", "--"))

# Columns that say which rows belong together, or what they are for; they are no channels.
GROUPS = ("group", "station", "station_id", "stationid", "id", "name", "site", "track", "cruise",
          "ship", "platform", "line", "line_number", "fid", "index", "split", "fold")  # fmt: skip
NOISES = ("noise", "sigma", "sd", "std", "stderr", "std_err", "se", "error", "uncertainty")

_WITH_UNIT = re.compile(r"^(?P<name>.*\S)\s*[\[(](?P<unit>[^\[\]()]*)[\])]$")


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        header: What stands above it.
        cells: Text of each row, or numbers, or moments in UTC (M,), masked where there is none.
    """

    header: str
    cells: Sequence[str] | np.ma.MaskedArray

    @property
    def name(self) -> str:
        """The header without a unit in brackets."""
        found = _WITH_UNIT.match(self.header)
        return found["name"] if found else self.header

    @property
    def unit(self) -> str:
        """The unit that follows in brackets, if any."""
        found = _WITH_UNIT.match(self.header)
        return found["unit"].strip() if found else ""


class Table(NamedTuple):
    """A table.

    Attributes:
        path: The file it comes from.
        columns: Its columns.
        lines: The number of each row in the file.
        comma: Whether a decimal point may be a comma.
    """

    path: Path
    columns: list[Column]
    lines: Sequence[int]
    comma: bool = False

    @property
    def names(self) -> list[str]:
        """What stands above each column."""
        return [column.header for column in self.columns]

    def find(self, name: str) -> Column:
        """Return the column of a name: as it is, without its unit, or in letters of another case.

        Raises:
            InputError: There is none, or more than one.
        """
        ways = (
            lambda column: column.header == name,
            lambda column: column.name == name,
            lambda column: name.lower() in (column.header.lower(), column.name.lower()),
        )
        for way in ways:
            found = [column for column in self.columns if way(column)]
            if len(found) == 1:
                return found[0]
            if found:
                break
        problem = "several columns" if found else "no column"
        raise InputError(
            f"{self.path} has {problem} '{name}'; its columns are: {', '.join(self.names)}"
        )

    def numbers(self, names: Sequence[str]) -> np.ma.MaskedArray:
        """Return columns as numbers (M, len(names)), masked where there is none.

        Raises:
            InputError: There is no such column, two have its name, or a cell is no number.
        """
        found = np.ma.masked_all((len(self.lines), len(names)))
        for at, name in enumerate(names):
            found[:, at] = self._numbers(self.find(name))
        return found

    def moments(self, names: Sequence[str]) -> np.ma.MaskedArray:
        """Return dates and times (M,) in UTC, of one column or of a date and a time of day.

        Raises:
            InputError: There is no such column, a cell is no date in ISO 8601, or some state a
                time zone and others none.
        """
        columns = [self.find(name) for name in names]
        if isinstance(columns[0].cells, np.ndarray):
            return np.ma.masked_array(columns[0].cells)
        texts = [
            " ".join(cells).strip() for cells in zip(*(c.cells for c in columns), strict=True)
        ]
        known = np.array([text.lower() not in MISSING for text in texts], bool)
        found = np.ma.masked_all(len(texts), "datetime64[us]")
        rows = np.flatnonzero(known)
        try:
            found[known], zoned = parse_moments([texts[row] for row in rows])
        except ValueError as error:
            row = rows[error.args[0]]
            raise InputError(
                f"{self.path}: line {self.lines[row]} has {texts[row][:40]!r} in column "
                f"'{names[0]}', which is no date; write it as 2019-03-01T12:00Z"
            ) from error
        self._check_zones(names[0], [texts[row] for row in rows], rows, zoned)
        return found

    def _check_zones(
        self, name: str, texts: Sequence[str], rows: np.ndarray, zoned: np.ndarray
    ) -> None:
        """Refuse a column of which some rows state a time zone, and say so if none does."""
        if zoned.any() and not zoned.all():
            first = int(zoned.argmin())
            raise InputError(
                f"{self.path}: line {self.lines[rows[first]]} has {texts[first][:40]!r} in column "
                f"'{name}', which states no time zone, as others do; write 2019-03-01T12:00Z if "
                "it is UTC"
            )
        if not zoned.any() and any(":" in text for text in texts):
            LOGGER.info("%s: column '%s' states no time zone; it is UTC", self.path, name)

    def is_number(self, column: Column) -> bool:
        """Return whether any cell is a number, or whether there is too little to tell."""
        if isinstance(column.cells, np.ndarray):
            return column.cells.dtype.kind in "biuf"
        count = 0
        for text in (cell for cell in column.cells if cell.lower() not in MISSING):
            if self._float(text) is not None:
                return True
            count += 1
        return count < 2

    def is_moment(self, column: Column) -> bool:
        """Return whether the first cell is a date."""
        if isinstance(column.cells, np.ndarray):
            return column.cells.dtype.kind == "M"
        return is_moment(next((cell for cell in column.cells if cell), ""))

    def _numbers(self, column: Column) -> np.ma.MaskedArray:
        if isinstance(column.cells, np.ndarray):
            if column.cells.dtype.kind not in "biuf":
                raise InputError(f"{self.path}: column '{column.header}' holds no numbers")
            return np.ma.masked_invalid(column.cells.astype(np.float64), copy=False)
        found = parse_numbers(column.cells, sorted(MISSING), self.comma)
        return self._one_by_one(column) if found is None else found

    def _one_by_one(self, column: Column) -> np.ma.MaskedArray:
        """Return cells as numbers, in all ways that Python knows of writing one."""
        found = np.ma.masked_all(len(column.cells))
        for row, text in enumerate(column.cells):
            if text and text.lower() not in MISSING:
                number = self._float(text)
                if number is None:
                    raise InputError(
                        f"{self.path} is not a table of numbers: line {self.lines[row]} has "
                        f"{text[:40]!r} in column '{column.header}'"
                    )
                found[row] = number
        return found

    def _float(self, text: str) -> float | None:
        plain = text.replace(",", ".") if self.comma and "." not in text else text
        try:
            return None if "_" in plain else float(plain)  # tables know no 1_000
        except ValueError:
            return None


class Roles(NamedTuple):
    """What the columns of a table are for, by their headers.

    Attributes:
        coords: Coordinates, in the order of the grid's axes.
        time: Column of the times, or those of date and time of day; empty for none. It is the
            first axis.
        values: Channels.
        noise: Standard deviation of the errors, one column for all channels or one for each.
    """

    coords: tuple[str, ...]
    time: tuple[str, ...]
    values: tuple[str, ...]
    noise: tuple[str, ...] = ()


def choose_roles(table: Table, reading: Reading) -> Roles:
    """Return what each column is for: as the settings say, or by well-known names, and say it.

    Raises:
        InputError: There are no such columns, or no coordinates or channels are found.
    """
    time = tuple(table.find(name).header for name in reading.time)
    noise = tuple(table.find(name).header for name in reading.noise_names)
    given = tuple(table.find(name).header for name in reading.values or ())
    taken = {*time, *noise, *given}
    if reading.coords:
        coords = tuple(table.find(name).header for name in reading.coords)
    else:
        coords = _guess_coords(table, taken, bool(given))
        time = time or _guess_time(table, {*taken, *coords})
    roles = Roles(coords, time, given, noise)
    if not given:
        roles = _guess_values(table, roles)
        if reading.noise is None:
            roles = roles._replace(noise=_guess_noise(table, roles))
    _say(table, roles, reading)
    return roles


def _guess_coords(table: Table, taken: set[str], valued: bool) -> tuple[str, ...]:
    """Return the coordinates: latitude and longitude, or as much of z, y and x as can be."""
    free = {column.name.lower(): column.header for column in table.columns}
    free = {name: header for name, header in free.items() if header not in taken}
    lat, lon = (next((n for n in names if n in free), "") for names in (LATITUDES, LONGITUDES))
    choices = [(lat, lon), ("northing", "easting"), ("z", "y", "x"), ("y", "x"), ("x",)]
    for names in choices:
        if set(names) <= set(free) and (valued or len(free) > len(names)):
            return tuple(free[name] for name in names)
    raise InputError(
        f"{table.path} needs a header with y, x (or x, or z, y, x; or lat, lon) and one name per "
        f"channel, or the names of its coordinates in coords; it has {', '.join(table.names)}"
    )


def _guess_time(table: Table, taken: set[str]) -> tuple[str, ...]:
    """Return the column of the times, unless all are one; date and time of day make two."""
    free = [column for column in table.columns if column.header not in taken]
    named = {column.name.lower(): column for column in free if column.name.lower() in TIMES}
    day, clock = named.get("date"), named.get("time")
    if day and clock and table.is_moment(day) and not table.is_moment(clock):
        pair = (day.header, clock.header)
        if not table.is_number(clock):
            return pair
    for column in named.values():
        if table.is_moment(column) or table.is_number(column):
            cells = np.ma.compressed(column.cells) if _is_array(column) else column.cells
            return (column.header,) if len({str(cell) for cell in cells}) > 1 else ()
    for column in named.values():
        _check_no_time(table, column)
    return ()


def _check_no_time(table: Table, column: Column) -> None:
    """Refuse to leave out times that differ since they are written in another way."""
    cells = [str(cell) for cell in np.ma.compressed(column.cells) if str(cell)]
    if len({*cells} - MISSING) > 1:
        raise InputError(
            f"{table.path}: column '{column.header}' holds '{cells[0]}', which is no date like "
            "2019-03-01 or 2019-03-01T06:00+01:00; name the coordinates in coords (--coords) to "
            "leave it out"
        )


def _is_array(column: Column) -> bool:
    return isinstance(column.cells, np.ndarray)


def _guess_values(table: Table, roles: Roles) -> Roles:
    """Return the roles with all other columns of numbers as channels."""
    used = {*roles.coords, *roles.time, *roles.noise}
    free = [column for column in table.columns if column.header not in used]
    free = [column for column in free if column.name.lower() not in (*TIMES, *GROUPS)]
    channels = [column for column in free if table.is_number(column)] or free
    if not channels:
        raise InputError(
            f"{table.path} has no column left for the values; its columns are: "
            f"{', '.join(table.names)}"
        )
    names = [column.header for column in channels]
    if len(names) > 1:
        errors = {noise for name in names for noise in _noises_of(name, names)}
        names = [name for name in names if name not in errors] or names
    return roles._replace(values=tuple(names))


def _noises_of(name: str, names: Sequence[str]) -> list[str]:
    """Return the names that say the error of a column."""
    wanted = {f"{name}_{noise}".lower() for noise in NOISES}
    wanted |= {f"{noise}_{name}".lower() for noise in NOISES} | set(NOISES)
    return [other for other in names if other != name and other.lower() in wanted]


def _guess_noise(table: Table, roles: Roles) -> tuple[str, ...]:
    """Return the columns with the errors of the channels, if all have one."""
    used = {*roles.coords, *roles.time, *roles.values}
    free = [name for name in table.names if name not in used]
    found = [_noises_of(name, free)[:1] for name in roles.values]
    names = tuple(name for each in found for name in each)
    if len(names) != len(roles.values):
        return ()
    return names[:1] if len(set(names)) == 1 else names


def _say(table: Table, roles: Roles, reading: Reading) -> None:
    """Say what was guessed."""
    guessed = []
    if not reading.coords:
        guessed.append(f"coordinates {', '.join((*roles.time, *roles.coords))}")
    if not reading.values:
        guessed.append(f"values {', '.join(roles.values)}")
    if roles.noise and reading.noise is None:
        guessed.append(f"noise {', '.join(roles.noise)}")
    used = {*roles.coords, *roles.time, *roles.values, *roles.noise}
    left = [name for name in table.names if name not in used]
    rest = f"; not used: {', '.join(left)}" if left else ""
    if guessed:
        LOGGER.info("%s: %s%s", table.path, "; ".join(guessed), rest)
