"""The accessor of DataArrays: gaps filled, fields on other grids, many times under dask."""

import numpy as np
import pytest
import torch

pytest.importorskip("xarray")

import xarray as xr

import sparsefield.xarray
from sparsefield.core.errors import InputError
from sparsefield.integrations.places import find_places, unit_vectors

TIMES = np.datetime64("2019-03-01T00", "ns") + np.arange(3) * np.timedelta64(1, "h")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def temperatures(step=10, dtype=np.float32, lon0=-180):
    """A smooth field on the sphere at three times, (time, lat, lon), and its truth."""
    lat = np.arange(80, -81, -step, dtype=float)  # descending, as in many files
    lon = np.arange(lon0, lon0 + 360, step, dtype=float)
    east, north = np.meshgrid(np.radians(lon), np.radians(lat))
    field = 15 + 10 * np.cos(2 * north) + 4 * np.cos(north) * np.sin(east)
    values = np.stack([field, field + 3, 2 * field]).astype(dtype)
    return xr.DataArray(
        values,
        dims=("time", "lat", "lon"),
        coords={"time": TIMES, "lat": lat, "lon": lon, "height": 2.0},
        name="t2m",
        attrs={"units": "degC", "long_name": "temperature"},
    )


def with_gaps(array, share=0.5, seed=0):
    gaps = np.random.default_rng(seed).random(array.shape) < share
    return array.where(~xr.DataArray(gaps, dims=array.dims))


def test_gaps_are_filled_and_all_else_stays():
    truth = temperatures()
    holes = with_gaps(truth)
    filled, std = holes.sparsefield.fill(return_std=True)
    assert filled.dtype == std.dtype == np.float32
    assert filled.dims == holes.dims and filled.name == "t2m" and filled.attrs == holes.attrs
    xr.testing.assert_identical(filled.coords.to_dataset(), holes.coords.to_dataset())
    seen = holes.notnull()
    np.testing.assert_array_equal(filled.values[seen], holes.values[seen])  # to the last bit
    assert (std.values[seen] == 0).all() and (std.values[~seen] > 0).all()
    assert std.name == "t2m_std" and std.attrs["units"] == "degC"
    error = (filled - truth).where(~seen)
    assert float(np.abs(error).max()) < 0.5
    assert bool(holes.isnull().any())  # the array itself is untouched


def test_longitude_goes_around_and_its_origin_does_not_matter():
    holes = with_gaps(temperatures(), 0.6)[0]
    shifted = holes.assign_coords(lon=holes.lon % 360).sortby("lon")
    one = holes.sparsefield.fill()
    other = shifted.sparsefield.fill()
    back = other.assign_coords(lon=(other.lon + 180) % 360 - 180).sortby("lon")
    np.testing.assert_allclose(back.values, one.values, atol=2e-3)


def test_places_near_the_date_line_and_the_poles_are_near():
    near = unit_vectors(np.array([179.9, -179.9, 10.0, 190.0]), np.array([0.0, 0.0, 90.0, 90.0]))
    assert np.linalg.norm(near[0] - near[1]) == pytest.approx(np.radians(0.2), rel=1e-3)
    np.testing.assert_allclose(near[2], near[3], atol=1e-15)


def test_each_time_is_filled_by_itself_in_any_order_of_dimensions():
    holes = with_gaps(temperatures(20))
    turned = holes.transpose("lon", "time", "lat")
    filled = turned.sparsefield.fill()
    assert filled.dims == ("lon", "time", "lat")
    alone = holes.isel(time=1).sparsefield.fill()
    np.testing.assert_allclose(
        filled.isel(time=1).transpose("lat", "lon").values, alone.values, rtol=1e-5
    )


def test_only_the_gaps_asked_for_are_filled():
    holes = with_gaps(temperatures(20))
    ocean = holes.lat > 0
    filled = holes.sparsefield.fill(where=ocean)
    assert not filled.sel(lat=slice(80, 1)).isnull().any()
    south = dict(lat=slice(0, -80))
    xr.testing.assert_identical(filled.sel(south), holes.sel(south))


def test_an_error_for_every_value_is_heeded():
    truth = temperatures(20).isel(time=0).astype(float)
    wrong = with_gaps(truth, 0.3)
    noise = xr.full_like(truth, 0.01)
    place = tuple(np.argwhere(wrong.notnull().values)[20])
    wrong[place] += 40
    noise[place] = 100.0
    trusted, std = wrong.sparsefield.fill(noise=0.01, return_std=True)
    stated = wrong.sparsefield.fill(noise=noise)
    gaps = wrong.isnull()
    assert np.abs(stated - truth).where(gaps).max() < np.abs(trusted - truth).where(gaps).max() / 5
    assert float(std.where(~gaps).max()) == pytest.approx(0.01)


