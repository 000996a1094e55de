"""The public tables of scattered measurements, cut into train and test variable by variable."""

import csv
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsefield.core.errors import InputError

COORDINATES = ("x", "y", "z")


class Table(NamedTuple):
    """One variable of one table.

    Attributes:
        name: File and column.
        coords: Measured positions in the table's units (M, P).
        values: Measurements (M,).
        query: Positions of the hidden measurements (L, P).
        truth: Hidden measurements (L,).
    """

    name: str
    coords: np.ndarray
    values: np.ndarray
    query: np.ndarray
    truth: np.ndarray


def read_tables(folder: Path) -> Iterator[Table]:
    """Yield every variable of the tables with a column `split` in a folder, in file order.

    Raises:
        InputError: There is no such table.
    """
    found = False
    for path in sorted([*folder.glob("*.csv"), *folder.glob("*.csv.xz")]):
        for table in _read(path):
            found = True
            yield table
    if not found:
        raise InputError(f"{folder} holds no table with a column split (train, test)")


def _read(path: Path) -> Iterator[Table]:
    with _open(path) as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0])
    if "split" not in columns:
        return
    axes = [c for c in COORDINATES if c in columns]
    test = np.array([row["split"] == "test" for row in rows])
    coords = np.array([[float(row[axis]) for axis in axes] for row in rows])
    for column in (c for c in columns if c not in axes and c != "split"):
        values = np.array([float(row[column]) if row[column] else np.nan for row in rows])
        known = np.isfinite(values)
        train, hidden = known & ~test, known & test
        name = f"{path.name.split('.')[0]}:{column}"
        yield Table(name, coords[train], values[train], coords[hidden], values[hidden])


def _open(path: Path):  # noqa: ANN202 - two kinds of text file
    return lzma.open(path, "rt") if path.suffix == ".xz" else path.open()
