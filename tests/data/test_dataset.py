import io
import pickle
import struct
import tarfile
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset, carve_validation, open_dataset
from sparsefield.data.normalize import Normalizer


def random_images(count, height=6, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path, blobs, column="image"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": blob, "path": None} for blob in blobs]
    pq.write_table(pa.table({column: rows, "label": list(range(len(rows)))}), path)


def write_images(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        (folder / f"{number:03}.png").write_bytes(png(image))


@pytest.mark.parametrize("column", ["image", "img"])
def test_parquet_folder_gives_the_files_of_the_split_in_order(tmp_path, column):
    images = random_images(5)
    write_parquet(tmp_path / "data/test-00000-of-00002.parquet", map(png, images[:2]), column)
    write_parquet(tmp_path / "data/test-00001-of-00002.parquet", map(png, images[2:4]), column)
    write_parquet(tmp_path / "data/train-00000-of-00001.parquet", map(png, images[4:]), column)
    dataset = open_dataset(tmp_path, "test")
    np.testing.assert_array_equal(dataset.values, images[:4])
    np.testing.assert_array_equal(open_dataset(tmp_path, "test", limit=3).values, images[:3])


def test_parquet_file_is_read_whatever_the_split(tmp_path):
    write_parquet(tmp_path / "test-00000-of-00001.parquet", map(png, random_images(2)))
    assert len(open_dataset(tmp_path / "test-00000-of-00001.parquet", "validation")) == 2


def test_absent_split_lists_those_present(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}-00000-of-00001.parquet", map(png, random_images(1)))
    with pytest.raises(InputError, match="no split 'validation'; it has: test, train"):
        open_dataset(tmp_path, "validation")


def test_parquet_without_images_lists_its_columns(tmp_path):
    pq.write_table(pa.table({"picture": [b""]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="it has: picture"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("blob", [b"no image", None, png(random_images(1, 64, 64)[0])[:-4000]])
def test_corrupt_image_names_its_row(tmp_path, blob):
    good = png(random_images(1, 64, 64)[0])
    write_parquet(tmp_path / "a.parquet", [good, blob, good])
    with pytest.raises(InputError, match=r"a\.parquet row 1 is not a readable image.*remove"):
        open_dataset(tmp_path)


def test_image_folder_is_read_in_sorted_order_with_splits_as_folders(tmp_path):
    images = random_images(5)
    write_images(tmp_path / "val" / "cats", images[:3])
    write_images(tmp_path / "train" / "cats", images[3:])
    np.testing.assert_array_equal(open_dataset(tmp_path, "validation").values, images[:3])
    np.testing.assert_array_equal(open_dataset(tmp_path, "train").values, images[3:])


def test_names_of_pictures_are_not_names_of_splits(tmp_path):
    (tmp_path / "train.png").write_bytes(png(random_images(1)[0]))
    assert len(open_dataset(tmp_path, "validation")) == 1


def test_grey_and_transparent_images_become_rgb(tmp_path):
    grey = random_images(1)[0, ..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(np.dstack([grey] * 3 + [np.full_like(grey, 255)])).save(tmp_path / "b.png")
    values = open_dataset(tmp_path).values
    assert values.shape == (2, 6, 8, 3)
    np.testing.assert_array_equal(values, np.broadcast_to(grey[..., None], values.shape))


def test_mixed_sizes_need_one_size_to_reduce_to(tmp_path):
    write_images(tmp_path / "val" / "a", random_images(1, 12, 16))
    write_images(tmp_path / "val" / "b", random_images(1, 6, 8))
    with pytest.raises(InputError, match=r"b.000\.png has 6 x 8 pixels.*12 x 16.*size=\(6, 8\)"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, size=(6, 8)).shape == (6, 8)
    with pytest.raises(InputError, match=r"b.000\.png.*fewer"):
        open_dataset(tmp_path, size=(12, 16))


def test_reduction_is_an_area_average_of_the_centred_part(tmp_path):
    image = random_images(1, 8, 12)[0]
    write_images(tmp_path, [image])
    expected = image[:, 2:10].reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(open_dataset(tmp_path, size=(4, 4)).values[0], expected, atol=0.51)


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did, like the published archive."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_text(self, text):
        data = text.encode() if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)

    dispatch[bytes] = dispatch[str] = save_text


def cifar_batch(images):
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump({"data": planes, "labels": [0] * len(images)})
    return buffer.getvalue().replace(b"numpy._core", b"numpy.core")


@pytest.fixture(scope="module")
def cifar_archive(tmp_path_factory):
    """Return an archive in the official layout with its images."""
    path = tmp_path_factory.mktemp("cifar") / "cifar-10-python.tar.gz"
    images = random_images(12, 32, 32)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    with tarfile.open(path, "w:gz") as archive:
        for number, name in enumerate(names):
            data = cifar_batch(images[2 * number : 2 * number + 2])
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path, images


def test_cifar_archive_and_its_folder_hold_the_same_images(cifar_archive, tmp_path):
    path, images = cifar_archive
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    for source in (path, tmp_path, tmp_path / "cifar-10-batches-py"):
        np.testing.assert_array_equal(open_dataset(source, "train").values, images[:10])
        np.testing.assert_array_equal(open_dataset(source, "test", limit=1).values, images[10:11])
    with pytest.raises(InputError, match="no split 'validation'; it has: train, test"):
        open_dataset(path, "validation")


def test_truncated_cifar_archive_is_an_error(cifar_archive, tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(cifar_archive[0].read_bytes()[:20000])
    with pytest.raises(InputError, match="fetch it again"):
        open_dataset(path, "train")


def test_a_batch_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return print, ("owned",)

    (tmp_path / "test_batch").write_bytes(pickle.dumps({"data": Attack()}))
    with pytest.raises(InputError, match=r"asks for builtins\.print"):
        open_dataset(tmp_path, "test")


def test_numpy_arrays_keep_any_number_of_grid_axes(tmp_path):
    values = np.random.default_rng(0).normal(280, 5, (4, 3, 5, 7, 2))
    np.save(tmp_path / "volumes.npy", values)
    dataset = open_dataset(tmp_path / "volumes.npy", limit=3)
    assert (len(dataset), dataset.shape, dataset.channels) == (3, (3, 5, 7), 2)
    np.testing.assert_array_equal(dataset.item(1), values[1].reshape(-1, 2).astype(np.float32))


def test_npz_gives_the_array_of_the_split(tmp_path):
    train, test = np.zeros((2, 5, 1)), np.ones((3, 5, 1))
    np.savez(tmp_path / "a.npz", train=train, test=test)
    np.testing.assert_array_equal(open_dataset(tmp_path / "a.npz", "test").values, test)
    with pytest.raises(InputError, match="no array named 'validation'; it has: train, test"):
        open_dataset(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 4)), r"expected values of shape \(N, \*grid, C\), got \(3, 4\)"),
        (np.float32(1), r"got \(\)"),
        (np.array([[["a"]]]), "numbers are needed"),
        (np.full((1, 4, 1), np.nan), "4 of 4 values are NaN"),
        (np.array([[[None]]]), "type object; numbers are needed"),
    ],
)
def test_arrays_that_are_no_fields_are_refused(tmp_path, values, message):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.parquet", "a.npy", "a.npz", "a.tar.gz", "a.png"])
def test_broken_files_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 and then nothing of use")
    with pytest.raises(InputError, match=rf"{name} is not a readable"):
        open_dataset(tmp_path / name, "test")


def test_archives_of_objects_are_not_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", test=np.array([[[None]]]))
    with pytest.raises(InputError, match=r"a\.npz.*type object; numbers are needed"):
        open_dataset(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["fields.grib", "points.csv", "fields.zarr"])
def test_unsupported_kinds_list_the_supported_ones(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"cannot read .*parquet.*CIFAR-10.*\.npz"):
        open_dataset(tmp_path / name)


def test_missing_and_empty_paths_are_errors(tmp_path):
    with pytest.raises(InputError, match="no data at"):
        open_dataset(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot read"):
        open_dataset(tmp_path)


def test_items_are_physical_values_in_the_order_of_the_coordinates():
    dataset = FieldDataset(random_images(4))
    flat = dataset.item(2)
    assert flat.shape == (48, 3) and flat.dtype == np.float32
    np.testing.assert_allclose(flat[8 + 3], dataset.values[2, 1, 3] / 255, rtol=1e-6)
    torch.testing.assert_close(dataset.batch([2, 0])[0], torch.from_numpy(flat))
    torch.testing.assert_close(dataset.coords[8 + 3], torch.tensor([-0.5, -0.125]))


def strided(values):
    wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), values.dtype)
    wide[..., ::2] = values
    return wide[..., ::2]


def read_only(values):
    values.flags.writeable = False
    return values


# The same numbers, held in memory in other ways.
HOLDINGS = {
    "reversed": lambda values: values[::-1].copy()[::-1],
    "big-endian": lambda values: values.astype(values.dtype.newbyteorder(">")),
    "double": lambda values: values.astype(np.float64),
    "long double": lambda values: values.astype(np.longdouble),
    "half": lambda values: values.astype(np.float16),
    "columns first": np.asfortranarray,
    "every other": strided,
    "read-only": read_only,
    "tensor": torch.from_numpy,
    "masked nowhere": np.ma.asarray,
    "lists": lambda values: values.tolist(),
}


@pytest.mark.parametrize("holding", HOLDINGS)
def test_how_numbers_are_held_makes_no_difference(holding, tmp_path):
    values = np.random.default_rng(0).integers(-9, 9, (4, 5, 3, 2)).astype(np.float32)
    held = HOLDINGS[holding](values.copy())
    dataset = FieldDataset(held)
    assert dataset.values.dtype == np.float32 and dataset.values.dtype.isnative
    np.testing.assert_array_equal(dataset.values, values)
    np.testing.assert_array_equal(dataset.batch([2, 0]), values[[2, 0]].reshape(2, 15, 2))
    assert dataset.normalizer == FieldDataset(values).normalizer
    np.save(tmp_path / "a.npy", np.asarray(held))
    np.savez(tmp_path / "a.npz", held)
    for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
        np.testing.assert_array_equal(open_dataset(path).values, values)


def test_bytes_stay_bytes_however_they_are_held():
    images = random_images(3)
    for held in (images[::-1].copy()[::-1], strided(images), np.asfortranarray(images)):
        dataset = FieldDataset(held)
        assert dataset.is_images
        np.testing.assert_array_equal(dataset.values, images)


def test_masked_entries_are_refused_with_their_number():
    values = np.ma.masked_less(np.arange(24.0).reshape(2, 3, 4, 1), 5)
    with pytest.raises(InputError, match="5 of 24 entries are masked"):
        FieldDataset(values)


def test_values_that_are_not_finite_are_counted_with_their_items():
    values = np.zeros((6, 5, 2), np.float64)
    values[2, 1:4, 0], values[4, 0, 1], values[4, 1, 1] = np.nan, -np.inf, 1e300
    with pytest.raises(
        InputError,
        match=r"5 of 60 values are NaN or infinite.*\(3 and 2\), in 2 of "
        r"6 items, the first of them item 2",
    ):
        FieldDataset(values)


@pytest.mark.parametrize(
    "values", [np.zeros((2, 3, 1), complex), np.full((2, 3, 1), "a"), [[[None]]]]
)
def test_what_is_no_number_is_refused(values):
    with pytest.raises(InputError, match="numbers"):
        FieldDataset(values)


def test_values_that_a_model_of_images_cannot_return_are_counted():
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 3, 2)
    images, fields = Normalizer.unit_range(2), Normalizer((0.0, 0.0), (1.0, 1.0))
    FieldDataset(values).check_range(images, "it")
    FieldDataset(random_images(1)).check_range(Normalizer.unit_range(3), "it")
    values[0, 0, 0], values[1, 2, 1] = -0.5, 280
    FieldDataset(values).check_range(fields, "it")
    with pytest.raises(
        InputError, match=r"2 of 12 values.*\[0, 1\], the range of it.*-0.5 to 280"
    ):
        FieldDataset(values).check_range(images, "it")


