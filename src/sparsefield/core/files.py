"""Files that are whole or absent, and JSON that every reader understands.

A file is made in a folder of its own beside its place, and moved there in one step: a kill at any
moment leaves the old file or the new one. What a killed writer left behind is removed by the next
one that writes the same file.
"""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.processes import Process

# Largest JSON file that is read: settings and reports are thousands of times smaller.
JSON_BYTES = 64 * 2**20


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one move.

    A file that is replaced keeps its mode; a new one gets what the umask leaves.

    Raises:
        InputError: The file cannot be written; what was there before is untouched.
    """
    if "\0" in str(path):
        raise InputError(f"cannot write {str(path)!r}: a path holds no null character")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with _folder_beside(path) as folder:
            mode = _mode(path, folder)
            temporary = folder / path.name
            write(temporary)
            with contextlib.suppress(OSError):  # some file systems know no permissions
                temporary.chmod(mode)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {path}: {reason}; nothing was changed") from error


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically.

    Raises:
        InputError: The file cannot be written.
    """

    def write(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # what it makes of every OSError
            raise OSError(str(error)) from error

    write_atomically(path, write)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8.

    Raises:
        InputError: The file cannot be written.
    """
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file atomically, see `dump_json`.

    Raises:
        InputError: The file cannot be written.
    """
    write_text(path, dump_json(value, indent) + "\n")


def dump_json(value: Any, indent: int | None = None) -> str:
    """Return a value as strict JSON: NaN and infinity are null, arrays are lists."""
    return json.dumps(_strict(value), indent=indent, allow_nan=False)


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: There is none.
        InputError: It is damaged, too large or cannot be read.
    """
    try:
        if path.stat().st_size > JSON_BYTES:
            raise InputError(f"{path} is damaged: it is larger than {JSON_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged: it is not UTF-8 text") from error
    return parse_json(text, str(path))


def parse_json(text: str, where: str) -> Any:
    """Read JSON; NaN and infinity, which older versions wrote, are null.

    Raises:
        InputError: The text is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=lambda name: None)
    except RecursionError as error:
        raise InputError(f"{where} is damaged: it is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"{where} is damaged: {error}") from error


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left in a folder; the caller is the only one that writes there.

    Nothing but unfinished files has such a name.
    """
    for path in folder.glob(".*.tmp"):
        if _writer(path) is not None:
            shutil.rmtree(path, ignore_errors=True)


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return _strict(value.tolist()) if hasattr(value, "tolist") else value


@contextlib.contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Make a folder whose name says whose it is, and remove it in the end."""
    prefix = f".{path.name[:40]}.{Process.current()}."
    folder = Path(tempfile.mkdtemp(".tmp", prefix, path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _mode(path: Path, folder: Path) -> int:
    """Return the permissions of the file that is replaced, or those that a new file gets."""
    if path.exists():
        if not path.is_file():
            raise OSError(f"it is a {'folder' if path.is_dir() else 'device'}, not a file")
        return path.stat().st_mode & 0o7777
    probe = folder / "mode"
    probe.touch(exist_ok=False)
    mode = probe.stat().st_mode & 0o7777
    probe.unlink()
    return mode


def _remove_abandoned(path: Path) -> None:
    """Remove unfinished copies of a file whose writers have ended."""
    start = f".{path.name[:40]}."
    for other in path.parent.iterdir():
        if other.name.startswith(start) and other.name.endswith(".tmp"):
            writer = _writer(other)
            if writer is not None and not writer.alive:
                shutil.rmtree(other, ignore_errors=True)


def _writer(path: Path) -> Process | None:
    """Return the process that made a temporary folder; None if it is no such folder."""
    parts = path.name.rsplit(".", 3)
    return Process.parse(parts[1]) if len(parts) == 4 and path.is_dir() else None
