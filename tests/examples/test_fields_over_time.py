"""The examples on fields over time and on a volume run, at a small size."""

import runpy
from pathlib import Path

import numpy as np
import pytest

xarray = pytest.importorskip("xarray")
pytest.importorskip("matplotlib")

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_a_map_of_one_hour_is_drawn(tmp_path):
    lat, lon = 58 - 0.25 * np.arange(33), -10 + 0.25 * np.arange(49)
    values = np.full((13, 33, 49), 281.0) + 0.1 * lat[:, None]
    hours = np.datetime64("2019-04-01T00") + np.arange(13).astype("timedelta64[h]")
    coords = {"time": hours, "latitude": lat, "longitude": lon}
    data = xarray.Dataset({"t2m": (("time", "latitude", "longitude"), values)}, coords)
    data.to_netcdf(tmp_path / "a.nc")
    out = tmp_path / "map.png"
    error = example("era5_t2m")(
        ["--data", str(tmp_path / "a.nc"), "--out", str(out), "--samples", "3"]
    )
    assert error < 1.5 and out.stat().st_size > 10_000


def test_slices_of_a_volume_are_drawn(tmp_path):
    depth, lat, lon = np.arange(4.0), np.arange(-2.0, 64, 6), np.arange(270.0, 360, 9)
    values = 20 - 2 * depth[:, None, None] + 0.1 * lat[:, None] + 0.02 * lon
    values[:, 4, 3] = np.nan
    data = xarray.Dataset(
        {"TEMP": (("z", "y", "x"), values)},
        {"z": depth, "y": ("y", lat, {"units": "degrees_north"}), "x": lon},
    )
    data.to_netcdf(tmp_path / "a.nc")
    arguments = ["--data", str(tmp_path / "a.nc"), "--out", str(tmp_path / "v.png")]
    rmse = example("levitus_volume")([*arguments, "--density", "0.4"])
    assert max(rmse.values()) < 1.0
    assert (tmp_path / "v.png").stat().st_size > 10_000
