"""Observations from a file of any registered kind."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

from sparsefield.core.errors import InputError
from sparsefield.data.formats import need_handler
from sparsefield.data.formats.guard import regular_file
from sparsefield.data.frame import Frame
from sparsefield.data.observation import Observation

LOGGER = logging.getLogger(__name__)


class ReadOptions(TypedDict, total=False):
    """What some formats can be told.

    Attributes:
        density: Fraction, in (0, 1], of an intact image or grid that counts as observed, chosen at
            random. Images without transparent pixels need it.
        seed: Seed of that choice, at least 0.
        time: Name of the column or dimension with times, or of those with date and time of day,
            which becomes the first axis; or the one moment that is wanted, as 2019-03-18T12:00.
        time_scale: Lengths (kilometres on the Earth) that count as much as one unit of time
            (hours, in a table), above 0. By default it is such that times are spread as widely as
            places.
        frame: The domain; by default one around the measurements.
    """

    density: float | None
    seed: int
    time: str | Sequence[str] | None
    time_scale: float | None
    frame: Frame | None


class Reading(NamedTuple):
    """How a file is to be understood; see `read`.

    Attributes:
        coords: Names of the coordinates; None for the format's own.
        values: Names of the channels; None for all that is left.
        noise: Standard deviation of the measurement error, or the names of what holds it.
        density: Fraction of an intact image or grid that counts as observed.
        seed: Seed of that choice.
        time: Names of the axis of times, or one moment; empty for the format's own.
        time_scale: Lengths that count as much as one unit of time.
        frame: The domain; None for one around the measurements.
    """

    coords: tuple[str, ...] | None = None
    values: tuple[str, ...] | None = None
    noise: float | tuple[str, ...] | None = None
    density: float | None = None
    seed: int = 0
    time: tuple[str, ...] = ()
    time_scale: float | None = None
    frame: Frame | None = None

    @property
    def noise_names(self) -> tuple[str, ...]:
        """Names of what holds the noise."""
        return self.noise if isinstance(self.noise, tuple) else ()

    def check(self) -> None:
        """Refuse a time scale that is no positive number."""
        scale = self.time_scale
        if scale is not None and not isinstance(scale, int | float):
            raise InputError(
                f"a time scale is a number, not {scale!r}; evaluation.time_scale.fit_time_scale "
                "finds one"
            )
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise InputError(f"a time scale is a finite number above 0, not {scale}")

    def refuse(self, path: Path, **unknown: str) -> None:
        """Refuse settings that a format has no use for, each with the reason."""
        for name, reason in unknown.items():
            if getattr(self, name) not in (None, ()):
                raise InputError(f"{path}: {reason}")


def read(
    path: str | Path,
    *,
    coords: str | Sequence[str] | None = None,
    value: str | Sequence[str] | None = None,
    noise: float | str | Sequence[str] | None = None,
    **options: Unpack[ReadOptions],
) -> Observation:
    """Return the observations in a file: a table, a grid, an archive or an image.

    The suffix, in small or capital letters, chooses the reader. The log says what is guessed:
    columns with well-known names, and the domain.

    Args:
        path: The file.
        coords: Names of the columns, arrays or dimensions with the coordinates, in the order of
            the grid's axes. By default latitude and longitude, or x in one dimension, y and x in
            two, z, y and x in three, as far as a table has them; the array coords (M, P) of an
            archive; the dimensions of a variable in NetCDF.
        value: Names of the columns, arrays or variables with the channels. By default all other
            columns of numbers, the array values (M, C), and the only variable.
        noise: Standard deviation of the measurement error, at least 0, in the unit of the values,
            or the names of what holds one for each row: one for all channels, or one for each. By
            default there is none. Where `value` is not named either, columns with such names as
            `sd` or, after the channel, `t2m_std` hold it.
        options: As in `ReadOptions`.

    Returns:
        The observations of one field, with a frame where the coordinates have units of their own.
        Pixels are values in [0, 1] at the centres of the cells of `grid`. Rows of a table whose
        values are all empty, and cells that are masked or NaN, were not observed.

    Raises:
        InputError: The file is missing, damaged or of an unknown kind, or holds no such names; or
            an option is unknown or out of range.
    """
    unknown = set(options) - set(ReadOptions.__annotations__)
    if unknown:
        raise InputError(
            f"read takes no {', '.join(sorted(unknown))}; its options are coords, value, noise, "
            f"{', '.join(ReadOptions.__annotations__)}"
        )
    path = Path(path).expanduser()
    handler = need_handler(path, "observation")
    if not handler.folders or not path.is_dir():
        regular_file(path)
    error = noise if noise is None or isinstance(noise, int | float) else _names(noise)
    reading = Reading(
        _names(coords),
        _names(value),
        error,
        options.get("density"),
        options.get("seed", 0),
        _names(options.get("time")) or (),
        options.get("time_scale"),
        options.get("frame"),
    )
    with _naming(path):
        reading.check()
        found: Observation = handler.load()(path, reading)
        return found


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file in front of errors that do not name it."""
    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error


def _names(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    return (given,) if isinstance(given, str) else tuple(given)
