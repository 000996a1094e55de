"""CIFAR-10 as its authors publish it: pickled arrays, read without running any pickle."""

import gzip
import io
import pickletools
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.formats.examples import Examples, Request
from sparsefield.data.formats.guard import readable, regular_file
from sparsefield.data.formats.splits import ALL

SPLITS = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
SPLITS[ALL] = SPLITS["train"] + SPLITS["test"]
PIXELS = 3 * 32 * 32

# The published batches have 31 MB and the archive 186 MB.
LARGEST_BATCH = 2**26
LARGEST_ARCHIVE = 2**28


def read_cifar(path: Path, request: Request) -> Examples:
    """Return CIFAR-10 images from the archive or the folder that its authors publish.

    Raises:
        InputError: There is no such split, or a batch is missing or damaged.
    """
    if request.split not in SPLITS:
        raise InputError(f"{path} has no split '{request.split}'; it has: train, test")
    names = SPLITS[request.split]
    if path.is_dir():
        batches = {file.name: _read_batch(file) for file in cifar_files(path)}
    else:
        batches = _untar(path, names)
    missing = [name for name in names if name not in batches]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)} of CIFAR-10; fetch it again")
    planes = [read_planes(batches[name], f"{path} {name}") for name in names]
    images = np.concatenate(planes)[: request.limit].reshape(-1, 3, 32, 32)
    return Examples(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), images=True)


def cifar_files(path: Path) -> list[Path]:
    """Return the batches that lie in a folder, or in the one that the archive unpacks to."""
    folders = (path, path / "cifar-10-batches-py")
    batches = (folder / name for folder in folders for name in SPLITS[ALL])
    return [file for file in batches if file.exists() and not file.is_dir()]


def _read_batch(path: Path) -> bytes:
    if regular_file(path) > LARGEST_BATCH:
        raise InputError(f"{path} is larger than any CIFAR-10 batch; fetch it again")
    with readable(path, "file"):
        return path.read_bytes()


