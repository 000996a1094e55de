"""The nearest observations of every query: a sort of all for few points, a tree for many."""

from typing import Any

import numpy as np
import torch
from numba import njit
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.nn.checks import check_tensors
from sparsefield.nn.compiled import AVAILABLE, compiled
from sparsefield.nn.scan.cpu.threads import (
    finish,
    run_in_threads,
    take_range,
    take_worker,
)

DENSE_ENTRIES = 2**24  # distances in memory at a time
TREE_POINTS = 2**12  # about where the tree overtakes the sort
TREE_QUERIES = 2**16  # asked at a time, to bound the memory
BINS = 256
BITS_IN_BIN = 49  # of the 52 in the fraction of a float64: eight bins to an octave


def nearest(
    coords: Tensor, context_coords: Tensor, valid: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    r"""Find the K = min(k, M) nearest valid context points of every query, nearest first.

    .. math:: |x_l - c_{i_{l1}}| \le |x_l - c_{i_{l2}}| \le \dots

    Distances are float64, and of two equal ones the lower index comes first, so the result does
    not depend on the method, the device or the number of threads.

    Args:
        coords: Queries x, (B, L, P).
        context_coords: Context points c, (B, M, P).
        valid: Which context points count, (B, M), bool.
        k: Neighbours wanted, at least 1.

    Returns:
        The index i of the neighbours, (B, L, K), int64, and whether there is such a neighbour,
        (B, L, K), bool: where fewer than K points are valid the last places have index 0.

    Raises:
        InputError: Shapes do not fit, `valid` is not bool, coordinates are not real floating-point
            tensors, or tensors are on several devices.
    """
    _check(coords, context_coords, valid)
    coords, context_coords = coords.detach().double(), context_coords.detach().double()
    k = min(k, context_coords.shape[1])
    if context_coords.shape[1] >= TREE_POINTS:
        return _nearest_tree(coords, context_coords, valid, k)
    if coords.device.type == "cpu" and AVAILABLE:
        return _nearest_sorted(coords, context_coords, valid, k)
    return _nearest_dense(coords, context_coords, valid, k)


def _check(coords: Tensor, context_coords: Tensor, valid: Tensor) -> None:
    """Raise InputError for what kernels would read as memory that is not theirs."""
    check_tensors("the search", {"coords": coords, "context_coords": context_coords})
    if valid.dtype != torch.bool or valid.device != coords.device:
        raise InputError(
            f"valid must be bool on {coords.device}, not {valid.dtype} on {valid.device}"
        )
    fit = (
        coords.ndim == context_coords.ndim == 3
        and coords.shape[::2] == context_coords.shape[::2]
        and context_coords.shape[:2] == valid.shape
    )
    if not fit:
        shapes = ", ".join(str(tuple(x.shape)) for x in (coords, context_coords, valid))
        raise InputError(f"coords, context_coords and valid do not fit: {shapes}")


def _nearest_dense(
    coords: Tensor, context_coords: Tensor, valid: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Sort all distances, some queries at a time: on any device."""
    chunk = max(1, DENSE_ENTRIES // max(1, valid.numel()))
    found = []
    for queries in coords.split(chunk, dim=1):
        distance = sum(
            (x[:, :, None] - c[:, None]).square()
            for x, c in zip(queries.unbind(-1), context_coords.unbind(-1), strict=True)
        )
        distance = distance.masked_fill(~valid[:, None], torch.inf)
        ordered, index = distance.sort(dim=-1, stable=True)
        reached = ordered[..., :k].isfinite()
        found.append((index[..., :k] * reached, reached))
    index, reached = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    return index, reached


def _nearest_sorted(
    coords: Tensor, context_coords: Tensor, valid: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Sort the distances of one query after the other, by bins: the fast way on processors."""
    items, length, _ = coords.shape
    index = torch.zeros(items, length, k, dtype=torch.int64)
    reached = torch.zeros(items, length, k, dtype=torch.bool)
    axes = (x.transpose(1, 2).contiguous().numpy() for x in (coords, context_coords))
    arrays = [*axes, valid.numpy(), index.numpy(), reached.numpy()]
    run_in_threads(_sort, items * length, *arrays)
    return index, reached


@compiled
def _sort(queue: Any, coords: Any, context: Any, valid: Any, index: Any, reached: Any) -> None:
    """Fill index and reached of the queries of a queue, counted over all items."""
    _, length, k = index.shape
    points = context.shape[2]
    distance, order = np.empty(points), np.empty(points, np.int32)
    bins, ends = np.empty(points, np.int32), np.empty(BINS + 1, np.int32)
    take_worker(queue)
    start, stop = take_range(queue)
    while start < stop:
        for task in range(start, stop):
            item, query = divmod(task, length)
            top = _measure(coords[item, :, query], context[item], valid[item], distance)
            _assign_bins(distance, top, bins)
            count = _sort_bins(bins, k, ends, order)
            _sort_almost_sorted(distance, order[:count])
            _take_first(distance, order, index[item, query], reached[item, query])
        finish(queue, stop - start)
        start, stop = take_range(queue)


@njit
def _take_first(distance: Any, order: Any, index: Any, reached: Any) -> None:
    """Fill the first neighbours of a query, as far as there are any."""
    for j in range(index.size):
        if distance[order[j]] < np.inf:
            index[j] = order[j]
            reached[j] = True


@njit
def _measure(point: Any, context: Any, valid: Any, distance: Any) -> float:
    """Fill in the squared distances (M,) from a point (P,) to the context (P, M).

    Those of invalid points are infinite. Return the largest finite one.
    """
    distance[:] = 0.0
    for axis in range(context.shape[0]):
        for m in range(distance.size):
            distance[m] += (context[axis, m] - point[axis]) ** 2
    top = 0.0
    for m in range(distance.size):
        near = valid[m] and distance[m] < np.inf
        top = max(top, distance[m] if near else 0.0)
        distance[m] = distance[m] if near else np.inf
    return top


@njit
def _assign_bins(distance: Any, top: float, bins: Any) -> None:
    """Number the bins of the distances: eight to an octave below the top, the last for infinity.

    The bits of a positive float, read as an integer, are a piecewise linear logarithm.
    """
    bits = distance.view(np.int64)
    top_bits = np.array([top]).view(np.int64)[0]
    for m in range(bins.size):
        below = (top_bits - bits[m]) >> BITS_IN_BIN
        bins[m] = min(max(BINS - 1 - below, 0), BINS)


@njit
def _sort_bins(bins: Any, k: int, ends: Any, order: Any) -> int:
    """Order the points by bin, then number; return how many lie in the first bins that hold k."""
    ends[:] = 0
    for m in range(bins.size):
        ends[bins[m]] += 1
    count = total = 0
    for i in range(ends.size):
        first, total = total, total + ends[i]
        ends[i] = first
        if first < k:
            count = total
    for m in range(bins.size):
        order[ends[bins[m]]] = m
        ends[bins[m]] += 1
    return count


@njit
def _sort_almost_sorted(distance: Any, order: Any) -> None:
    """Finish sorting by distance; equals stay as they are."""
    for i in range(1, order.size):
        m, j = order[i], i
        while j > 0 and distance[order[j - 1]] > distance[m]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = m


def _nearest_tree(
    coords: Tensor, context_coords: Tensor, valid: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Ask a k-d tree of the valid points of every item."""
    index = torch.zeros(*coords.shape[:2], k, dtype=torch.int64)
    reached = torch.zeros(*coords.shape[:2], k, dtype=torch.bool)
    for item in range(len(coords)):
        numbers = valid[item].nonzero().squeeze(-1).cpu()
        found = min(k, len(numbers))
        if not found:
            continue
        tree = cKDTree(context_coords[item].cpu()[numbers].numpy())
        for start in range(0, coords.shape[1], TREE_QUERIES):
            here = slice(start, start + TREE_QUERIES)
            order = _ask_tree(tree, coords[item, here].cpu().numpy(), found, 3 * found // 2 + 1)
            index[item, here, :found] = numbers[torch.from_numpy(order)]
            reached[item, here, :found] = True
    return index.to(coords.device), reached.to(coords.device)


def _ask_tree(tree: cKDTree, points: np.ndarray, k: int, asked: int) -> np.ndarray:
    """Return the numbers (L, k) of the nearest points in the tree, of equals the lower ones first.

    A tree returns any of the points that tie for the last place. Therefore it is asked for more
    than k, and again for twice as many where the last one is no farther than the k-th.
    """
    asked = min(asked, tree.n)
    workers = torch.get_num_threads()
    _, candidates = tree.query(points, range(1, asked + 1), workers=workers)
    candidates = np.sort(candidates, axis=1)
    offsets = tree.data[candidates] - points[:, None]
    distance = sum(offsets[..., axis] ** 2 for axis in range(points.shape[1]))
    rank = np.argsort(distance, axis=1, kind="stable")
    order = np.take_along_axis(candidates, rank[:, :k], axis=1)
    last, kth = (np.take_along_axis(distance, rank[:, [i]], axis=1)[:, 0] for i in (-1, k - 1))
    unsure = last <= kth * (1 + 1e-12)  # the tree rounds its sums differently
    if asked < tree.n and unsure.any():
        order[unsure] = _ask_tree(tree, points[unsure], k, 2 * asked)
    return order
