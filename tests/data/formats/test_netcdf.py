"""NetCDF and Zarr: what CF says of values and axes, and what is refused."""

from functools import partial

import numpy as np
import pytest

import sparsefield as sf
from sparsefield.core.errors import InputError
from sparsefield.data.formats import write_field

xarray = pytest.importorskip("xarray")
pytest.importorskip("netCDF4")

RNG = np.random.default_rng(0)
LAT, LON = np.array([58.0, 56, 54, 52]), np.array([350.0, 352, 354, 356, 358])
HOURS = ("time", [0.0, 6, 12], {"units": "hours since 2019-03-01"})
VALUES = RNG.normal(280, 5, (3, 4, 5))
GAPS = RNG.uniform(size=(3, 4, 5)) < 0.4


def dataset(values=VALUES, gaps=GAPS, **attributes):
    """Return a field of three times, descending latitudes and longitudes from 0 to 360."""
    kept = np.where(gaps, np.nan, values)
    axes = {"time": HOURS, "lat": ("lat", LAT, {"units": "degrees_north"}), "lon": LON}
    variable = (("time", "lat", "lon"), kept, {"units": "K", **attributes})
    return xarray.Dataset({"t2m": variable}, coords=axes)


def write(tmp_path, data, name="in.nc", **settings):
    engine = settings.pop("engine", "netcdf4")
    data.to_netcdf(tmp_path / name, engine=engine, **settings)
    return tmp_path / name


def check_slice(obs, index):
    """Compare observations with the cells that are known of one time."""
    rows, columns = np.nonzero(~GAPS[index])
    expected = np.stack([LAT[rows], LON[columns]], axis=1)
    np.testing.assert_allclose(obs.physical(), expected, atol=1e-9)
    np.testing.assert_allclose(obs.values[:, 0], VALUES[index][rows, columns], rtol=1e-6)


@pytest.mark.parametrize("time", ["2", "-1", "2019-03-01T12:00", "2019-03-01 13:00+01:00"])
def test_one_time_is_chosen_by_its_date_or_number(tmp_path, time):
    obs = sf.read(write(tmp_path, dataset()), time=time)
    check_slice(obs, 2)
    assert obs.frame.geometry == "sphere"
    assert (obs.frame.low, obs.frame.high) == ((51, 349), (59, 359))
    assert obs.grid == (4, 5)
    assert obs.quantities == (("t2m", "K"),)


@pytest.mark.parametrize(
    ("engine", "form"), [("netcdf4", "NETCDF4"), ("scipy", "NETCDF3_CLASSIC")]
)
def test_packed_and_fill_values_are_understood(tmp_path, engine, form):
    packing = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -9999}
    path = write(tmp_path, dataset(), "IN.CDF", engine=engine, format=form,
                 encoding={"t2m": packing})  # fmt: skip
    obs = sf.read(path, time="1")
    rows, columns = np.nonzero(~GAPS[1])
    np.testing.assert_allclose(obs.values[:, 0], VALUES[1][rows, columns], atol=0.0051)


def test_values_out_of_their_valid_range_are_missing(tmp_path):
    obs = sf.read(write(tmp_path, dataset(valid_min=270.0, valid_max=282.0)), time="0")
    assert obs.count == ((VALUES[0] >= 270) & (VALUES[0] <= 282) & ~GAPS[0]).sum()


def test_times_are_an_axis_where_it_is_named(tmp_path):
    obs = sf.read(write(tmp_path, dataset()), time="time", time_scale=10)
    assert obs.frame.names == ("time", "lat", "lon") and obs.grid == (3, 4, 5)
    assert obs.count == (~GAPS).sum()
    turned = sf.read(tmp_path / "in.nc", coords=("lon", "lat", "time"))
    assert turned.frame.names == ("lon", "lat", "time") and turned.grid == (5, 4, 3)