def _untar(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Return the wanted members of an archive by base name, without writing any file."""
    regular_file(path)
    found: dict[str, bytes] = {}
    with (
        readable(path, "archive"),
        _open_packed(path) as file,
        tarfile.open(fileobj=_Bounded(file, path), mode="r|") as archive,
    ):
        for item in archive:
            name = Path(item.name).name
            stream = archive.extractfile(item) if name in names and item.isfile() else None
            if stream is not None:
                found[name] = stream.read(LARGEST_BATCH)
    return found


def _open_packed(path: Path) -> gzip.GzipFile | BufferedReader:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


class _Bounded(io.RawIOBase):
    """A stream that ends in an error where no published archive is as long.

    Args:
        file: The stream.
        path: What an error message calls it.
    """

    def __init__(self, file: gzip.GzipFile | BufferedReader, path: Path) -> None:
        self._file, self._path, self._left = file, path, LARGEST_ARCHIVE

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise InputError(
                f"{self._path} unpacks to more than {LARGEST_ARCHIVE >> 20} MiB, which CIFAR-10 "
                "does not; fetch it again"
            )
        return data


def read_planes(data: bytes, where: str) -> np.ndarray:
    """Return the `data` entry of one pickled batch, uint8, shape (N, 3072).

    Raises:
        InputError: The pickle holds anything but plain entries and arrays of bytes.
    """
    with readable(where, "CIFAR-10 batch"):
        batch = _Machine(data).run()
        planes = batch.get("data") if isinstance(batch, dict) else None
        planes = planes.values if isinstance(planes, _Array) else planes
        if not isinstance(planes, np.ndarray) or planes.shape[1:] != (PIXELS,):
            raise InputError(
                f"{where} is not a CIFAR-10 batch: it has no bytes of shape (N, {PIXELS}) named "
                "'data'; fetch it again"
            )
        return planes


class _Refused(Exception):
    """A pickle asks for something that images do not need."""


class _Name(NamedTuple):
    """A name that a pickle mentions; nothing is imported for it."""

    name: str


@dataclass(eq=False)
class _Array:
    """An array under construction."""

    values: np.ndarray | None = None


_BYTE = _Name("uint8")

# Every (module, name) that arrays of numpy 1 and 2 mention, and what it is called here.
_NAMES = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
} | {
    (f"numpy.{core}.{module}", name): name
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
}


class _Machine:
    """Reader of pickles that knows dictionaries, lists, numbers, text and arrays of bytes.

    It steps through the opcodes and builds values itself. Nothing is imported, called or looked
    up; an opcode, a name or a type that images do not need ends it. All that it builds is bounded
    by the length of the pickle.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.left = len(data)  # characters that may still be turned into bytes

    def run(self) -> Any:
        """Return what the pickle stands for."""
        for opcode, argument, _ in pickletools.genops(self.data):
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _LITERALS:
                self.stack.append(argument)
            elif opcode.name not in _IGNORED:
                step = _STEPS.get(opcode.name)
                if step is None:
                    raise _Refused(f"it uses {opcode.name}, which images do not need")
                step(self, argument)
        raise _Refused("it ends early")

    def pop(self, count: int) -> list[Any]:
        """Remove and return the topmost values."""
        if len(self.stack) < count:
            raise _Refused("it takes more than it has")
        return self._cut(len(self.stack) - count)

    def pop_mark(self) -> list[Any]:
        """Remove and return what lies above the last mark."""
        return self._cut(self.marks.pop())

    def _cut(self, at: int) -> list[Any]:
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def memoize(self, at: int | None) -> None:
        """Remember the topmost value."""
        self.memo[len(self.memo) if at is None else at] = self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        """Append to the list on top."""
        if not isinstance(self.stack[-1], list):
            raise _Refused("it appends to something other than a list")
        self.stack[-1].extend(items)

    def fill(self, pairs: list[Any]) -> None:
        """Put keys and values into the dictionary on top."""
        target = self.stack[-1]
        # Keys that are nested tuples could take for ever to hash.
        if not isinstance(target, dict) or not all(isinstance(x, str | bytes) for x in pairs[::2]):
            raise _Refused("it has entries that are not named by text")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[key if isinstance(key, str) else self.spend(key).decode("latin1")] = value

    def make_dict(self, pairs: list[Any]) -> None:
        """Push a dictionary of keys and values."""
        self.stack.append({})
        self.fill(pairs)

    def mention(self, module: Any, name: Any) -> None:
        """Push one of the names that arrays need."""
        text = isinstance(module, str) and isinstance(name, str)
        if not text or (module, name) not in _NAMES:
            asked = f"{module}.{name}" if text else "something without a name"
            raise _Refused(f"it asks for {asked}, which images do not need")
        self.stack.append(_Name(_NAMES[module, name]))

    def reduce(self) -> None:
        """Replace a name and its arguments by the value that they stand for."""
        function, arguments = self.pop(2)
        maker = _MAKERS.get(function.name) if isinstance(function, _Name) else None
        if maker is None or not isinstance(arguments, tuple):
            raise _Refused("it calls something that makes no array")
        self.stack.append(maker(self, *arguments))

    def build(self) -> None:
        """Give the array or the type below its state."""
        target, state = self.pop(2)
        if isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5:
            _, shape, kind, fortran, data = state
            target.values = self.bytes_array(data, kind, shape, "F" if fortran is True else "C")
        elif target is not _BYTE:
            raise _Refused("it sets the state of something that is no array")
        self.stack.append(target)

    def spend(self, text: Any) -> Any:
        """Return text that is about to be copied, as long as the pickle's length allows it."""
        self.left -= len(text)
        if self.left < 0:
            raise _Refused("it copies the same text over and over")
        return text

    def make_type(self, name: Any, *flags: Any) -> _Name:
        """Return the type of bytes."""
        if not isinstance(name, str | bytes) or name not in ("u1", "|u1", b"u1", b"|u1"):
            raise _Refused("it holds an array of a type other than bytes")
        return _BYTE

    def make_array(self, kind: Any, shape: Any, code: Any) -> _Array:
        """Return an array that gets its shape and its bytes later."""
        return _Array()

    def encode(self, text: Any, encoding: Any) -> bytes:
        """Return the bytes that Python 3 writes as text in old protocols."""
        if not isinstance(text, str) or encoding != "latin1":
            raise _Refused("it encodes text in a way that arrays do not")
        return self.spend(text).encode("latin1")

    def bytes_array(
        self, data: Any, kind: Any, shape: Any, order: Any = "C", axes: Any = None
    ) -> np.ndarray:
        """Return an array over bytes that are there, so that a shape can claim no more."""
        if kind is not _BYTE or order not in ("C", "F") or axes is not None:
            raise _Refused("it holds an array of a type other than bytes")
        if isinstance(data, str):
            data = self.encode(data, "latin1")
        if not isinstance(data, bytes | bytearray) or not isinstance(shape, tuple):
            raise _Refused("it holds an array without numbers")
        if not all(type(n) is int and n >= 0 for n in shape):
            raise _Refused("it holds an array of an impossible shape")
        return np.frombuffer(data, np.uint8).reshape(shape, order=order)


_MAKERS: dict[str, Callable[..., Any]] = {
    "dtype": _Machine.make_type,
    "_reconstruct": _Machine.make_array,
    "_frombuffer": _Machine.bytes_array,
    "encode": _Machine.encode,
}
_IGNORED = frozenset({"PROTO", "FRAME"})
_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 STRING BINSTRING "
    "SHORT_BINSTRING".split()
)
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "DICT": lambda m, _: m.make_dict(m.pop_mark()),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.pop(3))),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.pop_mark()),
    "SETITEM": lambda m, _: m.fill(m.pop(2)),
    "SETITEMS": lambda m, _: m.fill(m.pop_mark()),
    "GLOBAL": lambda m, names: m.mention(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.mention(*m.pop(2)),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
}
_STEPS |= dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, at: m.stack.append(m.memo[at]))
_STEPS |= dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda m, at: m.memoize(at))
