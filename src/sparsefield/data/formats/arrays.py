"""Arrays of numpy: .npy files and .npz archives, read without trusting what they claim."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal
from zipfile import ZipFile

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.core.files import write_atomically
from sparsefield.core.memory import check_memory
from sparsefield.data.axes import MOST_CHANNELS
from sparsefield.data.formats.examples import Examples, Request
from sparsefield.data.formats.gridded import known_cells
from sparsefield.data.formats.guard import readable, regular_file
from sparsefield.data.formats.placing import Axes, place, plain_axes
from sparsefield.data.formats.reading import LOGGER, Reading
from sparsefield.data.formats.splits import select_array, unsplit
from sparsefield.data.observation import Observation

_PART = 2**20


# Names of arrays in an archive of observations, and in one of fields.
OBSERVED = ("coords", "values", "noise")
WRITTEN = (
    *("mean", "std", "samples", "coords", "quantiles", "levels"),
    *("names", "units", "channels", "channel_units", "made"),
)


@dataclass(frozen=True)
class Header:
    """What an array in a file claims to be.

    Attributes:
        shape: Its shape.
        dtype: Its type, one of plain numbers.
        fortran: Whether its first axis runs fastest.
        start: Bytes before the first number.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    start: int

    @property
    def end(self) -> int:
        """Bytes of the whole file."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def read_npy(path: Path, request: Request) -> Examples:
    """Return the items of an array in a .npy file.

    Raises:
        InputError: The file is damaged, claims more than it holds, or holds no numbers.
    """
    size = regular_file(path)
    with readable(path, "numpy file"), path.open("rb") as file:
        header = _read_header(file, str(path), size)
        values = _read_items(file, header, request.limit, str(path), size)
    return Examples(values, unsplit(path.name, request.split))


def read_npz(path: Path, request: Request) -> Examples:
    """Return the items of an array in an .npz archive.

    That is the only array with axes enough for a field, or the one whose name stands for the
    split.

    Raises:
        InputError: The archive is damaged, no one array stands for the split, or the array claims
            more than it holds or holds no numbers.
    """
    with open_archive(path) as archive:
        names = archive.names
        if len(names) > 1:  # labels (N,) cannot be fields
            names = [n for n in names if len(archive.header(n).shape) > 1] or names
        name, remarks = select_array(str(path), names, request.split)
        return Examples(archive.read(name, request.limit), remarks)


def read_observation(path: Path, reading: Reading) -> Observation:
    """Return the measurements in an archive with arrays coords and values.

    An archive of one array is a grid with gaps, as an array in a .npy file.

    Raises:
        InputError: The archive is damaged, or an array is missing or does not fit.
    """
    with open_archive(path) as archive:
        wanted = reading.values or archive.names
        if not reading.coords and OBSERVED[0] not in archive.names and len(wanted) == 1:
            return _observe_cells(path, _array(archive, wanted[0]), reading)
        reading.refuse(
            path, density="density is a fraction of cells; this is an archive of points"
        )
        coords = _columns(archive, reading.coords or OBSERVED[:1])
        values = _columns(archive, reading.values or OBSERVED[1:2])
        names = reading.noise_names
        if reading.noise is None and OBSERVED[2] in archive.names:
            names = OBSERVED[2:]
        noise = _columns(archive, names) if names else reading.noise
    named = reading.coords is not None and len(reading.coords) == coords.shape[-1]
    axes = Axes(reading.coords or (), ("",) * coords.shape[-1])
    if not named:
        axes = plain_axes(coords.shape[-1])
    return place(coords, values, noise, axes=axes, reading=reading)


def read_array_observation(path: Path, reading: Reading) -> Observation:
    """Return the cells of an array in a .npy file that are no NaN: a profile, map or volume.

    Raises:
        InputError: The file is damaged, nothing is known, or all is and `density` does not say
            which part counts.
    """
    reading.refuse(path, coords="an array has no columns", values="an array has no columns")
    size = regular_file(path)
    with readable(path, "numpy file"), path.open("rb") as file:
        header = _read_header(file, str(path), size)
        values = _read_items(file, header, None, str(path), size)
    return _observe_cells(path, values, reading)


def _observe_cells(path: Path, values: np.ndarray, reading: Reading) -> Observation:
    """Return the known cells of a grid (*shape) or (*shape, C) of up to MOST_CHANNELS channels."""
    reading.refuse(path, time="an array has no axis of times")
    if reading.noise_names:
        raise InputError(f"{path}: the noise of an array is a number, not a name")
    channels = values.ndim > 1 and values.shape[-1] <= MOST_CHANNELS
    full = values if channels else values[..., None]
    if not 2 <= full.ndim <= 4 or not full.size:
        raise InputError(f"{path}: a grid has one to three axes, got an array of {values.shape}")
    shape, flat = full.shape[:-1], full.reshape(-1, full.shape[-1]).astype(np.float64, copy=False)
    check_memory(8 * flat.size * (1 + full.ndim), str(path))
    LOGGER.info("%s: %s cells, channels: %d", path, " x ".join(map(str, shape)), full.shape[-1])
    cells = known_cells(path, flat, reading)
    centres = [-1 + (2 * np.arange(n) + 1) / n for n in shape]
    index = np.unravel_index(cells, shape)
    coords = np.stack([x[i] for x, i in zip(centres, index, strict=True)], axis=-1)
    return Observation(coords, flat[cells], reading.noise, grid=shape, frame=reading.frame)


def _columns(archive: "Archive", names: Sequence[str]) -> np.ndarray:
    """Return one array as it is, or several as the columns of one."""
    if len(names) == 1:
        found = _array(archive, names[0])
        return found if found.ndim > 1 else found.reshape(-1, 1)
    columns = [_array(archive, name).ravel() for name in names]
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise InputError(f"{archive.path}: {', '.join(names)} differ in length: {lengths}")
    return np.stack(columns, axis=-1)


def _array(archive: "Archive", name: str) -> np.ndarray:
    if name not in archive.names:
        raise InputError(
            f"{archive.path} lacks the array '{name}'; it has: {', '.join(archive.names)}"
        )
    return archive.read(name)


def write_field(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a field as a compressed archive of its arrays.

    Raises:
        InputError: The file cannot be written.
    """
    kept = {name: arrays[name] for name in WRITTEN if name in arrays}

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **kept)  # type: ignore[arg-type]

    write_atomically(path, save)


