"""Files that may be compressed as a whole, read and written by their last suffix."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from sparsefield.core.memory import ALWAYS_ALLOWED, check_memory
from sparsefield.data.formats.guard import read_bytes, readable

_PART = 2**20

_OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file)),
    ".bz2": lambda file: cast(IO[bytes], bz2.BZ2File(file)),
    ".xz": lambda file: cast(IO[bytes], lzma.LZMAFile(file)),  # noqa: SIM115
}
_WRITERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def read_expanded(path: Path, expansion: int = 1) -> bytes:
    """Return the content of a file, without its compression.

    Args:
        path: The file.
        expansion: Bytes of memory that a byte of the content will take.

    Raises:
        InputError: It is no regular file, damaged, or would take too much memory.
    """
    data = read_bytes(path)
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        check_memory(expansion * len(data), str(path))
        return data
    parts, size = [], 0
    with readable(path, "compressed file"), opener(io.BytesIO(data)) as file:
        while part := file.read(_PART):
            size += len(part)
            check_memory(expansion * size, str(path), _stored(data, expansion))
            parts.append(part)
    return b"".join(parts)


def compress(path: Path, data: bytes) -> bytes:
    """Return content as it is to be written to a path with this suffix."""
    writer = _WRITERS.get(path.suffix.lower())
    return data if writer is None else writer(data)


def _stored(data: bytes, expansion: int) -> int:
    """Return the size from which a content may expand; text in memory takes more than in files."""
    return max(expansion * len(data), ALWAYS_ALLOWED // 1024)
