"""Dates and times, between text, moments in UTC and numbers with a unit as in CF."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from sparsefield.core.errors import InputError

# Seconds in each unit of time, by what precedes its "s".
_SECONDS = {
    "nanosecond": 1e-9, "microsecond": 1e-6, "millisecond": 1e-3, "msec": 1e-3,
    "second": 1.0, "sec": 1.0, "s": 1.0, "minute": 60.0, "min": 60.0,
    "hour": 3600.0, "hr": 3600.0, "h": 3600.0, "day": 86400.0, "d": 86400.0, "week": 604800.0,
}  # fmt: skip


def parse_moment(text: str) -> np.datetime64:
    """Return a moment in UTC from ISO 8601 text; without a zone it is UTC already.

    Raises:
        ValueError: The text is no such date or time.
    """
    return _moment(_parse(text))


def _parse(text: str) -> datetime:
    plain = text.strip()
    found = datetime.fromisoformat(plain.removesuffix(" UTC"))
    utc = found.tzinfo is None and plain.endswith(" UTC")
    return found.replace(tzinfo=UTC) if utc else found


def _moment(found: datetime) -> np.datetime64:
    if found.tzinfo is not None:
        found = found.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(found, "us")


def is_moment(text: str) -> bool:
    """Return whether a text is a date or a time of day and date."""
    try:
        parse_moment(text)
    except ValueError:
        return False
    return not text.strip().isdigit()


def count_hours(moments: np.ndarray) -> tuple[np.ndarray, str]:
    """Return moments as hours since the first midnight, and that unit."""
    start = moments.min().astype("datetime64[D]")
    hours = (moments - start.astype(moments.dtype)) / np.timedelta64(1, "h")
    return hours.astype(np.float64), f"hours since {start} 00:00:00"


def count_moment(moment: np.datetime64, unit: str) -> float:
    """Return a moment as a number in a unit like "hours since 2019-03-01".

    Raises:
        InputError: The unit is no such one.
    """
    seconds, origin = _unit(unit)
    return float((moment - origin) / np.timedelta64(1, "us")) / (1e6 * seconds)


def name_moments(numbers: np.ndarray, unit: str) -> list[str] | None:
    """Return numbers in a unit like "hours since 2019-03-01" as text; None if it is another."""
    try:
        seconds, origin = _unit(unit)
    except InputError:
        return None
    moved = origin + np.rint(np.asarray(numbers) * seconds * 1e6).astype("timedelta64[us]")
    if (moved == moved.astype("datetime64[s]")).all():
        moved = moved.astype("datetime64[s]")
    return [f"{moment}Z" for moment in moved]


def _unit(unit: str) -> tuple[float, np.datetime64]:
    """Return the seconds of a unit and the moment that it counts from."""
    name, _, origin = unit.partition(" since ")
    plain = name.strip().lower()
    seconds = _SECONDS.get(plain, _SECONDS.get(plain.removesuffix("s")))
    try:
        if seconds is None:
            raise ValueError
        return seconds, parse_moment(_padded(origin))
    except ValueError as error:
        raise InputError(
            f"'{unit}' is no unit of time that is known here; one is 'hours since 2019-03-01'"
        ) from error


def _padded(origin: str) -> str:
    """Return the start of a CF time in ISO 8601: 1900-1-1 0:0:0.0 is 1900-01-01T00:00:00."""
    day, _, rest = origin.strip().replace("T", " ").partition(" ")
    clock, _, zone = rest.strip().partition(" ")
    year, month, number = (int(part) for part in day.split("-"))
    parts = [float(part) for part in (clock.rstrip("Z") or "0").split(":")] + [0.0, 0.0]
    seconds = f"{parts[2]:09.6f}"
    zone = zone if zone[:1] in "+-" and zone else ""
    date, hour, minute = f"{year:04d}-{month:02d}-{number:02d}", int(parts[0]), int(parts[1])
    return f"{date}T{hour:02d}:{minute:02d}:{seconds}{zone}"


def parse_moments(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return moments (M,) in UTC of texts in ISO 8601, and which of them state a zone (M,).

    Raises:
        ValueError: One is no such text; its argument is the row.
    """
    found, zoned = np.empty(len(texts), "datetime64[us]"), np.empty(len(texts), bool)
    for row, text in enumerate(texts):
        try:
            parsed = _parse(text)
        except ValueError as error:
            raise ValueError(row) from error
        found[row], zoned[row] = _moment(parsed), parsed.tzinfo is not None
    return found, zoned
