import itertools

import numpy as np
import pytest
import torch

from sparsefield.nn import neighbours
from sparsefield.nn.neighbours import nearest

METHODS = {
    "sorted": neighbours._nearest_sorted,
    "dense": neighbours._nearest_dense,
    "tree": neighbours._nearest_tree,
}


def scattered(seed=0):
    generator = torch.Generator().manual_seed(seed)
    coords, context = (torch.rand(2, n, 3, generator=generator) for n in (63, 41))
    return coords, context, torch.rand(2, 41, generator=generator) < 0.7


def gridded():
    """Points of a coarse grid, most distances of which tie, several points in one place."""
    generator = torch.Generator().manual_seed(0)
    coords, context = (torch.randint(8, (2, n, 2), generator=generator) / 4 for n in (63, 150))
    return coords, context, torch.rand(2, 150, generator=generator) < 0.7


def brute_force(coords, context, valid, k):
    """The definition, spelled out in numpy."""
    k = min(k, context.shape[1])
    index = np.zeros((*coords.shape[:2], k), np.int64)
    reached = np.zeros(index.shape, bool)
    for b, n in itertools.product(*map(range, coords.shape[:2])):
        offsets = context[b].double().numpy() - coords[b, n].double().numpy()
        distance = (offsets**2).sum(-1)
        order = [m for m in np.argsort(distance, kind="stable") if valid[b, m]][:k]
        index[b, n, : len(order)], reached[b, n, : len(order)] = order, True
    return torch.from_numpy(index), torch.from_numpy(reached)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("points", [scattered, gridded])
@pytest.mark.parametrize("k", [1, 7, 1000])
def test_every_method_finds_the_nearest_with_ties_by_index(method, points, k):
    coords, context, valid = points()
    k = min(k, context.shape[1])
    found = METHODS[method](coords.double(), context.double(), valid, k)
    for got, expected in zip(found, brute_force(coords, context, valid, k), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("method", METHODS)
def test_too_few_valid_points_leave_places_unreached(method, monkeypatch):
    coords, context, valid = scattered()
    valid[0], valid[1, 3:] = False, False
    valid[1, 1] = True
    index, reached = METHODS[method](coords.double(), context.double(), valid, 5)
    assert not reached[0].any() and not index[0].any()
    assert torch.equal(reached.sum(-1)[1], valid[1].sum().expand(63))
    assert not index[~reached].any()


def test_more_neighbours_than_points():
    index, reached = nearest(*scattered(), 50)
    assert index.shape == reached.shape == (2, 63, 41)
    assert index.dtype == torch.int64


def test_nearest_first_and_without_gradient():
    coords, context, valid = scattered()
    index, reached = nearest(coords.requires_grad_(), context, valid, 9)
    neighbours = context[torch.arange(2)[:, None, None], index]
    distance = (coords[:, :, None] - neighbours).norm(dim=-1)
    assert reached.all()
    assert (distance.diff(dim=-1) >= 0).all()


def test_values_at_invalid_points_do_not_matter():
    coords, context, valid = scattered()
    expected = nearest(coords, context, valid, 9)
    context[~valid] = torch.nan
    for got, want in zip(nearest(coords, context, valid, 9), expected, strict=True):
        assert torch.equal(got, want)


def test_distances_of_any_scale():
    """One far point must not blur the order of all near ones."""
    coords, context, valid = scattered()
    context[:, :20] *= 1e-9
    context[:, -1] = 1e9
    found = nearest(coords, context, valid, 30)
    for got, expected in zip(found, brute_force(coords, context, valid, 30), strict=True):
        assert torch.equal(got, expected)


def test_many_points_use_the_tree_with_the_same_result(monkeypatch):
    expected = nearest(*gridded(), 11)
    monkeypatch.setattr(neighbours, "TREE_POINTS", 100)
    for got, want in zip(nearest(*gridded(), 11), expected, strict=True):
        assert torch.equal(got, want)


def test_chunks_of_queries_do_not_change_the_dense_result(monkeypatch):
    coords, context, valid = scattered()
    expected = neighbours._nearest_dense(coords, context, valid, 6)
    monkeypatch.setattr(neighbours, "DENSE_ENTRIES", 500)
    for got, want in zip(
        neighbours._nearest_dense(coords, context, valid, 6), expected, strict=True
    ):
        assert torch.equal(got, want)


def test_no_points_at_all():
    index, reached = nearest(torch.rand(2, 5, 3), torch.rand(2, 0, 3), torch.ones(2, 0) > 0, 4)
    assert index.shape == reached.shape == (2, 5, 0)
