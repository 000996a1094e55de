"""Observations from a file of any registered kind."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sparsefield.core.errors import InputError
from sparsefield.data.formats import need_handler
from sparsefield.data.formats.guard import regular_file
from sparsefield.data.observation import Observation

LOGGER = logging.getLogger(__name__)


class Reading(NamedTuple):
    """How a file is to be understood; see `read`.

    Attributes:
        coords: Names of the coordinates; None for the format's own.
        values: Names of the channels; None for all that is left.
        noise: Standard deviation of the measurement error, or the name of what holds it.
        density: Fraction of an intact image that counts as observed.
        seed: Seed of that choice.
    """

    coords: tuple[str, ...] | None = None
    values: tuple[str, ...] | None = None
    noise: float | str | None = None
    density: float | None = None
    seed: int = 0

    def refuse(self, path: Path, **unknown: str) -> None:
        """Refuse settings that a format has no use for, each with the reason."""
        for name, reason in unknown.items():
            if getattr(self, name) is not None:
                raise InputError(f"{path}: {reason}")


def read(
    path: str | Path,
    *,
    coords: str | Sequence[str] | None = None,
    value: str | Sequence[str] | None = None,
    noise: float | str | None = None,
    density: float | None = None,
    seed: int = 0,
) -> Observation:
    """Return the observations in a file: an image, an archive or a table.

    The suffix, in small or capital letters, chooses the reader.

    Args:
        path: The file.
        coords: Names of the columns or arrays with coordinates in [-1, 1], in the order of the
            grid's axes. By default x in one dimension, y and x in two, z, y and x in three, as far
            as a table has them, and the array coords (M, P) of an archive.
        value: Names of the columns or arrays with the channels. By default all other columns, and
            the array values (M, C).
        noise: Standard deviation of the measurement error, in the unit of the values, or the name
            of the column or array that holds one for each row. By default exact, or the array
            noise of an archive that has one.
        density: Fraction, in (0, 1], of the pixels of an image that count as observed, chosen at
            random. Only for images without transparent pixels, which need it.
        seed: Seed of that choice, at least 0.

    Returns:
        The observations of one field. Pixels are values in [0, 1] at the centres of the cells of
        `grid`. Rows of a table whose values are all empty were not observed.

    Raises:
        InputError: The file is missing, damaged or of an unknown kind, or holds no such names.
    """
    path = Path(path).expanduser()
    handler = need_handler(path, "observation")
    regular_file(path)
    reading = Reading(_names(coords), _names(value), noise, density, seed)
    with _naming(path):
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
