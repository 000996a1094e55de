"""Where a field is wanted."""

import numpy as np
import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.frame import Frame
from sparsefield.data.grids import cell_centres
from sparsefield.data.query import Grid, Points, check_query


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (2, 3, 4, 5)])
def test_a_grid_of_any_dimension_has_the_centres_of_its_cells(shape):
    grid = Grid(*shape)
    assert grid.shape == shape
    assert (len(grid), grid.dims) == (np.prod(shape), len(shape))
    assert torch.equal(grid.coords, cell_centres(shape))
    assert grid == Grid(shape) == Grid(np.array(shape)) != Grid(*shape, native=True)
    assert len({grid, Grid(list(shape))}) == 1


def test_a_grid_shows_the_call_that_makes_it():
    assert repr(Grid(64, 48)) == "Grid(64, 48)"
    assert repr(Grid(64, 48, native=True)) == "Grid(64, 48, native=True)"


@pytest.mark.parametrize("shape", [(), (0, 4), (3, -1), (2.5, 4), ("a", 4), ((3, 4), 5), (None,)])
def test_what_is_no_grid_is_one_line(shape):
    with pytest.raises(InputError) as error:
        Grid(*shape)
    assert "\n" not in str(error.value)


def test_points_are_taken_from_any_array():
    given = np.random.default_rng(0).uniform(-1, 1, (7, 3))
    for coords in (given, torch.from_numpy(given), given.tolist(), given[::-1][::-1]):
        points = Points(coords)
        torch.testing.assert_close(points.coords, torch.from_numpy(given).float())
    assert repr(points) == "Points(7 points, 3-D)"
    assert (len(points), points.dims, points.shape) == (7, 3, None)


@pytest.mark.parametrize(
    ("coords", "message"),
    [
        ([[0.0, 1.5]], r"1 of 1 points lie outside \[-1, 1\], the first at \(0, 1.5\)"),
        ([[0.0, float("nan")]], "coords hold NaN"),
        ([0.0, 0.5], r"expected shape \(L, P\)"),
        (np.zeros((0, 2)), "at least one point"),
        ([["a", "b"]], "real numbers"),
    ],
)
def test_points_that_are_none_are_one_line(coords, message):
    with pytest.raises(InputError, match=message) as error:
        check_query(Points(coords))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("at", [(3, 4), 7, "grid", [[0.1, 0.2]]])
def test_anything_else_is_no_query(at):
    with pytest.raises(InputError, match=r"sf.Grid.64, 64. or at sf.Points"):
        check_query(at)


DEGREES = Frame(("lat", "lon"), (50, -10), (58, 2))


def test_points_are_in_the_units_of_the_frame():
    given = np.array([[50.0, 2.0], [54.0, 356.0]])
    points = check_query(Points(given), DEGREES)
    torch.testing.assert_close(points.coords, torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))
    assert np.array_equal(points.physical, given)
    assert points.within(DEGREES) is points
    with pytest.raises(InputError, match="at lat 59, lon 0; it has lat from 50 to 58 degrees_no"):
        check_query(Points([[59, 0]]), DEGREES)
    with pytest.raises(InputError, match="Points.1 point, 3-D. has 3 dimensions; .*: lat, lon"):
        check_query(Points([[59, 0, 1]]), DEGREES)


def test_a_grid_covers_the_domain_of_the_frame():
    grid = check_query(Grid(4, 3), DEGREES)
    np.testing.assert_allclose(grid.axes[0], [51, 53, 55, 57])
    np.testing.assert_allclose(grid.axes[1], [-8, -4, 0])
    assert torch.equal(grid.coords, cell_centres((4, 3)))
    np.testing.assert_allclose(DEGREES.to_physical(grid.coords), grid.physical, atol=1e-5)
    assert grid.within(DEGREES) is grid and grid != Grid(4, 3)


def test_a_spacing_gives_its_multiples_within_the_domain():
    grid = check_query(Grid.spaced(2.5, 4), DEGREES)
    assert grid.shape == (4, 3) and len(grid) == 12
    assert grid.axes[0].tolist() == [50, 52.5, 55, 57.5]
    assert grid.axes[1].tolist() == [-8, -4, 0]
    assert check_query(Grid.spaced(3), DEGREES).axes[1].tolist() == [-9, -6, -3, 0]
    for frame, words in ((None, "in units of a frame"), (DEGREES.covering([[50, 2]]), "smaller")):
        with pytest.raises(InputError, match=words):
            check_query(Grid.spaced(400), frame)
    with pytest.raises(InputError, match="finite steps above 0"):
        Grid.spaced(0)
    with pytest.raises(InputError, match="has cells where the observations have a frame"):
        len(Grid.spaced(1))
    with pytest.raises(InputError, match="has 3 dimensions; the observations have 2: lat, lon"):
        check_query(Grid.spaced(1, 2, 3), DEGREES)
    with pytest.raises(InputError, match="an axis lat with a spacing of 1e-12 would take .* TiB"):
        check_query(Grid.spaced(1e-12), DEGREES)


def test_a_grid_is_like_another_field_whatever_the_order_and_turn_of_its_axes():
    axes = {"Longitude": np.array([350.0, 352, 355]), "LATITUDE": [57.0, 52.0]}
    grid = check_query(Grid.like(axes), DEGREES)
    assert grid.shape == (2, 3)
    torch.testing.assert_close(grid.coords[0], torch.tensor([0.75, -1.0]))
    torch.testing.assert_close(grid.coords[-1], torch.tensor([-0.5, -1 / 6]))
    assert grid.within(DEGREES) is grid
    with pytest.raises(InputError, match="lacks the axis 'lat' .*; it has x, lon"):
        check_query(Grid.like({"x": [1.0], "lon": [0.0]}), DEGREES)
    with pytest.raises(InputError, match="outside the domain"):
        check_query(Grid.like({"lat": [40.0, 50], "lon": [0.0]}), DEGREES)
    for x, words in (([1, 1], "repeats positions"), ([1, 3, 2], "neither rises nor falls"),
                     ([np.nan], "finite"), ([[1]], "shape"), (["a"], "text")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            Grid.like({"lat": x, "lon": [0.0]})
    with pytest.raises(InputError, match="not from int"):
        Grid.like(3)


def test_a_grid_is_like_an_array_of_xarray():
    xarray = pytest.importorskip("xarray")
    axes = {"time": [0], "lon": [0.0, 1.0], "lat": [55.0, 54.0, 50.0]}
    array = xarray.DataArray(np.zeros((1, 2, 3)), coords=axes, dims=list(axes))
    assert check_query(Grid.like(array), DEGREES).shape == (3, 2)
    assert check_query(Grid.like(array.to_dataset(name="t")), DEGREES).shape == (3, 2)
