"""What a place sees of many observations."""

import numpy as np
from scipy.spatial import cKDTree

from sparsefield.data import contexts
from sparsefield.data.contexts import halve, local_context


def points(count, axes=2):
    rng = np.random.default_rng(0)
    return rng.random((count, axes)), rng.standard_normal(count), rng.random(count) + 0.5


def test_the_nearest_observations_are_seen():
    coords, values, noise = points(3000)
    seen = local_context(cKDTree(coords), values, noise, np.full(2, 0.5))
    order = np.argsort(((coords - 0.5) ** 2).sum(1))[: contexts.NEAREST]
    np.testing.assert_array_equal(seen.values, values[order])
    np.testing.assert_array_equal(seen.coords, coords[order])
    np.testing.assert_array_equal(seen.noise, noise[order])


def test_few_are_all_seen():
    coords, values, noise = points(20)
    seen = local_context(cKDTree(coords), values, noise, np.zeros(2))
    assert sorted(seen.values) == sorted(values)


def test_parts_are_compact_even_and_turn_with_the_coordinates():
    coords, *_ = points(1024)
    parts = halve(coords, np.arange(1024), 16)
    assert sorted(np.concatenate(parts)) == list(range(1024))
    assert {len(part) for part in parts} <= {64}
    assert np.mean([coords[part].var(0).sum() for part in parts]) < coords.var(0).sum() / 10
    turned = halve(coords @ np.array([[0.6, -0.8], [0.8, 0.6]]), np.arange(1024), 16)
    assert {frozenset(part) for part in parts} == {frozenset(part) for part in turned}
