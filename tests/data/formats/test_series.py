"""Fields along time in NetCDF: axes, units, gaps, channels and periods."""

import numpy as np
import pytest

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset, Selection, open_dataset, open_selection

xarray = pytest.importorskip("xarray")

HOURS, LAT, LON = 30, 4, 5


def write(path, packed=False, falling=True, land=True, **attrs):
    """Write 30 hours of two fields in which every value says its hour, row and column."""
    hour, row, column = np.meshgrid(*map(np.arange, (HOURS, LAT, LON)), indexing="ij")
    values = (100.0 * hour + 10 * row + column).astype(np.float32)
    if land:
        values[:, 0, 1] = np.nan
    lat = 50 + 0.5 * np.arange(LAT)
    data = xarray.Dataset(
        {
            "t": (("time", "lat", "lon"), values, {"units": "K"}),
            "u": (("time", "lat", "lon"), -values),
            "height": (("lat", "lon"), values[0]),
        },
        {
            "time": np.datetime64("2019-03-01T00") + np.arange(HOURS).astype("timedelta64[h]"),
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", -3.0 + np.arange(LON), {"units": "degrees_east"}),
        },
    )
    if falling:
        data = data.isel(lat=slice(None, None, -1))
    packing = {"dtype": "int16", "scale_factor": 0.5, "add_offset": 100.0, "_FillValue": -1}
    data.to_netcdf(path, encoding={"t": packing} if packed else {})
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("falling", [False, True])
def test_values_lie_on_rising_axes_however_they_are_stored(tmp_path, packed, falling):
    fields = open_selection(write(tmp_path / "a.nc", packed, falling), Selection(values=("t",)))
    assert fields.shape == (LAT, LON) and len(fields) == HOURS and fields.channels == 1
    np.testing.assert_allclose(fields.series.axes[0], [50, 50.5, 51, 51.5])
    assert fields.values[7, 2, 3, 0] == pytest.approx(723, abs=0.5)
    assert fields.series.unit == "K"
    assert fields.series.names == ("lat", "lon")


def test_land_is_missing_and_counts_for_nothing(tmp_path):
    fields = open_selection(write(tmp_path / "a.nc"), Selection(values=("t",)))
    assert fields.known.shape == (HOURS, LAT * LON)
    assert (~fields.known).nonzero()[:, 1].unique().tolist() == [1]
    everywhere = open_selection(write(tmp_path / "b.nc", land=False), Selection(values=("t",)))
    assert everywhere.known is None
    kept = np.delete(everywhere.values.reshape(HOURS, -1), 1, axis=1)
    assert fields.normalizer.offset[0] == pytest.approx(kept.mean(), rel=1e-6)


def test_variables_on_the_same_axes_are_channels(tmp_path):
    fields = open_dataset(write(tmp_path / "a.nc"))
    assert fields.channels == 2
    np.testing.assert_array_equal(fields.values[..., 0], -fields.values[..., 1])
    with pytest.raises(InputError, match="no field 'v'; it has: t, u, height"):
        open_selection(tmp_path / "a.nc", Selection(values=("v",)))
    with pytest.raises(InputError, match="channels need the same axes.*height: lat, lon"):
        open_selection(tmp_path / "a.nc", Selection(values=("t", "height")))


@pytest.mark.parametrize(
    ("period", "count", "first"),
    [
        (("2019-03-02", "2019-03-02"), 6, 24),
        (("2019-03-01T03", "2019-03-01T05"), 3, 3),
        (("2019-02-01", "2019-04-01"), HOURS, 0),
    ],
)
def test_a_period_includes_both_of_its_ends(tmp_path, period, count, first):
    fields = open_selection(write(tmp_path / "a.nc"), Selection(values=("t",), period=period))
    assert len(fields) == count
    assert fields.values[0, 0, 0, 0] == 100 * first
    assert fields.series.hours.tolist() == [(first + n) % 24 for n in range(count)]


def test_a_period_without_a_field_says_what_there_is(tmp_path):
    path = write(tmp_path / "a.nc")
    with pytest.raises(InputError, match="no field from 2020.*it has 2019-03-01T00"):
        open_selection(path, Selection(values=("t",), period=("2020-01-01", "2020-01-02")))
    with pytest.raises(InputError, match="is no period"):
        open_selection(path, Selection(values=("t",), period=("Monday", "Friday")))


def test_axes_of_a_map_are_in_km(tmp_path):
    """Four cells of half a degree of latitude are 222.4 km: one degree is 111.2 km."""
    fields = open_selection(write(tmp_path / "a.nc"), Selection(values=("t",)))
    height, width = 2 * fields.series.lengths
    assert height == pytest.approx(222.4, rel=1e-3)
    assert width == pytest.approx(5 * 111.2 * np.cos(np.radians(50.75)), rel=1e-3)


def test_an_axis_that_turns_round_is_refused(tmp_path):
    data = xarray.Dataset(
        {"t": (("time", "x"), np.zeros((3, 4)))}, {"time": [0, 1, 2], "x": [0, 1, 3, 2]}
    )
    data.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(InputError, match="axis x neither rises nor falls"):
        open_dataset(tmp_path / "a.nc")


def test_a_file_without_fields_says_so(tmp_path):
    xarray.Dataset({"n": ("x", [1.0, 2.0])}).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(InputError, match="no variable with two axes"):
        open_dataset(tmp_path / "a.nc")


def test_gaps_of_arrays_are_land_only_where_they_are_in_every_item():
    values = np.random.default_rng(0).random((3, 4, 5, 1), np.float32)
    values[:, 1, 2] = np.nan
    fields = FieldDataset(values)
    assert (~fields.known).sum(1).tolist() == [1, 1, 1]
    assert "5.0% missing" in fields.summary
    values[2, 0, 0] = np.nan
    with pytest.raises(InputError, match="1 of 60 values are NaN.*first of them item 2"):
        FieldDataset(values)
