"""Tasks that the tests of the baselines share."""

import numpy as np
import pytest

from sparsefield.baselines.registry import BASELINES, available_baselines
from sparsefield.data.grids import cell_centres

SHAPES = {1: (60,), 2: (9, 11), 3: (5, 6, 7)}


def cases(grids):
    """Return (name, dims) of every baseline that can run; those of other packages are slow."""
    return [
        pytest.param(name, dims, marks=[pytest.mark.slow] * BASELINES[name].peer)
        for dims in SHAPES
        for name in available_baselines(dims, grids, peers=True)
    ]


CASES, SCATTERED = cases(True), cases(False)


def on_grid(dims, channels=5, seed=0):
    """Return a random field observed at 40 % of a grid: coordinates, values, all points."""
    grid = cell_centres(SHAPES[dims]).double().numpy()
    rng = np.random.default_rng(seed)
    observed = rng.permutation(len(grid))[: 2 * len(grid) // 5]
    return grid[observed], rng.normal(size=(len(observed), channels)), grid


def scattered(dims, channels=3, count=37, seed=0):
    """Return a smooth noisy field at random points, and other points: coords, values, query."""
    rng = np.random.default_rng(seed)
    coords, query = rng.uniform(-1, 1, (count, dims)), rng.uniform(-1, 1, (23, dims))
    waves = rng.normal(size=(dims, channels))
    values = np.sin(2 * coords @ waves + np.arange(channels))
    return coords, values + 0.1 * rng.normal(size=values.shape), query
