import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsefield.core.errors import InputError
from sparsefield.data import masks
from sparsefield.data.masks import (
    SPLIT_CODES,
    MaskSet,
    observed_count,
    observed_indices,
    permutation,
    target_indices,
    verify_masks,
)

ITEMS = st.tuples(
    st.integers(2, 300),
    st.floats(0.001, 0.999),
    st.integers(0, 2**31),
    st.sampled_from(sorted(SPLIT_CODES)),
    st.integers(0, 10**6),
)


def test_masks_are_those_of_the_published_protocol():
    expected = np.random.default_rng([0, 1, 7]).permutation(1024)[:204]
    np.testing.assert_array_equal(observed_indices(1024, 0.2, 0, "validation", 7), expected)
    assert MaskSet(items=20).digest() == "c55185de8bc7c207"


@pytest.mark.parametrize(
    ("n", "density", "count"), [(1024, 0.2, 204), (100, 0.29, 29), (7, 1.0, 7), (1000, 1e-4, 1)]
)
def test_observed_count_is_the_baseline_and_at_least_one(n, density, count):
    assert observed_count(n, density) == count


@pytest.mark.parametrize("density", [0.0, -0.1, 1.01, float("nan")])
def test_density_outside_its_range_is_an_error(density):
    with pytest.raises(InputError, match=r"density must be in \(0, 1\]"):
        observed_count(10, density)


@given(ITEMS)
def test_observations_are_distinct_points_and_disjoint_targets_avoid_them(item):
    n = item[0]
    observed = observed_indices(*item)
    targets = target_indices(*item, "disjoint")
    assert len(np.unique(observed)) == len(observed) == observed_count(n, item[1])
    assert len(targets) == min(len(observed), n - len(observed))
    both = np.concatenate([observed, targets])
    assert len(np.unique(both)) == len(both)
    assert both.min() >= 0 and both.max() < n


@given(ITEMS)
def test_masks_of_lower_density_are_nested(item):
    n, density, *key = item
    sparse = observed_indices(n, density / 2, *key)
    np.testing.assert_array_equal(sparse, observed_indices(n, density, *key)[: len(sparse)])


def test_all_targets_are_all_points():
    np.testing.assert_array_equal(target_indices(5, 0.4, 0, "train", 0, "all"), range(5))


def test_split_seed_and_index_each_change_the_mask():
    base = permutation(64, 0, "train", 0)
    for other in ((64, 1, "train", 0), (64, 0, "test", 0), (64, 0, "train", 1)):
        assert not np.array_equal(base, permutation(*other))


def test_unknown_names_list_the_choices():
    with pytest.raises(InputError, match="test, train, validation"):
        permutation(8, 0, "val", 0)
    with pytest.raises(InputError, match="all, disjoint"):
        target_indices(8, 0.5, 0, "train", 0, "rest")


def test_no_disjoint_target_is_left_when_all_points_are_observed():
    with pytest.raises(InputError, match="none is left"):
        target_indices(8, 1.0, 0, "train", 0, "disjoint")


def failures():
    return {check.name for check in verify_masks(MaskSet(n=64, items=200)) if not check.passed}


def test_verification_passes_and_explains_itself():
    results = verify_masks(MaskSet(n=64, items=200))
    assert len(results) == 5
    assert all(check.passed and check.detail for check in results)


def test_verification_catches_masks_that_depend_on_the_order_of_drawing(monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(masks, "permutation", lambda n, *_: rng.permutation(n))
    found = failures()
    assert {"same in another process", "same in any order"} <= found


def test_verification_catches_masks_that_are_not_uniform(monkeypatch):
    def lopsided(n, seed, split, index):
        order = permutation(n, seed, split, index)
        return np.concatenate([order[order < n // 2], order[order >= n // 2]])

    monkeypatch.setattr(masks, "permutation", lopsided)
    assert "uniform coverage" in failures()


def test_verification_catches_repeated_points(monkeypatch):
    monkeypatch.setattr(masks, "permutation", lambda n, *_: np.zeros(n, dtype=int))
    assert {"exact count", "targets disjoint from observations"} <= failures()
