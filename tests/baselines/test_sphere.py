"""Linear interpolation on a sphere with a third axis, and of many stations."""

import time

import numpy as np
import pytest

from sparsefield.baselines.registry import reconstruct_baseline
from sparsefield.data.frame import Frame

RADIUS = 6371.0


def spread(count):
    """Return unit vectors (N, 3) at about equal distances."""
    turns = np.pi * (1 + 5**0.5) * np.arange(count)
    z = 1 - (2 * np.arange(count) + 1) / count
    flat = np.sqrt(1 - z**2)
    return np.stack([flat * np.cos(turns), flat * np.sin(turns), z], axis=1)


def anywhere(count, last, seed=0):
    """Return random places (N, 4) of the unit sphere, and times from 0 to the last."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(count, 3))
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    return np.column_stack([places, rng.uniform(0, last, count)])


def linear(coords, values, query):
    return reconstruct_baseline("linear", coords, values, query).mean


def test_weights_of_four_corners_are_those_found_by_hand():
    """Around the middle of the times, the query is 0.1 a + b + c + 0.9 d over a root of 3."""
    a, b, c = np.eye(4)[:3]
    far, late = np.array([*-np.full(3, 3**-0.5), 1.0]), np.array([1.0, 0, 0, 2])
    coords, values = np.stack([a, b, c, late, far]), np.array([[30.0], [3], [6], [10], [-99]])
    query = np.array([[1, 1, 1, 0.9 - 0.1 - 1 - 1]]) / 3**0.5 + [0, 0, 0, 1]
    expected = (0.1 * 30 + 3 + 6 + 0.9 * 10) / 3
    assert linear(coords, values, query)[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize("last", [0.1, 1.0, 5.0])
def test_no_rotation_turn_of_time_or_unit_matters(last):
    coords, query = anywhere(80, last), anywhere(200, last, seed=1)
    values = np.random.default_rng(2).normal(size=(80, 2))
    found = linear(coords, values, query)
    assert (found >= values.min(0)).all() and (found <= values.max(0)).all()
    turn = np.eye(4)
    turn[:3, :3] = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turn[3, 3] = -1
    moved = (RADIUS * (x @ turn) + [0, 0, 0, 1e4] for x in (coords, query))
    coords, query = moved
    np.testing.assert_allclose(linear(coords, values, query), found, atol=1e-6)
    np.testing.assert_allclose(linear(coords, values, coords[:9]), values[:9], atol=1e-9)


@pytest.mark.parametrize("last", [0.1, 1.0, 5.0])
def test_halving_all_spacings_divides_the_error_by_four(last):
    """Maps of the first and the last time are inside, as those between."""

    def field(x):
        return (np.exp(x[:, :3] @ [0.5, -1, 0.3]) * np.cos(3 * x[:, 3] / last))[:, None]

    query = anywhere(2000, last)
    query[:200, 3], query[200:400, 3] = 0, last
    error = []
    for stations, times in ((200, 9), (800, 17)):
        coords = np.array([[*p, t] for p in spread(stations) for t in np.linspace(0, last, times)])
        miss = linear(coords, field(coords), query) - field(query)
        error.append([np.sqrt((part**2).mean()) for part in (miss[:400], miss[400:])])
    ratio = np.divide(*error)
    assert (ratio > 3.2).all() and (ratio < 4.8).all()


def test_a_grid_of_latitudes_longitudes_and_days_is_linear_up_to_the_height_of_its_arcs():
    """What is linear in space and time misses by 1 - cos of the circles around its triangles."""
    frame = Frame(("time", "lat", "lon"), (0, -90, -180), (10, 90, 180)).scaled(time=500.0)
    assert frame.geometry == "sphere"
    days = np.meshgrid(range(11), np.arange(-80, 81, 10), np.arange(-180, 180, 10), indexing="ij")
    rng = np.random.default_rng(0)
    inner = rng.uniform([0, -80, -180], [10, 80, 180], (3000, 3))
    places = (np.stack(days, -1).reshape(-1, 3), inner)
    coords, query = (frame.positions(frame.to_unit(x)) for x in places)
    middle = [0, 0, 0, 2500]
    miss = linear(coords, coords - middle, query) - (query - middle)
    share = 1 - np.cos(np.radians(np.hypot(5, 5)))
    size = np.abs(query - middle)
    assert (np.abs(miss) <= 1.05 * share * size + 1e-3).mean() > 0.99
    assert (np.abs(miss) > 0.2 * share * size).any()


@pytest.mark.parametrize("dims", [3, 4])
def test_many_stations_take_seconds(dims):
    coords, query = (anywhere(n, 1.0, seed)[:, :dims] for n, seed in ((10_000, 0), (5000, 1)))
    start = time.process_time()
    miss = linear(coords, coords[:, :1], query) - query[:, :1]
    assert time.process_time() - start < 20
    assert np.sqrt((miss**2).mean()) < 0.02
