"""Where a field is wanted."""

import numpy as np
import pytest
import torch

from sparsefield.core.errors import InputError
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
        Points(coords)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("at", [(3, 4), 7, "grid", [[0.1, 0.2]]])
def test_anything_else_is_no_query(at):
    with pytest.raises(InputError, match=r"sf.Grid.64, 64. or at sf.Points"):
        check_query(at)
