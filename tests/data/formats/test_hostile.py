"""Data sets from strangers: nothing runs, nothing is allocated unasked, faults are one line."""

import contextlib
import gzip
import io
import os
import pickle
import socket
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sparsefield.core import memory
from sparsefield.core.errors import InputError
from sparsefield.core.memory import VARIABLE, check_memory, memory_limit, show_size
from sparsefield.data.dataset import open_dataset

GIB = 2**30


def png(height=3, width=2):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (1, 2, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def refuse(path, match, split="test", most=2**27, **options):
    """Check that opening ends in one line, and takes little memory on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=match) as caught:
            open_dataset(path, split, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < most, f"took {show_size(peak)}"


# Pickles ------------------------------------------------------------------------------------

PLANES = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)


@pytest.mark.parametrize("protocol", range(6))
def test_batches_of_every_protocol_are_read(tmp_path, protocol):
    batch = {"data": PLANES, "labels": [1, 2], "filenames": ["a", "b"], "batch_label": "x"}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol))
    expected = PLANES.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(open_dataset(tmp_path, "test").values, expected)


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_either_order_are_read(tmp_path, order):
    batch = {b"data": np.array(PLANES, order=order)}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, 2))
    expected = PLANES.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(open_dataset(tmp_path, "test").values, expected)


def entry(value):
    """Return a pickle of {"data": value} for the opcodes of a value."""
    return b"\x80\x02}U\x04data" + value + b"s."


def calling(module, name, arguments):
    return f"c{module}\n{name}\n".encode() + pickle.dumps(arguments, 2)[2:-1] + b"R"


def array_of(kind, shape=(1, 3072), data=bytes(3072)):
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    state = pickle.dumps((1, shape), 2)[2:-3]  # without TUPLE2 and STOP
    text = b"T" + struct.pack("<i", len(data)) + data
    return empty + b"(" + state + kind + b"\x89" + text + b"tb"


U1 = calling("numpy", "dtype", ("u1", 0, 1))
OBJECT = calling("numpy", "dtype", ("O", 0, 1))
ATTACKS = {
    "system": calling("os", "system", ("touch owned",)),
    "posix": calling("posix", "system", ("touch owned",)),
    "eval": calling("builtins", "eval", ("open('owned', 'w')",)),
    "python 2 eval": calling("__builtin__", "eval", ("open('owned', 'w')",)),
    # The first two were worst: an import that runs a program, and objects made of any bytes.
    "numpy's command line": b"cnumpy.f2py.__main__\ndtype\n",
    "objects over bytes": b"cnumpy\nndarray\n(K\x01X\x01\x00\x00\x00OC\x08AAAAAAAAtR",
    "numpy's tests": calling("numpy.testing", "runstring", ("open('owned', 'w')", {})),
    "dtype elsewhere": calling("numpy.testing._private.utils", "dtype", ("u1",)),
    "frombuffer elsewhere": calling("numpy.lib", "_frombuffer", (b"a",)),
    "dotted name": calling("numpy", "dtype.__class__", ("u1",)),
    "huge array": calling("numpy.core.multiarray", "_reconstruct", (None, (10**12,), b"b")),
    "huge shape": array_of(U1, (10**12, 3072)),
    "negative shape": array_of(U1, (-1, 3072)),
    "objects": array_of(OBJECT, (384, 1)),
    "objects by name": array_of(calling("numpy", "dtype", ("|O", 0, 1))),
    "a type's state": OBJECT + pickle.dumps((3, "|", None, None, None, -1, -1, 63), 2)[2:],
    "list as array": b"]",
    "array without state": array_of(U1)[: array_of(U1).index(b"(")],
    "persistent id": b"U\x01aQ",
    "extension": b"\x82\x01",
    "instance": b"(U\x07echo hi" + b"ios\nsystem\n",
    "new object": b"cnumpy\ndtype\n)\x81",
    "key that takes for ever to hash": b"})" + b"q\x00h\x00\x86" * 60 + b"K\x01s",
    "many lists in lists": b"]" * 20_000 + b"a" * 19_999,
    "memo at the end of the world": b"K\x01r\xff\xff\xff\x7f",
    "text without end": b"X\xff\xff\xff\x7f",
    "copies": b"X"
    + struct.pack("<i", 2**20)
    + b"a" * 2**20
    + b"q\x01("
    + (b"c_codecs\nencode\nh\x01U\x06latin1\x86R" * 400)
    + b"l",
    "number without end": b"I" + b"9" * 10_000 + b"\n",
    "nothing on the stack": b"R",
    "no mark": b"t",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_pickles_run_nothing_and_claim_nothing(tmp_path, monkeypatch, attack):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_batch").write_bytes(entry(ATTACKS[attack]))
    refuse(tmp_path, "test_batch is not a (readable )?CIFAR-10 batch", most=2**25)
    assert not (tmp_path / "owned").exists()


def test_a_batch_without_arrays_is_refused(tmp_path):
    for number, value in enumerate([3, {}, {"data": 3}, {"data": np.zeros((2, 5), np.uint8)}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "test_batch").write_bytes(pickle.dumps(value, 2))
        refuse(folder, "CIFAR-10 batch")


# Bombs --------------------------------------------------------------------------------------


def npy_header(shape, dtype="<f8", version=1):
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((10**6, 10**6, 1), "cut short: it claims"),
        ((2**40, 3, 1), "cut short: it claims"),
        ((2**62, 2**62, 1), "cut short: it claims"),
        ((-1, 4, 1), "damaged"),
        ((True, 4, 1), "cut short|damaged"),
        ("(" * 2000, "not a readable numpy file"),
    ],
)
def test_arrays_that_claim_more_than_they_hold_are_refused(tmp_path, shape, match):
    content = npy_header(shape) + bytes(8)
    (tmp_path / "a.npy").write_bytes(content)
    refuse(tmp_path / "a.npy", match)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("test.npy", content)
    refuse(tmp_path / "a.npz", match)


def test_archives_that_expand_without_measure_are_refused(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("test.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy_header((300, 2**17, 1)))
        for _ in range(300):
            member.write(bytes(2**20))
    assert (tmp_path / "a.npz").stat().st_size < 2**21
    refuse(tmp_path / "a.npz", rf"would expand from .* to 300 MiB; .*set {VARIABLE}=1G")
    assert len(open_dataset(tmp_path / "a.npz", limit=2)) == 2


def test_the_setting_that_is_named_lets_a_large_array_in(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros((3, 2**18, 1)))
    monkeypatch.setenv(VARIABLE, "1M")
    refuse(tmp_path / "a.npy", rf"6 MiB of memory, more than the limit of 1 MiB; .*{VARIABLE}=1G")
    monkeypatch.setenv(VARIABLE, "1G")
    assert len(open_dataset(tmp_path / "a.npy")) == 3


def test_parquet_images_are_counted_before_they_are_decoded(tmp_path, monkeypatch):
    table = pa.table({"image": pa.array([{"bytes": png(64, 64)}] * 1000)})
    pq.write_table(table, tmp_path / "a.parquet")
    monkeypatch.setenv(VARIABLE, "2M")
    refuse(tmp_path / "a.parquet", "1000 images would take 11.72 MiB")
    assert len(open_dataset(tmp_path / "a.parquet", limit=5)) == 5


def watch_arrow(patch):
    """Return a list to which every decoded image adds the bytes that Arrow holds by then."""
    before, held = pa.total_allocated_bytes(), []

    def decode(data, where, size):
        held.append(pa.total_allocated_bytes() - before)
        return np.zeros((3, 2, 3), np.uint8)

    patch.setattr("sparsefield.data.formats.examples.decode_image", decode)
    return held


def test_rows_that_share_one_large_entry_take_its_memory_once(tmp_path, monkeypatch):
    blob = png() + bytes(2**19)
    table = pa.table({"image": pa.array([{"bytes": blob}] * 300)})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 2**14
    held = watch_arrow(monkeypatch)
    assert len(open_dataset(tmp_path / "a.parquet")) == 300
    assert max(held) < 2**25


def test_rows_encoded_as_differences_are_refused(tmp_path):
    rows = [{"bytes": bytes(2**19) + bytes([number])} for number in range(200)]
    pq.write_table(
        pa.table({"image": pa.array(rows)}),
        tmp_path / "a.parquet",
        compression="zstd",
        use_dictionary=False,
        column_encoding={"image.bytes": "DELTA_BYTE_ARRAY"},
    )
    assert (tmp_path / "a.parquet").stat().st_size < 2**14
    before = pa.total_allocated_bytes()
    refuse(tmp_path / "a.parquet", "not a readable parquet file.*DeltaByteArray")
    assert pa.total_allocated_bytes() - before < 2**20


def test_damaged_statistics_do_not_end_the_process(tmp_path):
    buffer = io.BytesIO()
    table = pa.table({"image": pa.array([{"bytes": png()}] * 3), "label": [1, 2, 3]})
    pq.write_table(table, buffer, compression="zstd")
    footer = buffer.getbuffer().nbytes - 8 - struct.unpack("<I", buffer.getvalue()[-8:-4])[0]
    for at in range(footer, footer + 400):
        damaged = bytearray(buffer.getvalue())
        damaged[at] ^= 1
        (tmp_path / "a.parquet").write_bytes(damaged)
        with contextlib.suppress(InputError):
            open_dataset(tmp_path / "a.parquet")


def test_text_in_a_parquet_file_opens_no_path(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    rows = [{"bytes": str(tmp_path / "secret.png"), "path": "x"}]
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    refuse(tmp_path / "a.parquet", "holds string values; encoded images as bytes are needed")
    rows = [{"bytes": None, "path": str(tmp_path / "secret.png")}]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), tmp_path / "b.parquet")
    refuse(tmp_path / "b.parquet", "row 0 is not a readable image")


def tar_header(name, size, kind=tarfile.REGTYPE):
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("name", ["cifar-10-batches-py/test_batch", "other"])
def test_archives_longer_than_the_published_one_end(tmp_path, monkeypatch, kind, name):
    monkeypatch.setattr("sparsefield.data.formats.cifar.LARGEST_ARCHIVE", 2**22)
    compress = zlib.compressobj(1, wbits=31)
    with (tmp_path / "a.tar.gz").open("wb") as file:
        file.write(compress.compress(tar_header(name, 2**33, kind)))
        for _ in range(16):
            file.write(compress.compress(bytes(2**20)))
        file.write(compress.flush())
    refuse(tmp_path / "a.tar.gz", "unpacks to more than 4 MiB")


# Things that are no files -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.parquet", "a.png", "a.tar.gz"])
def test_pipes_sockets_devices_and_folders_are_refused_without_waiting(
    tmp_path, name, monkeypatch
):
    os.mkfifo(tmp_path / name)
    refuse(tmp_path / name, "is a pipe")
    (tmp_path / "b").mkdir()
    os.symlink("/dev/zero", tmp_path / "b" / name)
    refuse(tmp_path / "b" / name, "is a device")
    (tmp_path / "c" / name).mkdir(parents=True)
    refuse(tmp_path / "c" / name, "cannot read")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # addresses are short
        (tmp_path / "d").mkdir()
        listener.bind(f"d/{name}")
        refuse(tmp_path / "d" / name, "is a socket")


@pytest.mark.parametrize("name", ["a.png", "a.parquet", "test_batch"])
def test_pipes_inside_folders_are_refused_without_waiting(tmp_path, name):
    os.mkfifo(tmp_path / name)
    refuse(tmp_path, f"{name} is a pipe")


def test_names_that_no_system_allows_are_refused(tmp_path):
    refuse(tmp_path / ("a" * 5000 + ".npy"), "no data at")
    refuse("a\0b.npy", "no data at")


# Memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"), [("6G", 6 * GIB), ("1.5 GiB", 1.5 * GIB), ("512m", 2**29), ("100", 100)]
)
def test_the_limit_is_read_from_the_environment(monkeypatch, text, size):
    monkeypatch.setenv(VARIABLE, text)
    assert memory_limit() == size


@pytest.mark.parametrize("text", ["much", "-1G", "0", "1Q", "inf", "nan", "1e400"])
def test_limits_that_are_no_size_are_refused(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(InputError, match=f"{VARIABLE}=.* is no size"):
        memory_limit()


def test_by_default_half_of_the_memory_may_be_taken(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(memory, "machine_memory", lambda: 8 * GIB)
    check_memory(4 * GIB, "it")
    with pytest.raises(InputError, match=f"it would take 4.5 GiB.*4 GiB.*{VARIABLE}=5G"):
        check_memory(4 * GIB + GIB // 2, "it")


def test_gzip_without_a_tar_inside_is_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"nothing"))
    refuse(tmp_path / "a.tar.gz", "not a readable archive")