def test_a_data_set_prints_as_one_line():
    shown = (
        "FieldDataset('fields': 4 items on a grid of 6 x 8 cells with 3 channels of bytes (255 "
    )
    assert repr(FieldDataset(random_images(4))).startswith(shown)


def test_batches_do_not_share_memory_with_the_data():
    dataset = FieldDataset(np.zeros((2, 5, 1), np.float32))
    dataset.batch([0]).add_(1)
    assert (dataset.values == 0).all()


def test_normalizer_depends_on_the_kind_of_values():
    assert FieldDataset(random_images(1)).normalizer.low == 0
    warm = FieldDataset(np.random.default_rng(0).normal(280, 5, (9, 30, 1)).astype(np.float32))
    assert warm.normalizer.offset[0] == pytest.approx(280, abs=2)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resizing_averages_blocks(dtype):
    values = random_images(2, 6, 8).astype(dtype)
    coarse = FieldDataset(values).resized((3, 2)).values
    expected = values.reshape(2, 3, 2, 2, 4, 3).mean(axis=(2, 4))
    assert coarse.dtype == dtype
    np.testing.assert_allclose(coarse, expected, atol=0.5 if dtype == np.uint8 else 1e-3)


def test_resizing_needs_divisors():
    with pytest.raises(InputError, match="divided evenly"):
        FieldDataset(random_images(1)).resized((4, 8))


def test_carved_validation_is_a_reproducible_partition():
    train, validation = carve_validation(100, 17, seed=3)
    assert len(validation) == 17
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), range(100))
    np.testing.assert_array_equal(carve_validation(100, 17, seed=3)[1], validation)
    assert not np.array_equal(carve_validation(100, 17, seed=4)[1], validation)
    with pytest.raises(InputError, match="both parts"):
        carve_validation(5, 5)