class Archive:
    """The arrays of an .npz archive, each read only when asked for.

    Args:
        path: Where it lies.
        file: The open archive.
        size: Its bytes.
    """

    def __init__(self, path: Path, file: ZipFile, size: int) -> None:
        self.path, self._file, self._size = path, file, size
        members = [name for name in file.namelist() if name.endswith(".npy")]
        self.names = [name.removesuffix(".npy") for name in members]

    def header(self, name: str) -> Header:
        """Return what an array claims to be."""
        with readable(self.path, "numpy file"), self._file.open(f"{name}.npy") as member:
            return _read_header(member, self._where(name), self._held(name))

    def read(self, name: str, limit: int | None = None) -> np.ndarray:
        """Return an array, or its first `limit` items."""
        info, where = self._file.getinfo(f"{name}.npy"), self._where(name)
        stored = min(info.compress_size, self._size)
        with readable(self.path, "numpy file"), self._file.open(info) as member:
            header = _read_header(member, where, self._held(name))
            return _read_items(member, header, limit, where, stored)

    def _held(self, name: str) -> int:
        return self._file.getinfo(f"{name}.npy").file_size

    def _where(self, name: str) -> str:
        return f"{self.path} array '{name}'"


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an .npz archive.

    Raises:
        InputError: It is no archive of arrays.
    """
    size = regular_file(path)
    with readable(path, "numpy file"):
        file = ZipFile(path)
    with file:
        archive = Archive(path, file, size)
        if not archive.names:
            raise InputError(f"{path} holds no array")
        yield archive


def _read_header(file: IO[bytes], where: str, held: int) -> Header:
    """Return what an array claims to be, once it is plain numbers that the file can hold."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:  # version 3 exists for names of columns
        raise InputError(f"{where} holds records; numbers are needed")
    shape, fortran, dtype = readers[version](file)
    if dtype.kind not in "biuf" or dtype.shape:
        raise InputError(f"{where} holds values of type {dtype.name}; numbers are needed")
    if any(n < 0 for n in shape):
        raise InputError(f"{where} claims the shape {shape}; it is damaged")
    header = Header(shape, dtype, fortran, file.tell())
    if header.end > held:
        raise InputError(
            f"{where} is cut short: it claims {header.end} bytes for its shape {shape} and has "
            f"{held}; fetch it again"
        )
    return header


def _read_items(
    file: IO[bytes], header: Header, limit: int | None, where: str, stored: int
) -> np.ndarray:
    """Return the first items of an array whose numbers come next in a file."""
    shape = header.shape
    if limit is not None and shape and not header.fortran:
        shape = (min(limit, shape[0]), *shape[1:])
    count = math.prod(shape)
    # Fields are kept as uint8 or float32.
    kept = count * (1 if header.dtype == np.uint8 else 4)
    check_memory(max(count * header.dtype.itemsize, kept), where, stored)
    data = _read_exactly(file, count * header.dtype.itemsize, where)
    order: Literal["C", "F"] = "F" if header.fortran else "C"
    values = np.frombuffer(data, header.dtype, count).reshape(shape, order=order)
    return values[:limit] if shape else values


def _read_exactly(file: IO[bytes], size: int, where: str) -> np.ndarray:
    """Return the next bytes of a file, which memory was found to hold."""
    data, filled = np.empty(size, np.uint8), 0
    while filled < size:
        part = file.read(min(size - filled, _PART))
        if not part:
            raise InputError(
                f"{where} is cut short after {filled} of {size} bytes; fetch it again"
            )
        data[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled += len(part)
    return data