def test_several_variables_are_channels(tmp_path):
    data = dataset().isel(time=0)
    data["u"] = 2 * data.t2m
    path = write(tmp_path, data)
    obs = sf.read(path, value=("u", "t2m"))
    np.testing.assert_allclose(obs.values[:, 0], 2 * obs.values[:, 1], rtol=1e-6)
    with pytest.raises(InputError, match="has 2 variables; choose with value .--value.: t2m, u"):
        sf.read(path)
    data["u"] = data.u.where(data.lat > 53)
    with pytest.raises(InputError, match="cells are missing in some channels only"):
        sf.read(write(tmp_path, data), value=("u", "t2m"))


def test_a_part_of_an_intact_field_may_count_as_observed(tmp_path):
    path = write(tmp_path, dataset(gaps=np.zeros_like(GAPS)))
    assert sf.read(path, time="0", density=0.25, seed=3).count == 5
    with pytest.raises(InputError, match="has no gaps, so nothing is missing"):
        sf.read(path, time="0")


def test_values_along_one_dimension_are_points(tmp_path):
    places = {"lat": ("obs", [50.0, 51, 53]), "lon": ("obs", [-3.0, 4, 1])}
    data = xarray.Dataset({"t": ("obs", [1.0, np.nan, 3.0])}, coords=places)
    obs = sf.read(write(tmp_path, data))
    np.testing.assert_allclose(obs.physical(), [[50, -3], [53, 1]], atol=1e-12)
    assert obs.grid is None


def test_the_poles_end_a_grid_and_a_whole_turn_is_one(tmp_path):
    lat, lon = np.linspace(-90, 90, 7), np.arange(0, 360, 30.0)
    values = np.where(RNG.uniform(size=(7, 12)) < 0.5, np.nan, 1.0)
    data = xarray.Dataset({"t": (("lat", "lon"), values)}, coords={"lat": lat, "lon": lon})
    obs = sf.read(write(tmp_path, data))
    assert obs.frame.low == (-90, -15) and obs.frame.high == (90, 345)
    assert obs.grid is None


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda d: d, {}, "t2m has 3 times, from 2019-03-01T00:00:00Z to 2019-03-01T12:00:00Z"),
        (lambda d: d, {"time": "2019-03-02"}, "no time 2019-03-02; the times go from"),
        (lambda d: d, {"time": "noon"}, "no time 'noon'; the times go"),
        (lambda d: d, {"time": "3"}, "no time '3'"),
        (lambda d: d, {"time": "0", "value": "x"}, "has no variable 'x'; it has: t2m"),
        (lambda d: d, {"time": "0", "coords": ("x", "y")}, "no axis 'x'; it has: lat, lon"),
        (lambda d: d.isel(time=0), {"time": "1"}, "has no axis of times|no time '1'"),
        (lambda d: d.isel(lat=[0, 2, 1, 3]), {"time": "0"}, "'lat' neither rises nor falls"),
        (lambda d: d.isel(lat=[0, 1, 1, 3]), {"time": "0"}, "axis 'lat' repeats the position 56"),
        (lambda d: d.isel(lat=[0]), {"time": "0", "coords": ("lat", "lon")}, "extent of zero"),
        (lambda d: d.assign_coords(lat=[1, 2, np.nan, 4]), {"time": "0"}, "'lat' holds NaN"),
        (lambda d: d * np.nan, {"time": "0"}, "nothing is known of channel 1 of 1"),
        (
            lambda d: d.assign_coords(lat=list("abcd")),
            {"time": "0"},
            "holds .* numbers are needed",
        ),
        (
            lambda d: d.assign_coords(time=("time", [0, 1, 2], {"units": "moons since 2019"})),
            {"time": "2019-03-01"},
            "'moons since 2019' is no unit|no time '2019-03-01'",
        ),
        (lambda d: d.assign_coords(lat=LAT + 60), {"time": "0"}, "between -90 and 90 degrees"),
    ],
)
def test_what_cannot_be_understood_is_one_line(tmp_path, change, options, words):
    with pytest.raises(InputError, match=words) as error:
        sf.read(write(tmp_path, change(dataset())), **options)
    assert "\n" not in str(error.value)
    assert "in.nc" in str(error.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "in.nc").write_bytes(b"PK\3\4 and so on")
    with pytest.raises(InputError, match="not a readable NetCDF file"):
        sf.read(tmp_path / "in.nc")


