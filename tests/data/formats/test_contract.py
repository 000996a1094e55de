"""Every registered format keeps the contract, damaged files included."""

import io
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sparsefield.data.formats import FORMATS
from sparsefield.testing import check_format

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (7, 5, 4), dtype=np.uint8)


def image(path, mode="RGBA"):
    Image.fromarray(PIXELS).convert(mode).save(path)


def archive(path):
    np.savez(path, coords=RNG.uniform(-1, 1, (6, 2)), values=RNG.normal(size=(6, 3)))


def fields(path):
    np.savez_compressed(path, test=RNG.normal(size=(6, 7, 5, 1)).astype(np.float32))


def table(path):
    np.savetxt(path, RNG.uniform(-1, 1, (9, 3)), delimiter=",", header="y,x,v", comments="")


def parquet(path):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[..., :3]).save(buffer, "PNG")
    pq.write_table(pa.table({"image": [{"bytes": buffer.getvalue()}] * 3}), path)


def cifar(path):
    batch = pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2]}, 2)
    with tarfile.open(path, "w:gz") as file:
        member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        member.size = len(batch)
        file.addfile(member, io.BytesIO(batch))


def series(path):
    xarray = pytest.importorskip("xarray")
    values = RNG.normal(size=(4, 3, 5)).astype(np.float32)
    xarray.Dataset({"t": (("time", "y", "x"), values)}).to_netcdf(path)


def array(path):
    np.save(path, RNG.normal(size=(6, 7, 5, 1)).astype(np.float32))


def grid(path):
    values = np.where(RNG.uniform(size=(7, 5)) < 0.5, np.nan, RNG.normal(size=(7, 5)))
    np.save(path, values)


def station_parquet(path):
    columns = {
        "lat": RNG.uniform(50, 58, 9),
        "lon": RNG.uniform(-9, 2, 9),
        "t": RNG.normal(size=9),
    }
    pq.write_table(pa.table(columns), path)


def netcdf(path):
    dataset().to_netcdf(path, engine="netcdf4")


def zarr(path):
    pytest.importorskip("zarr")
    dataset().to_zarr(path, consolidated=False, zarr_format=2)


def dataset():
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("netCDF4")
    values = np.where(RNG.uniform(size=(7, 5)) < 0.5, np.nan, RNG.normal(size=(7, 5)))
    axes = {"lat": np.linspace(58, 50, 7), "lon": np.linspace(-9, 2, 5)}
    return xarray.Dataset({"t2m": (("lat", "lon"), values)}, coords=axes)


# (format, task) -> suffix, writer of an example, options of the reader.
EXAMPLES = {
    ("image", "observation"): (".png", image, {}),
    ("image", "examples"): (".png", image, {"split": "all"}),
    ("image", "field"): (".png", None, {}),
    ("table", "observation"): (".csv", table, {}),
    ("table", "field"): (".csv", None, {}),
    ("NetCDF", "observation"): (".nc", netcdf, {}),
    ("NetCDF", "field"): (".nc", None, {}),
    ("Zarr", "observation"): (".zarr", zarr, {}),
    ("Zarr", "field"): (".zarr", None, {}),
    ("parquet", "observation"): (".parquet", station_parquet, {}),
    ("parquet", "field"): (".parquet", None, {}),
    ("parquet", "examples"): (".parquet", parquet, {"split": "all"}),
    ("CIFAR-10", "examples"): (".tar.gz", cifar, {"split": "test"}),
    ("numpy archive", "observation"): (".npz", archive, {}),
    ("numpy archive", "examples"): (".npz", fields, {"split": "test"}),
    ("numpy archive", "field"): (".npz", None, {}),
    ("NetCDF", "examples"): (".nc", series, {"split": "all"}),
    ("numpy array", "observation"): (".npy", grid, {}),
    ("numpy array", "examples"): (".npy", array, {"split": "all"}),
}
TASKS = [
    (name, task) for name, each in FORMATS.items() for task in each._fields if getattr(each, task)
]


def check(folder, name, task, mutations, seed):
    """Hold an example of a format to its contract, with so many damaged copies."""
    assert (name, task) in EXAMPLES, f"give the format {name} an example for '{task}'"
    suffix, write, options = EXAMPLES[name, task]
    path = folder / f"example{suffix}"
    if write is not None:
        write(path)
    check_format(name, path, task, options=options, mutations=mutations, seed=seed)


@pytest.mark.parametrize(("name", "task"), TASKS)
def test_a_format_keeps_the_contract(tmp_path, name, task):
    check(tmp_path, name, task, mutations=30, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), TASKS)
def test_a_format_survives_much_damage(tmp_path, name, task, record_property):
    check(tmp_path, name, task, mutations=3000, seed=1)
    record_property("trials", 3000 if task != "field" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS["image"].observation.suffixes)
def test_every_kind_of_image_survives_much_damage(tmp_path, suffix, record_property):
    image(tmp_path / f"example{suffix}", "RGB")
    options = {"density": 0.5}
    check_format("image", tmp_path / f"example{suffix}", options=options, mutations=2000)
    record_property("trials", 2000)
