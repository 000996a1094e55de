"""What a place sees of many observations."""

import numpy as np
from scipy.spatial import cKDTree

from sparsefield.data import contexts
from sparsefield.data.contexts import halve, local_context, whole_context


def points(count=3000, axes=2):
    rng = np.random.default_rng(0)
    return rng.random((count, axes)), rng.standard_normal(count), rng.random(count) + 0.5


def test_near_observations_are_single_and_all_within_reach_count_once():
    coords, values, noise = points()
    seen = local_context(cKDTree(coords), values, noise, np.full(2, 0.5))
    order = np.argsort(((coords - 0.5) ** 2).sum(1))
    reach = contexts.SINGLE + sum(size * groups for size, groups in contexts.RINGS)
    assert (seen.count == 1).sum() == contexts.SINGLE
    assert seen.count.sum() == reach
    np.testing.assert_array_equal(seen.values[: contexts.SINGLE], values[order[: contexts.SINGLE]])
    total = (seen.count * seen.values).sum()
    np.testing.assert_allclose(total, values[order[:reach]].sum())
    assert (seen.radius[seen.count == 1] == 0).all()


def test_the_noise_of_a_group_is_that_of_a_mean():
    coords, values, noise = points()
    seen = local_context(cKDTree(coords), values, np.ones_like(noise), np.full(2, 0.5))
    np.testing.assert_allclose(seen.noise, 1 / seen.count)


def test_groups_turn_with_the_coordinates():
    coords, values, noise = points()
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    seen = local_context(cKDTree(coords), values, noise, np.full(2, 0.5))
    turned = local_context(cKDTree(coords @ turn), values, noise, np.full(2, 0.5) @ turn)
    np.testing.assert_allclose(np.sort(seen.values), np.sort(turned.values), atol=1e-12)


def test_parts_are_compact_and_even():
    coords, *_ = points(1000)
    parts = halve(coords, np.arange(1000), 16)
    assert sorted(np.concatenate(parts)) == list(range(1000))
    assert {len(part) for part in parts} <= {62, 63}
    assert np.mean([coords[part].var(0).sum() for part in parts]) < coords.var(0).sum() / 10


def test_few_are_seen_whole():
    coords, values, noise = points(20)
    seen = whole_context(coords, values, noise)
    np.testing.assert_array_equal(seen.values, values)
    assert (seen.count == 1).all()
