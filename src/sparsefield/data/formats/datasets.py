"""The kinds of data sets on disk, and the reader of each."""

from collections.abc import Callable
from pathlib import Path

from sparsefield.core.errors import InputError
from sparsefield.data.formats import describe, find_handler
from sparsefield.data.formats.cifar import cifar_files, read_cifar
from sparsefield.data.formats.examples import Examples, Request
from sparsefield.data.formats.folders import image_files, read_images
from sparsefield.data.formats.guard import regular_file
from sparsefield.data.formats.parquet import parquet_files, read_parquet

SUPPORTED = "; ".join(describe("examples"))

Reader = Callable[[Path, Request], Examples]

# What a folder holds -> reader, the first that fits.
FOLDER_READERS: tuple[tuple[Callable[[Path], list[Path]], Reader], ...] = (
    (cifar_files, read_cifar),
    (parquet_files, read_parquet),
    (image_files, read_images),
)


def read_examples(path: Path, request: Request) -> Examples:
    """Return the examples under a path, by the reader that knows its kind.

    Args:
        path: File or folder of a supported kind.
        request: What to read of it.

    Raises:
        InputError: The path is missing, of no supported kind, damaged, larger than memory allows,
            or lacks the split.
    """
    try:
        folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"no data at {path} ({error}); supported are {SUPPORTED}") from error
    if not exists:
        raise InputError(f"no data at {path}; supported are {SUPPORTED}")
    reader = _folder_reader(path) if folder else _file_reader(path)
    if reader is None:
        raise InputError(f"cannot read {path} as data; supported are {SUPPORTED}")
    return reader(path, request)


def _folder_reader(path: Path) -> Reader | None:
    return next((reader for holds, reader in FOLDER_READERS if holds(path)), None)


def _file_reader(path: Path) -> Reader | None:
    regular_file(path)
    handler = find_handler(path, "examples")
    return None if handler is None else handler.load()
