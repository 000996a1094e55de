"""Columns of text that stay in Arrow's memory, for tables of millions of rows."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    from pyarrow import ChunkedArray

_PART = 65_536


class Texts(Sequence[str]):
    """The cells of a column, without blanks around them.

    Args:
        cells: Text of each row.
    """

    def __init__(self, cells: "ChunkedArray") -> None:
        self._cells = cells

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._cells)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return the text of one row, or of some."""
        if isinstance(index, slice):
            return self._cells.to_pylist()[index]
        return self._cells[index].as_py()

    def __iter__(self) -> Iterator[str]:
        """Yield the text of each row; many at a time are fetched."""
        for start in range(0, len(self), _PART):
            yield from self._cells.slice(start, _PART).to_pylist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the cells as an array of text."""
        return np.array(self._cells.to_pylist(), dtype)


def split_cells(text: str, separator: str, width: int) -> list[Texts] | None:
    """Return the columns below the first line, if each line holds one row of so many cells.

    Args:
        text: A table whose header is its first line.
        separator: What stands between cells.
        width: Number of columns.

    Returns:
        The columns; None of a text that takes a closer look: it has other lines, rows of another
        width or without a cell.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    data = text.encode()
    kinds = {f"f{number}": pa.string() for number in range(width)}
    try:
        table = csv.read_csv(
            pa.BufferReader(data),
            csv.ReadOptions(use_threads=False, skip_rows=1, autogenerate_column_names=True),
            csv.ParseOptions(delimiter=separator),
            csv.ConvertOptions(column_types=kinds),
        )
    except pa.ArrowInvalid:
        return None
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    if table.num_columns != width or table.num_rows + 1 != lines:
        return None
    columns = [pc.utf8_trim_whitespace(column) for column in table.columns]
    filled = [pc.not_equal(column, "") for column in columns]
    some = filled[0]
    for each in filled[1:]:
        some = pc.or_(some, each)
    return [Texts(column) for column in columns] if pc.all(some).as_py() else None


def parse_numbers(
    cells: Sequence[str], missing: Sequence[str], comma: bool
) -> np.ma.MaskedArray | None:
    """Return cells as numbers (M,), masked where there is none; None if some are no numbers.

    Args:
        cells: Text of each row.
        missing: Cells that stand for nothing, in small letters.
        comma: Whether a decimal point may be a comma.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = cells._cells if isinstance(cells, Texts) else pa.array(cells, pa.string())
    known = pc.invert(pc.is_in(pc.utf8_lower(texts), value_set=pa.array(missing, pa.string())))
    if comma:
        points = pc.replace_substring(texts, ",", ".")
        texts = pc.if_else(pc.match_substring(texts, "."), texts, points)
    try:
        numbers = pc.cast(pc.if_else(known, texts, "0"), pa.float64())
    except pa.ArrowInvalid:
        return None
    return np.ma.masked_array(
        numbers.to_numpy(zero_copy_only=False), ~known.to_numpy(zero_copy_only=False)
    )