def test_a_claim_of_more_than_memory_holds_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, dataset())
    monkeypatch.setenv("SPARSEFIELD_MEMORY", "500")
    with pytest.raises(InputError, match="would take .* more than the limit"):
        sf.read(path, time="0")


@pytest.mark.parametrize("name", ["out.nc", "new/out.zarr"])
def test_what_is_written_is_read_again(tmp_path, name):
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    mean = RNG.normal(size=(4, 5, 1)).astype(np.float32)
    mean[1, 2] = np.nan
    coords = np.stack(np.meshgrid(LAT, LON, indexing="ij"), axis=-1)
    arrays = {
        "mean": mean, "std": mean**2, "coords": coords, "names": np.array(["lat", "lon"]),
        "units": np.array(["degrees_north", "degrees_east"]), "channels": np.array(["t2m"]),
        "channel_units": np.array(["K"]), "made": np.array('{"model": "kriging", "nfe": 3}'),
    }  # fmt: skip
    write_field(tmp_path / name, arrays)
    obs = sf.read(tmp_path / name, value=("mean", "std"))
    assert obs.count == 19 and obs.grid == (4, 5)
    np.testing.assert_allclose(obs.values[:, 1], obs.values[:, 0] ** 2, rtol=1e-6)
    assert obs.quantities[0] == ("mean", "K")
    if name.endswith("zarr"):
        with pytest.raises(InputError, match="exists; a Zarr store is not replaced"):
            write_field(tmp_path / name, arrays)
        found = xarray.open_zarr(tmp_path / name, consolidated=False)
    else:
        found = xarray.open_dataset(tmp_path / name)
    assert (found.attrs["model"], found.attrs["nfe"]) == ("kriging", 3)
    assert [each.name for each in tmp_path.glob(".*")] == []


def test_a_raster_as_gdal_writes_it_keeps_its_places_and_gaps(tmp_path):
    """What gdal_translate makes of a GeoTIFF: a variable for the projection, and Band1."""
    lat, lon = 49.95 - 0.1 * np.arange(4), 5.05 + 0.1 * np.arange(5)
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    values[1, 2] = -9999
    band = (("lat", "lon"), values, {"grid_mapping": "crs", "_FillValue": np.float32(-9999)})
    north, east = {"units": "degrees_north"}, {"units": "degrees_east"}
    crs = ((), np.bytes_(b""), {"grid_mapping_name": "latitude_longitude"})
    axes = {"lat": ("lat", lat, north), "lon": ("lon", lon, east)}
    xarray.Dataset({"crs": crs, "Band1": band}, axes).to_netcdf(tmp_path / "a.nc")
    obs = sf.read(tmp_path / "a.nc")
    assert obs.count == 19 and obs.frame.geometry == "sphere"
    assert obs.quantities[0].name == "Band1"
    places = np.stack(np.meshgrid(lat, lon, indexing="ij"), axis=-1)[values >= 0]
    np.testing.assert_allclose(obs.physical(), places, atol=1e-9)
    np.testing.assert_allclose(obs.values[:, 0], values[values >= 0])


@pytest.mark.parametrize("size", [0, 2**64 - 16, 2**20], ids=["nothing", "all there is", "more"])
def test_a_heap_on_which_the_library_turns_in_a_circle_is_refused(tmp_path, size):
    path = write(tmp_path, dataset())
    content = bytearray(path.read_bytes())
    first = content.index(b"GCOL") + 16
    number = 0 if size == 0 else 1  # 0 marks what is free, whose size counts its header
    content[first : first + 16] = (
        number.to_bytes(2, "little") + bytes(6) + size.to_bytes(8, "little")
    )
    path.write_bytes(content)
    for read in (partial(sf.read, time="1"), sf.open_dataset):
        with pytest.raises(InputError, match=r"in\.nc is a damaged NetCDF file"):
            read(path)
