"""What every reader does: admit regular files only, and say in one line what failed."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsefield.core.errors import InputError
from sparsefield.core.memory import check_memory

_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
_LONGEST_REASON = 160


def regular_file(path: Path) -> int:
    """Return the size in bytes of a regular file, which can be read without waiting.

    Raises:
        InputError: There is no such file, or it is a folder, a pipe, a socket or a device.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise InputError(f"no file at {path} ({_reason(error)})") from error
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS.items() if test(found.st_mode)), "no file")
        raise InputError(f"{path} is {kind}; a regular file is needed")
    return found.st_size


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file that fits into memory.

    Raises:
        InputError: It is no regular file, too large, or cannot be read.
    """
    check_memory(regular_file(path), str(path))
    with readable(path, "file"):
        return path.read_bytes()


@contextmanager
def readable(path: Path | str, kind: str, advice: str = "fetch it again") -> Iterator[None]:
    """Turn whatever a library raises on a damaged or hostile file into one line that names it.

    Put calls of the library inside and nothing else: an error of ours would be hidden.

    Args:
        path: The file, or what to call it.
        kind: What it should have been.
        advice: What to do.

    Raises:
        InputError: The library raised.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # parsers of damaged files raise nearly anything
        raise InputError(
            f"{path} is not a readable {kind} ({_reason(error)}); {advice}"
        ) from error


def files_below(root: Path) -> list[Path]:
    """Return the files below a folder in sorted order, without hidden ones.

    Links to files and folders are followed, each folder once, so that a loop of links ends.

    Raises:
        InputError: A folder cannot be listed.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    with readable(root, "folder"):
        for folder, folders, files in os.walk(root, followlinks=True, onerror=_raise):
            place = os.stat(folder)
            if (place.st_dev, place.st_ino) in seen:
                folders.clear()
                continue
            seen.add((place.st_dev, place.st_ino))
            folders[:] = [name for name in sorted(folders) if not name.startswith(".")]
            found += [Path(folder, name) for name in files if not name.startswith(".")]
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _reason(error: Exception) -> str:
    """Return one short line that says what a library complained about."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = text.strip().splitlines() or [type(error).__name__]
    line = "".join(c if c.isprintable() else "?" for c in lines[0])
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."
