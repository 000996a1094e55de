"""Damage of HDF5 files that the library does not survive."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from struct import unpack_from

from sparsefield.core.errors import InputError

# Signature, version and reserved bytes of a global heap; its size follows, then its objects.
HEAP = b"GCOL\x01\x00\x00\x00"
HEADER = 16  # bytes before the objects, and before the content of each


def check_heaps(path: Path) -> None:
    """Refuse a file on which the HDF5 library would turn in a circle, deaf to Ctrl-C.

    It walks through a global heap by the sizes of its objects, and believes a size of zero.

    References:
        HDF5 File Format Specification, version 3.0, III.E.

    Raises:
        InputError: The objects of a heap do not fill it.
    """
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not all(_is_whole(content, at) for at in _heaps(content)):
            raise InputError(f"{path} is a damaged NetCDF file; fetch it again")


def _heaps(content: mmap.mmap) -> Iterator[int]:
    at = content.find(HEAP)
    while at >= 0:
        yield at
        at = content.find(HEAP, at + 1)


def _is_whole(content: mmap.mmap, start: int) -> bool:
    """Tell whether the objects of a heap end where the heap does."""
    if start + HEADER > len(content):
        return False
    end = start + unpack_from("<Q", content, start + 8)[0]
    at = start + HEADER
    while at + HEADER <= min(end, len(content)):
        number, size = unpack_from("<HxxxxxxQ", content, at)
        step = HEADER + (size + 7) // 8 * 8 if number else size
        if step < HEADER or at + step > end:
            return False
        at += step
    return True
