"""The examples run at a small size, on made-up files of the same layout."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(monkeypatch, name, *arguments):
    monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_tracks_are_held_out_whole(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    lines = ["longitude,latitude,bathymetry_m"]
    rng = np.random.default_rng(0)
    for _ in range(10):
        lon, lat = rng.uniform(245, 247), rng.uniform(22, 24)
        for step in range(6):
            lines.append(f"{lon},{lat + 0.02 * step},{-1000 - 400 * np.sin(2 * lon) - 9 * step}")
    (tmp_path / "tracks.csv").write_text("\n".join(lines))
    run(monkeypatch, "baja_tracks.py", tmp_path / "tracks.csv", "--every", 1, "--cells", 5,
        "--out", tmp_path)  # fmt: skip
    report = json.loads((tmp_path / "baja_tracks.json").read_text())
    assert (report["tracks"], report["held_out_tracks"]) == (10, 2)
    assert (report["soundings"], report["held_out"]) == (48, 12)
    assert set(report["rmse_m"]) == {"universal", "nearest", "idw", "kriging"}
    assert Image.open(tmp_path / "baja_tracks.png").width > 300


def test_gaps_of_a_month_are_filled(tmp_path, monkeypatch):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("matplotlib")
    lat, lon = np.arange(-75, 90, 30.0), np.arange(21, 380, 40.0)
    sst = np.broadcast_to(25 * np.cos(np.radians(lat))[None, :, None], (3, 6, 9)).copy()
    sst[:, 2, :2] = np.nan  # land
    sst[0, 4, 3:6] = np.nan  # a gap of the first month
    axes = {"TIME": np.arange(3.0), "COADSY": lat, "COADSX": lon}
    data = xarray.DataArray(sst, coords=axes, dims=list(axes), name="SST")
    data.to_netcdf(tmp_path / "in.cdf", engine="scipy")
    run(monkeypatch, "coads_gaps.py", tmp_path / "in.cdf", "--every", 1, "--out", tmp_path)
    report = json.loads((tmp_path / "coads_gaps.json").read_text())
    assert report["filled"] == 3
    assert report["known"] + report["held_out"] == 6 * 9 - 2 - 3
    assert Image.open(tmp_path / "coads_gaps.png").width > 300


def test_the_stations_that_ship_are_read():
    import sparsefield as sf

    path = Path(sf.__file__).parent / "data" / "examples" / "texas-wind.csv"
    obs = sf.read(path, value="air_temperature_c")
    assert (obs.count, obs.channels, obs.frame.geometry) == (186, 1, "sphere")
