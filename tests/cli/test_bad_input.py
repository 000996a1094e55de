"""Measurements that cannot be what was meant: each is one clear line, before any work."""

import re
import time
from pathlib import Path

import numpy as np
import pytest

GOOD = "lat,lon,t\n50,1,3\n51,2,5\n50,4,1\n53,1,2\n"
GRID = np.where(np.arange(20) % 7 == 3, np.nan, np.arange(20.0)).reshape(4, 5)


def netcdf(lat=(50.0, 51, 52, 53), values=GRID, **units):
    """Return a function that writes a grid, with the units of its axes."""

    def write(path):
        xarray = pytest.importorskip("xarray")
        pytest.importorskip("netCDF4")
        axes = {"lat": ("lat", list(lat), units), "lon": np.arange(5.0)}
        data = xarray.Dataset({"t": (("lat", "lon"), values)}, axes)
        data.to_netcdf(path, engine="netcdf4")

    return write


def moments(*cells):
    """Return a table of times, one place and one value a row."""
    return "time,x,t\n" + "".join(f"{cell},{n},{n % 3}\n" for n, cell in enumerate(cells))


def objects(path):
    np.savez(path, coords=np.eye(2), values=np.array([[1], [None]], dtype=object))


LINE = "lat,lon,t\n50,1,3\n51,2,5\n52,3,3\n53,4,3\n"
# What is wrong -> file, its content, more arguments, words of the message.
CASES = {
    "one point": ("a.csv", "lat,lon,t\n50,1,3\n", (), "all points have the same lat, 50"),
    "two points": ("a.csv", "y,x,t\n50,1,3\n60,2,4\n", (), "at least 3 measurements"),
    "all points equal": (
        "a.csv", "y,x,t\n50,1,3\n50,1,4\n50,1,3\n", (), "all points have the same y, 50",
    ),
    "points in a line": ("a.csv", LINE, (), "all 4 observations lie on one line"),
    "points in a line, sampled": ("a.csv", LINE, ("--samples", 3), "lie on one line"),
    "a channel of NaN alone": (
        "a.csv", "lat,lon,t,u\n50,1,3,nan\n51,2,3,\n50,4,2,-\n", ("--value", "t", "u"),
        "column 'u' holds no number in any row",
    ),
    "a grid of NaN alone": ("a.nc", netcdf(values=GRID * np.nan), (), "nothing is known of"),
    "two columns of one name": (
        "a.csv", "lat,lon,lon,t\n50,1,1,3\n51,2,1,3\n50,4,1,2\n", (), "several columns 'lon'",
    ),
    "an axis named twice": ("a.csv", GOOD, ("--coords", "lat", "lat"), "lat occurs twice"),
    "an axis that repeats": ("a.nc", netcdf((50, 51, 51, 53)), (), "repeats the position 51"),
    "an axis out of order": (
        "a.nc", netcdf((50, 52, 51, 53)), (), "axis 'lat' neither rises nor falls",
    ),
    "a unit that is no latitude's": (
        "a.nc", netcdf(units="furlongs"), (), "axis lat is in 'furlongs'; .* in degrees",
    ),
    "a unit of a column": (
        "a.csv", GOOD.replace("lon", "lon [radians]"), (), "axis lon is in 'radians'",
    ),
    "a time zone by its letters": (
        "a.csv", moments("2019-03-01 00:00 CEST", "2019-03-01 01:00 CEST"), (),
        "column 'time' holds '2019-03-01 00:00 CEST', which is no date",
    ),
    "a time zone in some rows": (
        "a.csv", moments("2019-03-01T00:00+01:00", "2019-03-01 01:00 CEST"), (),
        "line 3 has '2019-03-01 01:00 CEST' .* no date",
    ),
    "a time without a zone among others": (
        "a.csv", moments("2019-03-01T00:00+01:00", "2019-03-01 01:00", "2019-03-01"), (),
        "line 3 has '2019-03-01 01:00' in column 'time', which states no time zone, as others do",
    ),
    "a day without a zone before others": (
        "a.csv", moments("2019-03-01", "2019-03-01 01:00 UTC", "2019-03-01T02:00Z"), (),
        "line 2 has '2019-03-01' .* no time zone",
    ),
    "an array of objects": ("a.npz", objects, (), "type object; numbers are needed"),
    "a wrong column": ("a.csv", GOOD, ("--value", "rain"), "'rain'; .*: lat, lon, t"),
    "a wrong coordinate": ("a.csv", GOOD, ("--coords", "y", "x"), "'y'; .*: lat, lon, t"),
    "an extent of zero": (
        "a.csv", "lat,lon,t\n50,1,3\n50,2,5\n50,3,3\n", (),
        "same lat, 50: an extent of zero spans no map",
    ),
    "a grid beyond memory": ("a.csv", GOOD, ("--size", 10**5, 10**5), "would take .*iB of memory"),
    "a step beyond memory": ("a.csv", GOOD, ("--spacing", 1e-6), "would take .*iB of memory"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", CASES)
def test_what_is_wrong_is_said_in_one_line(cli, wrong):
    name, content, more, words = CASES[wrong]
    content(name) if callable(content) else Path(name).write_text(content)
    start = time.process_time()
    seen = cli("reconstruct", name, "--model", "universal", "--out", "out.npz", *more)
    assert seen.code == 2
    *_, last = seen.err.splitlines()
    assert seen.err.count("\n") == 1 and last.startswith("sparsefield: error: ")
    assert re.search(words, last), last
    assert time.process_time() - start < 5
    assert not Path("out.npz").exists()


def test_zones_that_numbers_state_are_turned_to_utc(cli):
    cells = ("2019-03-01T02:00+02:00", "2019-03-01T01:00Z", "2019-02-28T21:00-05:00")
    Path("a.csv").write_text(moments(*cells, "2019-03-01 03:00 UTC"))
    seen = cli("reconstruct", "a.csv", "--at", "a.csv", "--out", "out.csv")
    assert seen.code == 0, seen.err
    hours = np.genfromtxt("out.csv", delimiter=",", names=True, dtype=None, encoding=None)["time"]
    assert [cell[:16] for cell in hours] == [f"2019-03-01T0{n}:00" for n in range(4)]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (("2019-03-01 00:00", "2019-03-01T01:00", "2019-03-02"), True),
        (("2019-03-01 00:00Z", "2019-03-01T01:00Z", "2019-03-02T00:00Z"), False),
        (("2019-03-01", "2019-03-02", "2019-03-04"), False),
    ],
)
def test_times_without_any_zone_are_said_to_be_utc(cli, cells, said):
    Path("a.csv").write_text(moments(*cells))
    seen = cli("reconstruct", "a.csv", "--size", 3, 4, "--out", "out.npz")
    assert seen.code == 0, seen.err
    assert ("column 'time' states no time zone; it is UTC" in seen.out + seen.err) == said


def test_spellings_of_degrees_are_degrees(cli):
    for north, east in (("°N", "°E"), ("deg", "Decimal degrees"), ("degrees north", "degreesE")):
        text = GOOD.replace("lat", f"lat [{north}]").replace("lon", f"lon ({east})")
        Path("a.csv").write_text(text, encoding="utf-8")
        seen = cli("reconstruct", "a.csv", "--size", 3, 4, "--out", "out.npz")
        assert seen.code == 0, seen.err
        with np.load("out.npz") as field:
            assert field["units"].tolist() == ["degrees_north", "degrees_east"]
        Path("out.npz").unlink()
