"""Parquet files of encoded images, in the layout of Hugging Face: image or img with bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefield.core.errors import InputError
from sparsefield.core.memory import check_memory
from sparsefield.data.formats.examples import Encoded, Examples, Request, decode_images
from sparsefield.data.formats.guard import files_below, readable, regular_file
from sparsefield.data.formats.splits import select_files, unsplit

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData, ParquetSchema

COLUMNS = ("image.bytes", "img.bytes")
# Encoded images that may be in memory at a time.
_BATCH_BYTES = 2**29
_BATCH_ROWS = 256


def read_parquet(path: Path, request: Request) -> Examples:
    """Return the images of a parquet file, or of the files of one split below a folder.

    Raises:
        InputError: A file is damaged or holds no images, or the split is absent.
    """
    if path.is_dir():
        files, remarks = select_files(path, parquet_files(path), request.split, named=True)
    else:
        files, remarks = [path], unsplit(path.name, request.split)
    rows = (row for file in files for row in _rows(file))
    return Examples(decode_images(rows, _count(files), request, path), remarks, images=True)


def parquet_files(folder: Path) -> list[Path]:
    """Return the parquet files below a folder."""
    return [file for file in files_below(folder) if file.suffix.lower() == ".parquet"]


def _count(files: list[Path]) -> int:
    from pyarrow.parquet import read_metadata

    total = 0
    for file in files:
        regular_file(file)
        with readable(file, "parquet file"):
            rows = read_metadata(file).num_rows
        if rows < 0:
            raise InputError(f"{file} is damaged: it claims {rows} rows; fetch it again")
        total += rows
    return total


def _rows(path: Path) -> Iterator[Encoded]:
    """Yield the encoded images of a file, and what to call each."""
    from pyarrow.parquet import ParquetFile, read_metadata

    stored, number = regular_file(path), 0
    with readable(path, "parquet file"):
        metadata = read_metadata(path)
        column = _image_column(metadata.schema, path)
        rows = _check_sizes(metadata, path, stored)
        # A dictionary is kept as one, since thousands of rows may refer to the same large entry;
        # and no row can be told as a difference from the one before.
        with ParquetFile(path, metadata=metadata, read_dictionary=[column]) as file:
            for batch in file.iter_batches(rows, columns=[column]):
                for blob in batch.column(0).field("bytes"):
                    yield blob.as_py() or b"", f"{path} row {number}"
                    number += 1


def _image_column(schema: "ParquetSchema", path: Path) -> str:
    """Return the column of encoded images.

    Raises:
        InputError: There is none, or it holds text: a path is never opened.
    """
    leaves = [schema.column(i) for i in range(len(schema))]
    found = next((leaf for leaf in leaves if leaf.path in COLUMNS), None)
    if found is None:
        raise InputError(
            f"{path} has no struct column 'image' or 'img' with 'bytes'; "
            f"it has: {', '.join(leaf.path for leaf in leaves)}"
        )
    if found.physical_type != "BYTE_ARRAY" or found.logical_type.type not in ("NONE", "UNKNOWN"):
        raise InputError(
            f"{path}: column '{found.path}' holds {found.logical_type.type.lower()} values; "
            "encoded images as bytes are needed, since paths in data are not followed"
        )
    return found.path


def _check_sizes(metadata: "FileMetaData", path: Path, stored: int) -> int:
    """Check what a file claims to expand to; return the rows of a batch of bounded size.

    Sizes of single columns are not asked for: pyarrow ends the process where those are damaged.

    Raises:
        InputError: A part of it would not fit into memory.
    """
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    largest = max((group.total_byte_size for group in groups), default=0)
    check_memory(largest, str(path), stored)
    # An image can be as long as all of them.
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(largest, stored, 1)))
