"""Fields in physical coordinates."""

import json

import numpy as np
import pytest
import torch

import sparsefield as sf
from sparsefield.inference.field import Field, Provenance

FRAME = sf.Frame(("lat", "lon"), (50, -10), (58, 2))
PLACES = np.array([[51.0, -3.0], [57.0, 1.0], [52.5, -8.25]])


def field(at, channels=1, samples=0, frame=FRAME):
    """Return a field with made-up numbers."""
    values = np.arange(3.0 * channels).reshape(3, channels)
    obs = sf.Observation.at(PLACES, values, frame=FRAME)
    obs = obs.labelled(*[(f"v{c}", "K") for c in range(channels)])
    at = at.within(frame)
    mean = torch.arange(len(at) * channels).float().reshape(-1, channels)
    drawn = mean + torch.arange(samples).float().sub(1)[:, None, None] if samples else None
    std = None if drawn is None else drawn.std(0)
    made = Provenance("kriging", seed=3)
    return Field(mean, at, obs, std=std, samples=drawn, made=made)


def test_arrays_have_physical_coordinates():
    arrays = field(sf.Grid(4, 3), channels=2, samples=3).arrays()
    assert arrays["mean"].shape == (4, 3, 2)
    np.testing.assert_allclose(arrays["coords"][1, 2], [53, 0])
    assert arrays["names"].tolist() == ["lat", "lon"]
    assert arrays["units"].tolist() == ["degrees_north", "degrees_east"]
    assert arrays["channels"].tolist() == ["v0", "v1"]
    np.testing.assert_allclose(arrays["stations"], PLACES)
    assert json.loads(str(arrays["made"])) == {"model": "kriging", "seed": 3, "inflation": 1.0}
    points = field(sf.Points(PLACES[:2])).arrays()
    assert np.array_equal(points["coords"], PLACES[:2])


def test_a_dataset_has_axes_units_and_provenance():
    pytest.importorskip("xarray")
    found = field(sf.Grid(4, 3), samples=3).to_xarray()
    assert dict(found.sizes) == {"lat": 4, "lon": 3, "sample": 3, "level": 3}
    np.testing.assert_allclose(found.lat, [51, 53, 55, 57])
    assert found.lat.attrs == {"units": "degrees_north"}
    assert found["mean"].attrs == {"long_name": "posterior mean of v0", "units": "K"}
    assert float(found["mean"].sel(lat=53, lon=0)) == 5
    assert found["samples"].dims == ("sample", "lat", "lon")
    assert found.level.values.tolist() == [0.25, 0.5, 0.75]
    assert (found.attrs["model"], found.attrs["seed"]) == ("kriging", 3)


def test_a_dataset_of_several_channels_or_of_points():
    pytest.importorskip("xarray")
    found = field(sf.Grid(4, 3), channels=2).to_xarray()
    assert found["mean"].dims == ("lat", "lon", "channel")
    assert found.channel.values.tolist() == ["v0", "v1"]
    points = field(sf.Points(PLACES[:2])).to_xarray()
    assert points["mean"].dims == points.lat.dims == ("point",)
    assert points.lon.values.tolist() == [-3, 1]