def test_fields_along_other_coordinates():
    x = np.linspace(0, 3000, 16)
    line = xr.DataArray(np.sin(x / 500), dims="x", coords={"x": x})
    holes = line.where(np.arange(16) % 3 != 1)
    assert float(np.abs(holes.sparsefield.fill() - line).max()) < 0.2
    days = xr.DataArray(
        np.sin(x / 500),
        dims="time",
        coords={"time": np.arange("2019-03-01", "2019-03-17", dtype="M8[D]")},
    )
    gaps = days.where(np.arange(16) % 3 != 1)
    assert float(np.abs(gaps.sparsefield.fill() - days).max()) < 0.2
    bare = xr.DataArray(np.add.outer(np.arange(7.0), np.arange(6.0)), dims=("y", "x"))
    bare[3, 2] = np.nan
    assert float(bare.sparsefield.fill()[3, 2]) == pytest.approx(5, abs=0.2)
    assert find_places(bare.expand_dims(z=4)).positions.shape == (4 * 42, 3)


def test_a_field_is_reconstructed_on_another_grid_from_a_grid_and_from_stations():
    truth = temperatures(20)
    fine = temperatures(10).rename(lat="latitude", lon="longitude")
    on_fine, std = with_gaps(truth, 0.2).sparsefield.reconstruct(fine, return_std=True)
    assert on_fine.dims == ("time", "latitude", "longitude") and on_fine.shape == fine.shape
    assert on_fine.attrs == truth.attrs and std.shape == fine.shape
    np.testing.assert_array_equal(on_fine.longitude, fine.longitude)
    assert float(np.abs(on_fine - fine).mean()) < 0.5
    rng = np.random.default_rng(0)
    picks = xr.DataArray(rng.permutation(9 * 18)[:120], dims="station")
    stations = truth.stack(cell=("lat", "lon")).isel(cell=picks)
    stations = stations.drop_vars("cell").assign_coords(
        lat=("station", stations.lat.values), lon=("station", stations.lon.values)
    )
    back = stations.sparsefield.reconstruct(truth)
    assert back.dims == truth.dims
    assert float(np.abs(back - truth).mean()) < 0.5


def test_a_field_of_too_few_values_keeps_its_gaps_and_says_so():
    holes = with_gaps(temperatures(30))
    holes[1] = np.nan
    with pytest.warns(sparsefield.xarray.GapWarning, match="0 of 72"):
        filled = holes.sparsefield.fill()
    assert filled[1].isnull().all() and not filled[[0, 2]].isnull().any()


@pytest.mark.parametrize(
    ("array", "coords", "message"),
    [
        (
            temperatures(30),
            ("lat", "nope"),
            "no coordinate 'nope'; there are time, lat, lon, height",
        ),
        (temperatures(30), ("lat", "lon", "time"), "a sphere by themselves"),
        (
            xr.DataArray(np.zeros((2, 2, 2, 2)), dims=tuple("abcd")),
            None,
            "1 to 3 coordinates, not 4",
        ),
        (xr.DataArray(["a", "b", "c"], dims="x"), None, "not real numbers"),
        (
            xr.DataArray(
                np.zeros((3, 4)),
                dims=("z", "x"),
                coords={
                    "z": ("z", [0.0, 1, 2], {"units": "m"}),
                    "x": ("x", range(4), {"units": "km"}),
                },
            ),
            None,
            r"z \[m\], x \[km\] have no common unit",
        ),
        (
            temperatures(30).assign_coords(lat=np.arange(6) * 40.0),
            None,
            "latitude from -90 to 90",
        ),
    ],
)
def test_bad_input_is_said_in_a_line(array, coords, message):
    with pytest.raises(InputError, match=message):
        array.sparsefield.fill(coords)


def test_dask_stays_lazy_and_two_processes_give_what_one_does():
    distributed = pytest.importorskip("distributed")
    holes = with_gaps(temperatures(20))
    expected, expected_std = holes.sparsefield.fill(return_std=True)
    lazy, lazy_std = holes.chunk(time=1, lat=3).sparsefield.fill(return_std=True)
    assert lazy.chunks is not None and len(lazy.chunks[0]) == 3
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        filled, std = lazy.compute(), lazy_std.compute()
    xr.testing.assert_allclose(filled, expected, rtol=1e-3)
    # Beside a measurement the variance is a small difference of large numbers: it rounds.
    xr.testing.assert_allclose(std, expected_std, rtol=3e-3, atol=5e-4)
