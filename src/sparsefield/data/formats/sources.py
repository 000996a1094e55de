"""Readers of data sets on disk: each returns an array of shape (N, *shape, C)."""

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.formats.images import IMAGE_SUFFIXES, decode_image

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
SUPPORTED = (
    "a parquet file or folder in the Hugging Face layout (struct column 'image' or 'img'), "
    "an image file or folder, the official CIFAR-10 python archive (.tar.gz) or its folder, "
    ".npy and .npz arrays"
)

CIFAR_SPLITS = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}

Size = tuple[int, int] | None
Reader = Callable[[Path, str, int | None, Size], np.ndarray]
Encoded = tuple[bytes | Path, str]


def read_fields(path: Path, split: str, limit: int | None, size: Size) -> np.ndarray:
    """Return the fields under `path`, by whichever reader knows its kind.

    Args:
        path: file or folder of a supported kind.
        split: which part to read where there are several.
        limit: number of images to decode at most, from the first; all if None.
        size: height and width that encoded images are area-averaged to.

    Returns:
        Values, shape (N, *shape, C), of the type they are stored in.

    Raises:
        InputError: if the path is missing, of no supported kind, broken, or lacks the split.
    """
    if not path.exists():
        raise InputError(f"no data at {path}; supported are {SUPPORTED}")
    reader = _folder_reader(path) if path.is_dir() else _file_reader(path)
    if reader is None:
        raise InputError(f"cannot read {path} as data; supported are {SUPPORTED}")
    return reader(path, split, limit, size)


def _file_reader(path: Path) -> Reader | None:
    suffix = path.suffix.lower()
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar")):
        return _read_cifar
    if suffix in IMAGE_SUFFIXES:
        return _read_images
    return {".parquet": _read_parquet, ".npy": _read_numpy, ".npz": _read_numpy}.get(suffix)


def _folder_reader(path: Path) -> Reader | None:
    if _cifar_files(path):
        return _read_cifar
    if any(path.rglob("*.parquet")):
        return _read_parquet
    if _image_files(path):
        return _read_images
    return None


def _select(names: dict[Path, Path], root: Path, split: str) -> list[Path]:
    """Return the files of one split, or all of them where no name speaks of splits.

    Args:
        names: for each file, the path below `root` whose parts may start with a split's name.
        root: what an error message calls the folder.
        split: the split to select.
    """
    found = {file: _split_of(name) for file, name in names.items()}
    present = sorted({name for name in found.values() if name})
    if not present:
        return list(names)
    if split not in present:
        raise InputError(f"{root} has no split '{split}'; it has: {', '.join(present)}")
    return [file for file, name in found.items() if name == split]


def _split_of(name: Path) -> str | None:
    words = (part.lower().replace("_", "-").replace(".", "-").split("-")[0] for part in name.parts)
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def _read_parquet(path: Path, split: str, limit: int | None, size: Size) -> np.ndarray:
    files = [path]
    if path.is_dir():
        found = sorted(path.rglob("*.parquet"))
        files = _select({file: file.relative_to(path) for file in found}, path, split)
    return _decode((row for file in files for row in _parquet_rows(file)), limit, size, path)


def _parquet_rows(path: Path) -> Iterator[Encoded]:
    from pyarrow.parquet import ParquetFile

    with _readable(path, "parquet file"), ParquetFile(path) as file:
        leaves = [file.schema.column(i).path for i in range(len(file.schema))]
        column = next((leaf for leaf in leaves if leaf in ("image.bytes", "img.bytes")), None)
        if column is None:
            raise InputError(
                f"{path} has no struct column 'image' or 'img' with 'bytes'; "
                f"it has: {', '.join(leaves)}"
            )
        batches = file.iter_batches(1024, columns=[column])
        blobs = (blob for batch in batches for blob in batch.column(0).field("bytes"))
        for row, blob in enumerate(blobs):
            yield blob.as_py() or b"", f"{path} row {row}"


def _image_files(path: Path) -> list[Path]:
    shown = (file for file in path.rglob("*") if not file.name.startswith("."))
    return sorted(file for file in shown if file.suffix.lower() in IMAGE_SUFFIXES)


