"""The contract of formats of files, for those in the package and for others."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import open_dataset
from sparsefield.data.formats import FORMATS, Handler, Task, write_field
from sparsefield.data.formats.reading import read


def check_format(
    name: str,
    example: Path,
    task: Task = "observation",
    *,
    options: dict[str, Any] | None = None,
    mutations: int = 30,
    seed: int = 0,
) -> None:
    """Check that a registered format keeps the contract of its task.

    A reader takes suffixes in capital letters and changes no file. It refuses at once a path that
    is missing or no regular file. It says in one line what is wrong with a damaged file, and
    raises nothing but `InputError`. A writer makes a whole file or none.

    Args:
        name: Key of `FORMATS`.
        example: An intact file of the format, not used for "field".
        task: What to check: "observation" and "examples" are readers, of measurements and of data
            sets, and "field" is a writer.
        options: Keyword arguments of `sparsefield.read` or `open_dataset`, as the example needs
            them.
        mutations: How many damaged copies of the example to try, at least 0.
        seed: Seed of the damage.

    Raises:
        AssertionError: The contract is broken; the message says how.
    """
    handler = getattr(FORMATS[name], task)
    assert handler is not None, f"{name} has nothing for the task '{task}'"
    assert all(s.startswith(".") and s == s.lower() for s in handler.suffixes), handler.suffixes
    with TemporaryDirectory() as folder:
        if task == "field":
            _check_writer(handler, Path(folder))
        else:
            reader = read if task == "observation" else open_dataset
            trial = _Trial(reader, dict(options or {}), Path(folder))
            trial.check(handler, example)
            trial.survives(handler, example, mutations, seed)


class _Trial:
    """One reader, its options, and a folder to put files into."""

    def __init__(self, reader: Callable[..., Any], options: dict[str, Any], folder: Path) -> None:
        self.read = lambda path: reader(path, **options)
        self.folder = folder

    def check(self, handler: Handler, example: Path) -> None:
        suffix, before = _suffix(handler, example), _contents(example)
        loud = self.folder / f"intact{suffix.upper()}"
        _copy(example, loud)
        assert _numbers(self.read(example)) == _numbers(self.read(loud)), "capitals change it"
        assert _contents(example) == before, "reading changed the file"
        self.refuses(self.folder / f"absent{suffix}")
        folder = self.folder / f"folder{suffix}"
        folder.mkdir()
        self.refuses(folder)
        if hasattr(os, "mkfifo"):
            pipe = self.folder / f"pipe{suffix}"
            os.mkfifo(pipe)
            self.refuses(pipe)

    def survives(self, handler: Handler, example: Path, mutations: int, seed: int) -> None:
        """Read copies of which one file is damaged, and an empty one."""
        parts = sorted(_contents(example))
        damaged = {part: _damaged(_contents(example)[part], mutations, seed) for part in parts}
        for number in range(mutations + 1):
            part = parts[number % len(parts)]
            path = self.folder / f"damaged-{number}{_suffix(handler, example)}"
            _copy(example, path)
            (path / part).write_bytes(b"" if number == mutations else next(damaged[part]))
            self.refuses_or_reads(path, number)
            _remove(path)

    def refuses(self, path: Path) -> None:
        try:
            self.read(path)
        except InputError as error:
            _check_line(str(error), path)
        else:
            raise AssertionError(f"{path.name} was read")

    def refuses_or_reads(self, path: Path, number: int) -> None:
        try:
            self.read(path)
        except InputError as error:
            _check_line(str(error), path)
        except Exception as error:
            raise AssertionError(
                f"damage {number} raised {type(error).__name__}: {error}"
            ) from error


def _contents(path: Path) -> dict[Path, bytes]:
    """Return the files of a format, by their paths below it."""
    if path.is_dir():
        files = [each for each in path.rglob("*") if each.is_file()]
        return {each.relative_to(path): each.read_bytes() for each in files}
    return {Path(): path.read_bytes()}


def _copy(example: Path, path: Path) -> None:
    if example.is_dir():
        shutil.copytree(example, path)
    else:
        shutil.copyfile(example, path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _check_line(message: str, path: Path) -> None:
    assert "\n" not in message, f"more than one line: {message}"
    assert path.name in message, f"the file is not named: {message}"


def _suffix(handler: Handler, example: Path) -> str:
    name = example.name.lower()
    return max((s for s in handler.suffixes if name.endswith(s)), key=len)


def _numbers(found: Any) -> bytes:
    return np.asarray(found.values).tobytes()


def _damaged(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield damaged copies: cut short, with bits flipped, parts swapped, blanked or repeated."""
    rng = random.Random(seed)
    kinds = (_cut, _flip, _swap, _blank, _repeat)
    for number in range(count):
        yield kinds[number % len(kinds)](bytearray(data), rng)


def _cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def _flip(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 4, 32))):
        # Half of the damage goes to the start, where headers are.
        data[rng.randrange(min(len(data), rng.choice((64, len(data)))))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _swap(data: bytearray, rng: random.Random) -> bytes:
    one, other = sorted(rng.randrange(len(data)) for _ in range(2))
    return bytes(data[other:] + data[one:other] + data[:one])


def _blank(data: bytearray, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    size = min(rng.choice((1, 8, 64)), len(data) - start)
    data[start : start + size] = bytes([rng.choice((0, 255))]) * size
    return bytes(data)


def _repeat(data: bytearray, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return bytes(data[:start] + data[start : start + 64] * 2 + data[start:])


def _check_writer(handler: Handler, folder: Path) -> None:
    """Check a writer on a field of 2 x 3 cells."""
    arrays = {"mean": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3, 1)}
    for suffix in handler.suffixes:
        path = folder / f"field{suffix}"
        write_field(path, arrays)
        assert path.stat().st_size > 0, f"{path.name} is empty"
        assert [each.name for each in folder.iterdir()] == [path.name], "something else is left"
        _remove(path)
        blocked = folder / "file"
        blocked.write_bytes(b"")
        try:
            write_field(blocked / path.name, arrays)
        except InputError as error:
            _check_line(str(error), path)
        else:
            raise AssertionError("a folder that is a file was written to")
        blocked.unlink()
