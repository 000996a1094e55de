"""What must not matter to a baseline: units, order, orientation, and scale of the coordinates.

Tolerances are in standard deviations of the values. They allow for float64: values of 1e-3 beside
an offset of 1e5 carry 1e-8 of their deviation in rounding, of which a nearly singular system makes
more.
"""

import numpy as np
import pytest
from tests.baselines.tasks import CASES, SCATTERED, on_grid, scattered

from sparsefield.baselines.registry import BASELINES, reconstruct_baseline

# scipy estimates the gradients of its cubics to 1e-6 and in the order of the points; other
# packages climb likelihoods of their own to about 1e-5.
TOLERANCE = {"cubic": 1e-4, "sklearn_gp": 2e-2, "pykrige": 2e-2}


def close(found, expected, name, scale=1.0):
    """Assert that predictions agree, deviations included."""
    tolerance = TOLERANCE.get(name, 1e-6)
    np.testing.assert_allclose(found.mean / scale, expected.mean / scale, atol=tolerance)
    assert (found.std is None) == (expected.std is None)
    for each in ("std", "field_std"):
        if getattr(found, each) is not None:
            pair = (getattr(x, each) / scale for x in (found, expected))
            np.testing.assert_allclose(*pair, atol=tolerance)


def mapped(prediction, scale, offset):
    """Return a prediction in other units."""
    deviations = {
        each: value * np.abs(scale)
        for each in ("std", "field_std")
        if (value := getattr(prediction, each)) is not None
    }
    return prediction._replace(mean=prediction.mean * scale + offset, **deviations)


UNITS = [
    (1.0, 273.15),  # Celsius to Kelvin
    (1e-3, 1e5),
    (1e6, -1e6),
    (-1.0, 0.0),
    (np.array([1e-6, 1.0, 1e3]), np.array([5.0, -1e4, 0.0])),  # each channel its own
]


@pytest.mark.parametrize(("scale", "offset"), UNITS)
@pytest.mark.parametrize(("name", "dims"), CASES)
def test_units_and_offsets_change_nothing_else(name, dims, scale, offset):
    coords, values, query = on_grid(dims, channels=3)
    base = reconstruct_baseline(name, coords, values, query)
    found = reconstruct_baseline(name, coords, values * scale + offset, query)
    close(found, mapped(base, scale, offset), name, scale)


def test_kriging_of_float32_sized_offsets_keeps_its_deviation():
    """The case of the report: 1e-3 of a field plus 1e5 had 14.7 times the deviation."""
    coords, values, query = scattered(2)
    base = reconstruct_baseline("kriging", coords, values, query)
    found = reconstruct_baseline("kriging", coords, 1e-3 * values + 1e5, query)
    np.testing.assert_allclose(found.std, 1e-3 * base.std, rtol=1e-5)
    np.testing.assert_allclose(found.mean, 1e-3 * base.mean + 1e5, atol=1e-9)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_the_order_of_channels_does_not_matter(name, dims):
    coords, values, query = on_grid(dims)
    order = [3, 0, 4, 1, 2]
    base = reconstruct_baseline(name, coords, values, query)
    found = reconstruct_baseline(name, coords, values[:, order], query)
    expected = {
        each: value[:, order]
        for each in ("mean", "std", "field_std")
        if (value := getattr(base, each)) is not None
    }
    close(found, base._replace(**expected), name)


@pytest.mark.parametrize(("name", "dims"), SCATTERED)
def test_the_order_of_rows_does_not_matter(name, dims):
    coords, values, query = scattered(dims)
    order = np.random.default_rng(1).permutation(len(coords))
    base = reconstruct_baseline(name, coords, values, query)
    close(reconstruct_baseline(name, coords[order], values[order], query), base, name)


@pytest.mark.parametrize("move", ["axes", "rotation", "reflection", "zoom", "shift"])
@pytest.mark.parametrize(("name", "dims"), SCATTERED)
def test_the_frame_of_the_coordinates_does_not_matter(name, dims, move):
    """Every baseline here is isotropic, and takes lengths from the points themselves."""
    if name == "pykrige" and move == "zoom":
        pytest.skip("PyKrige's least squares start from fixed lengths")
    coords, values, query = scattered(dims)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(dims, dims)))[0]
    moved = {
        "axes": lambda x: x[:, ::-1],
        "rotation": lambda x: x @ turn,
        "reflection": lambda x: x * ([-1] + [1] * (dims - 1)),
        "zoom": lambda x: 12_000 * x,
        "shift": lambda x: x + 3.5,
    }[move]
    base = reconstruct_baseline(name, coords, values, query)
    close(reconstruct_baseline(name, moved(coords), values, moved(query)), base, name)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_constants_stay_beside_channels_that_vary(name, dims):
    coords, values, query = on_grid(dims, channels=2)
    alone = reconstruct_baseline(name, coords, values, query)
    both = reconstruct_baseline(
        name, coords, np.column_stack([values, np.full(len(values), 273.1)]), query
    )
    np.testing.assert_allclose(both.mean[:, 2], 273.1, rtol=1e-12)
    found = {
        each: value[:, :2]
        for each in ("mean", "std", "field_std")
        if (value := getattr(both, each)) is not None
    }
    close(both._replace(**found), alone, name)
    if name == "kriging":
        np.testing.assert_array_equal(both.std[:, 2], 0)


@pytest.mark.filterwarnings("ignore::sparsefield.baselines.points.BaselineWarning")
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("name", "dims"), SCATTERED)
def test_few_points_give_a_field_within_reach_of_their_values(name, dims, count):
    coords, _, query = scattered(dims)
    values = np.arange(1.0, 1 + count)[:, None]
    found = reconstruct_baseline(name, coords[:count], values, np.vstack([coords[:count], query]))
    np.testing.assert_allclose(found.mean[:count], values)
    assert np.abs(found.mean - values.mean()).max() <= 20 * np.ptp(values)


def test_every_baseline_is_covered():
    """The registry is what the tests above loop over; only peers may be missing."""
    assert {case.values[0] for case in CASES} >= {
        n for n, each in BASELINES.items() if not each.peer
    }
