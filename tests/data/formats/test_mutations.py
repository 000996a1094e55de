"""Damaged data sets: whatever bytes a reader meets, it returns fields or says one line."""

import gzip
import io
import pickle
import tarfile
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sparsefield.core.errors import InputError
from sparsefield.data import formats
from sparsefield.data.dataset import open_dataset
from sparsefield.data.formats import datasets
from sparsefield.data.formats.datasets import FOLDER_READERS

FEW, MANY = 60, 3000
MOST_BYTES = 2**27


def encoded(kind):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def parquet():
    buffer = io.BytesIO()
    rows = [{"bytes": encoded("PNG"), "path": None}] * 3
    pq.write_table(pa.table({"image": rows, "label": [1, 2, 3]}), buffer, compression="zstd")
    return buffer.getvalue()


def npy():
    buffer = io.BytesIO()
    np.save(buffer, np.arange(24.0).reshape(2, 3, 4, 1))
    return buffer.getvalue()


def npz(save=np.savez):
    buffer = io.BytesIO()
    save(buffer, train=np.zeros((2, 3, 4, 1)), test=np.ones((2, 3, 4, 1), np.float32))
    return buffer.getvalue()


def batch():
    planes = np.arange(3072, dtype=np.uint16).astype(np.uint8).reshape(1, 3072)
    return pickle.dumps({"data": planes, "labels": [3], "filenames": ["a"]}, 2)


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        member.size = len(batch())
        archive.addfile(member, io.BytesIO(batch()))
    return buffer.getvalue()


# One sound file of every kind; a kind that is not here fails the test below.
SOUND = {
    "a.parquet": parquet,
    "a.npy": npy,
    "a.npz": npz,
    "compressed.npz": lambda: npz(np.savez_compressed),
    "a.tar": tar,
    "a.tar.gz": lambda: gzip.compress(tar(), mtime=0),
    "a.tgz": lambda: gzip.compress(tar(), mtime=0),
    "a.png": lambda: encoded("PNG"),
    "a.jpg": lambda: encoded("JPEG"),
    "a.jpeg": lambda: encoded("JPEG"),
    "a.bmp": lambda: encoded("BMP"),
    "a.webp": lambda: encoded("WEBP"),
    "a.tif": lambda: encoded("TIFF"),
    "a.tiff": lambda: encoded("TIFF"),
    "a.ppm": lambda: encoded("PPM"),
    "test_batch": batch,
}


def test_every_reader_is_damaged_here():
    known = datasets.READERS if hasattr(datasets, "READERS") else formats.suffixes("examples")
    netcdf = formats.FORMATS["NetCDF"].examples.suffixes  # damaged in the test of the contract
    known = [suffix for suffix in known if suffix not in netcdf]
    assert all(any(name.endswith(suffix) for name in SOUND) for suffix in known)
    assert len(FOLDER_READERS) == 3  # batches, parquet files, images


def damaged(data, rng):
    """Return the bytes with some of them changed, cut, doubled, moved or set to extremes."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at, end = sorted(rng.integers(0, len(out) + 1, 2).tolist())
        match rng.integers(6):
            case 0:
                for place in rng.integers(0, max(len(out), 1), 3):
                    out[place : place + 1] = rng.bytes(1)
            case 1:
                del out[at : min(end, at + 8)]
            case 2:
                out[at:at] = out[at : min(end, at + 64)]
            case 3:
                out[at : at + 4] = bytes([int(rng.choice([0, 255, 127, 128]))]) * 4
            case 4:
                out[at:at] = rng.bytes(3)
            case _:
                out = out[: max(end, 1)]
    return bytes(out)


def check(tmp_path, name, rounds, seed):
    sound, rng = SOUND[name](), np.random.default_rng(seed)
    path = tmp_path / name
    path.write_bytes(sound)
    target = tmp_path if name == "test_batch" else path
    assert len(open_dataset(target, "test"))
    for number in range(rounds):
        data = damaged(sound, rng)
        path.write_bytes(data)
        tracemalloc.reset_peak()
        try:
            read = open_dataset(target, "test")
            assert read.values.ndim >= 3
        except InputError as error:
            assert "\n" not in str(error), (number, str(error))
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES, number


@pytest.fixture
def _traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SOUND)
def test_damage_is_told_in_one_line(tmp_path, _traced, name):
    check(tmp_path, name, FEW, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SOUND)
def test_much_damage_is_told_in_one_line(tmp_path, _traced, name):
    check(tmp_path, name, MANY, 1)


@pytest.mark.parametrize("name", SOUND)
def test_empty_and_one_byte_files_are_told_in_one_line(tmp_path, name):
    for content in (b"", b"\0", SOUND[name]()[:1]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError):
            open_dataset(tmp_path if name == "test_batch" else tmp_path / name, "test")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"split": "dev"}, "unknown split 'dev'"),
        ({"split": None}, "unknown split 'None'"),
        ({"split": "../x"}, "unknown split"),
        ({"limit": 0}, "limit must be a whole number from 1"),
        ({"limit": -1}, "limit must be a whole number from 1"),
        ({"limit": 1.5}, "limit must be a whole number from 1"),
        ({"limit": "3"}, "limit must be a whole number from 1"),
        ({"size": ()}, "size needs a whole number from 1"),
        ({"size": (0, 2)}, "size needs a whole number from 1"),
        ({"size": (2, -1)}, "size needs a whole number from 1"),
        ({"size": (1.5, 2)}, "size needs a whole number from 1"),
        ({"size": (3,)}, "divided evenly"),
        ({"size": (3, 4, 1)}, "divided evenly"),
        ({"size": (10**12, 10**12)}, "divided evenly"),
        ({"channels": "first"}, "unknown value of channels 'first'"),
    ],
)
def test_odd_requests_are_refused(tmp_path, options, match):
    (tmp_path / "a.npy").write_bytes(npy())
    with pytest.raises(InputError, match=match):
        open_dataset(tmp_path / "a.npy", **options)


@pytest.mark.parametrize("limit", [1, np.int64(2), 10**30])
def test_limits_beyond_the_end_take_what_there_is(tmp_path, limit):
    for name in ("a.npy", "a.parquet", "a.npz"):
        (tmp_path / name).write_bytes(SOUND[name]())
        held = len(open_dataset(tmp_path / name, "test"))
        assert len(open_dataset(tmp_path / name, "test", limit)) == min(limit, held)
