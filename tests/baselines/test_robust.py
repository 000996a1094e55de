"""Points nearly at one place or on a line: predictions stay bounded, and say what was done."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefield.baselines.points import BaselineWarning
from sparsefield.baselines.registry import available_baselines, reconstruct_baseline
from sparsefield.data.grids import cell_centres

NAMES = available_baselines(2, on_grid=False)
GRID = cell_centres((7, 9)).double().numpy()


def quiet(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BaselineWarning)
        return reconstruct_baseline(*arguments, **options)


def layout(kind, exponent, seed):
    """Return points in the plane that are nearly degenerate, by 10^-exponent."""
    rng = np.random.default_rng(seed)
    coords, small = rng.uniform(-1, 1, (12, 2)), 10.0**-exponent
    if kind == "pairs":
        return np.vstack([coords, coords + small * rng.normal(size=coords.shape)])
    if kind == "line":
        coords[:, 1] = 0.3 * coords[:, 0] + small * rng.normal(size=12)
    if kind == "triple":
        coords = np.vstack([coords, coords[:1] + np.array([[small, 0], [2 * small, small**2]])])
    if kind == "cluster":
        coords = np.vstack([coords[:3], small * coords])
    return coords


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.sampled_from(["pairs", "line", "triple", "cluster"]),
    st.floats(0.5, 17),
    st.integers(0, 10**6),
)
def test_predictions_stay_within_reach_of_the_data(name, kind, exponent, seed):
    coords = layout(kind, exponent, seed)
    values = np.random.default_rng(seed).choice([-1.0, 1.0], (len(coords), 1))
    found = quiet(name, coords, values, GRID)
    # Twice the range of the values for overshoot, as much for each radius away from the points.
    centre = coords.mean(axis=0)
    radius = np.sqrt(((coords - centre) ** 2).sum(axis=1).mean())
    away = np.linalg.norm(GRID - centre, axis=1, keepdims=True) / radius
    bound = 2 * 2 * (1 + away) + 1e-6
    assert (np.abs(found.mean) <= bound).all()
    assert found.std is None or (np.isfinite(found.std).all() and (found.std <= bound).all())


@pytest.mark.parametrize("name", ["linear", "cubic", "tps"])
def test_points_a_hair_apart_are_one_place_and_a_warning_says_that_they_differ(name):
    rng = np.random.default_rng(0)
    coords = rng.uniform(-1, 1, (20, 2))
    values = rng.uniform(-1, 1, (20, 1))
    twin = np.vstack([coords, coords[:1] + np.array([[1e-7, 0]])])
    with pytest.warns(BaselineWarning, match="values differ at 1 place .*state their noise"):
        found = reconstruct_baseline(name, twin, np.vstack([values, values[:1] + 1]), GRID)
    assert "values differ at 1 place" in found.note
    values[0] += 0.5
    np.testing.assert_allclose(
        found.mean, reconstruct_baseline(name, coords, values, GRID).mean, atol=1e-5
    )


@pytest.mark.parametrize("name", ["linear", "cubic", "tps"])
def test_what_lies_on_a_line_is_interpolated_along_it(name):
    along = np.linspace(-1, 1, 9)[:, None]
    direction = np.array([[0.6, 0.8]])
    with pytest.warns(BaselineWarning, match="nearly on a line"):
        found = reconstruct_baseline(name, along @ direction, 3 * along, GRID)
    inside = np.abs(GRID @ direction.T) <= 1
    np.testing.assert_allclose(found.mean[inside], 3 * (GRID @ direction.T)[inside], atol=1e-9)


@pytest.mark.parametrize("name", ["linear", "cubic", "tps"])
def test_a_plane_in_space_is_interpolated_within_it(name):
    if name == "cubic":
        pytest.skip("cubic knows no 3-D points")
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(3, 2)))[0].T
    flat = rng.uniform(-1, 1, (40, 2))
    with pytest.warns(BaselineWarning, match="nearly on a plane"):
        found = reconstruct_baseline(name, flat @ axes, flat @ [[2.0], [1.0]], 0.1 * axes)
    np.testing.assert_allclose(found.mean[:, 0], [0.2, 0.1], atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_points_bring_no_note(name):
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coords, values = rng.uniform(-1, 1, (30, 2)), rng.normal(size=(30, 2))
        assert reconstruct_baseline(name, coords, values, GRID).note == ""


def test_one_measurement_gives_no_standard_deviation_and_says_so():
    with pytest.warns(BaselineWarning, match="one measurement says nothing"):
        found = reconstruct_baseline("kriging", np.zeros((1, 2)), np.ones((1, 1)), GRID + 0.01)
    np.testing.assert_array_equal(found.mean, 1)
    assert np.isnan(found.std).all()


def test_repeats_of_equal_value_are_silent():
    coords = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    values = np.sin(coords[:, :1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = reconstruct_baseline(
            "tps", np.vstack([coords, coords]), np.vstack([values, values]), GRID
        )
    np.testing.assert_allclose(
        found.mean, reconstruct_baseline("tps", coords, values, GRID).mean, atol=1e-9
    )