def _read_images(path: Path, split: str, limit: int | None, size: Size) -> np.ndarray:
    files = [path]
    if path.is_dir():
        # Only folders name splits: a picture called train.png may well show a train.
        found = _image_files(path)
        files = _select({file: file.relative_to(path).parent for file in found}, path, split)
    return _decode(((file, str(file)) for file in files), limit, size, path)


def _decode(images: Iterable[Encoded], limit: int | None, size: Size, path: Path) -> np.ndarray:
    """Return decoded images as one array, on one thread: small images gain nothing from more."""
    pixels: list[np.ndarray] = []
    for source, where in islice(images, limit):
        pixels.append(decode_image(source, where, size))
        if pixels[-1].shape != pixels[0].shape:
            (height, width, _), (first_height, first_width, _) = pixels[-1].shape, pixels[0].shape
            raise InputError(
                f"{where} has {height} x {width} pixels but the first image has "
                f"{first_height} x {first_width}; ask for one size to reduce all images to"
            )
    if not pixels:
        raise InputError(f"{path} holds no image")
    return np.stack(pixels)


def _read_numpy(path: Path, split: str, limit: int | None, size: Size) -> np.ndarray:
    """Return an array, of an archive the only one or the one whose name stands for the split."""
    with _readable(path, "numpy file"):
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return stored
        names = stored.files
        chosen = [name for name in names if len(names) == 1 or SPLIT_NAMES.get(name) == split]
        if len(chosen) != 1:
            raise InputError(f"{path} has no array named '{split}'; it has: {', '.join(names)}")
        return stored[chosen[0]]


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    """Turn what readers raise on broken files into one line that names the file."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, EOFError, BadZipFile, tarfile.TarError, zlib.error) as error:
        raise InputError(f"{path} is not a readable {kind} ({error}); fetch it again") from error


def _read_cifar(path: Path, split: str, limit: int | None, size: Size) -> np.ndarray:
    """Return CIFAR-10 images from the archive or folder that its authors publish."""
    if split not in CIFAR_SPLITS:
        raise InputError(f"{path} has no split '{split}'; it has: {', '.join(CIFAR_SPLITS)}")
    if path.is_dir():
        batches = {file.name: file.read_bytes() for file in _cifar_files(path)}
    else:
        batches = _untar(path, CIFAR_SPLITS[split])
    missing = [name for name in CIFAR_SPLITS[split] if name not in batches]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)} of CIFAR-10; fetch it again")
    planes = [_cifar_planes(batches[name], f"{path} {name}") for name in CIFAR_SPLITS[split]]
    images = np.concatenate(planes).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _cifar_files(path: Path) -> list[Path]:
    names = [name for split in CIFAR_SPLITS.values() for name in split]
    folders = (path, path / "cifar-10-batches-py")
    return [folder / name for folder in folders for name in names if (folder / name).is_file()]


def _untar(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Return the wanted members of an archive by base name, without writing any file."""
    with _readable(path, "archive"), tarfile.open(path) as archive:
        members = {Path(item.name).name: item for item in archive if item.isfile()}
        streams = {name: archive.extractfile(members[name]) for name in names if name in members}
        return {name: stream.read() for name, stream in streams.items() if stream}


def _cifar_planes(data: bytes, where: str) -> np.ndarray:
    """Return the `data` entry of one pickled batch, uint8, shape (N, 3072)."""
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        planes = np.asarray(batch["data"] if "data" in batch else batch[b"data"])
    except Exception as error:  # a broken pickle can raise nearly anything
        raise InputError(f"{where} is not a CIFAR-10 batch ({error}); fetch it again") from error
    if planes.dtype != np.uint8 or planes.shape[1:] != (3072,):
        raise InputError(
            f"{where} is not a CIFAR-10 batch: its data are {planes.dtype} of shape "
            f"{planes.shape} instead of uint8 of shape (N, 3072)"
        )
    return planes


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler that can build numpy arrays and nothing else, so that data cannot run code."""

    ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype", "_frombuffer"})

    def find_class(self, module: str, name: str) -> Any:
        """Return a constructor that arrays need; raise for any other."""
        if module.split(".")[0] == "numpy" and name in self.ALLOWED:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which data do not need")
