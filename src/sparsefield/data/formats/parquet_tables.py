"""Tables in parquet files."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.core.files import write_atomically
from sparsefield.core.memory import check_memory
from sparsefield.data.formats.columns import Column, Table
from sparsefield.data.formats.flat import flat_columns
from sparsefield.data.formats.guard import readable, regular_file
from sparsefield.data.formats.reading import Reading
from sparsefield.data.formats.tables import observe
from sparsefield.data.observation import Observation

if TYPE_CHECKING:
    from pyarrow import ChunkedArray


def read_observation(path: Path, reading: Reading) -> Observation:
    """Return the measurements in a parquet file, one a row.

    Raises:
        InputError: The file is damaged, or lacks a column.
    """
    return observe(read_table(path), reading)


def read_table(path: Path) -> Table:
    """Return a table in a parquet file.

    Raises:
        InputError: The file is damaged, or has columns of one name.
    """
    from pyarrow.parquet import ParquetFile, read_metadata

    stored = regular_file(path)
    with readable(path, "parquet file"):
        rows, width = (lambda m: (m.num_rows, m.num_columns))(read_metadata(path))
        check_memory(16 * max(rows, 0) * width, str(path), max(stored, 2**20))
        found = ParquetFile(path).read(use_threads=False)
        columns = [Column(name, _cells(found[name])) for name in found.column_names]
    if not len(found):
        raise InputError(f"{path} is empty; rows of numbers are needed")
    return Table(path, columns, range(1, len(found) + 1))


def write_field(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a field as a table: a row for each point, with its coordinates.

    Raises:
        InputError: The file cannot be written.
    """
    import pyarrow as pa
    from pyarrow.parquet import write_table

    columns = {name: pa.array(column.tolist()) for name, column in flat_columns(arrays).items()}
    write_atomically(path, lambda temporary: write_table(pa.table(columns), temporary))


def _cells(column: "ChunkedArray") -> Any:
    """Return numbers and moments in UTC as masked arrays, and everything else as text."""
    import pyarrow as pa

    kind = column.type
    missing = column.is_null().to_numpy()
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        moments = column.cast(pa.timestamp("us")).fill_null(0).to_numpy()
        return np.ma.masked_array(moments.astype("datetime64[us]"), missing)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = column.cast(pa.float64()).fill_null(np.nan).to_numpy()
        return np.ma.masked_array(numbers, missing)
    if pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64()).fill_null(np.nan).to_numpy()
        return np.ma.masked_array(numbers, missing)
    return ["" if cell is None else str(cell) for cell in column.to_pylist()]
