"""The fused local attention for processors: numba kernels, forward and backward.

One query is done after the other, all neighbours of a head at once, so that neither gathered keys
and values nor the weights of more than one query ever exist in memory. The backward recomputes
the weights from the saved logarithm of their sum.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.nn.compiled import compiled, require_numba
from sparsefield.nn.local_attention.rows import (
    ROWS,
    WIDTH,
    add_combination,
    add_dots,
    largest,
    scatter,
    total,
)
from sparsefield.nn.scan.cpu.simd import LANES, LOG2_E, at_least, exp2, load, splat, store
from sparsefield.nn.scan.cpu.threads import (
    finish,
    run_in_threads,
    take_range,
    take_worker,
)

LOWEST = float(np.finfo(np.float32).min)
ROW = 4 * WIDTH  # bytes
VECTOR = 4 * LANES  # bytes
PARTS = 8  # at most, all items together
QUERIES_PER_PART = 256  # at least


class Inputs(NamedTuple):
    """The inputs as float32 and int64 arrays, with E channels padded to whole rows."""

    q: np.ndarray  # (B, L, H, E)
    k: np.ndarray  # (B, M, H, E)
    v: np.ndarray  # (B, M, H, E)
    bias: np.ndarray  # (B L, K, H)
    neighbours: np.ndarray  # (B L, K)
    scale: float


class Gradients(NamedTuple):
    """What the backward reads, y and log_sum, and what it fills, in the shapes of the inputs.

    Keys and values have one gradient for every part of an item's queries; that of the keys lacks
    the scale.
    """

    y: np.ndarray
    log_sum: np.ndarray  # (B L, H)
    q: np.ndarray
    k: np.ndarray  # (B, parts, M, H, E)
    v: np.ndarray  # (B, parts, M, H, E)
    bias: np.ndarray


class Addresses(NamedTuple):
    """Where one head of a query, and of the first rows of its item and part, lies in memory."""

    q: int
    k: int
    v: int
    dy: int
    dq: int
    dk: int
    dv: int


class Neighbours(NamedTuple):
    """The neighbours of a query, padded to whole vectors: where the bytes to their rows lie."""

    offsets: int
    places: int


@njit
def _address(array: Any) -> Any:
    return np.intp(array.ctypes.data)


@njit
def _places(neighbours: int) -> int:
    return (neighbours + LANES - 1) // LANES * LANES


@njit
def _load_neighbours(inputs: Any, query: int, offsets: Any, scores: Any) -> None:
    """Fill the offsets of the rows and the scores (H, places) with the bias, in units of log 2.

    The padding hides the first row.
    """
    neighbours, heads = inputs.bias.shape[1:]
    row = 4 * heads * inputs.q.shape[3]
    for j in range(neighbours):
        offsets[j] = inputs.neighbours[query, j] * row
    for h in range(heads):
        for j in range(neighbours):
            scores[h, j] = inputs.bias[query, j, h] * np.float32(LOG2_E)
        scores[h, neighbours:] = -np.inf


@njit
def _add_products(scale: float, query: int, rows: int, width: int, near: Any, scores: int) -> None:
    """Add the scaled products of one head of a query with the rows to the scores."""
    for e in range(0, 4 * width, ROW):
        for j in range(0, near.places, ROWS):
            at = near.offsets + 8 * j
            add_dots(np.float32(scale), query + e, at, rows + e, scores + 4 * j)


@njit
def _combine(scale: float, weights: int, rows: int, width: int, near: Any, out: int) -> None:
    """Add the scaled and weighted sum of the rows to one head of the output."""
    for e in range(0, 4 * width, ROW):
        for j in range(0, near.places, ROWS):
            at = near.offsets + 8 * j
            add_combination(np.float32(scale), weights + 4 * j, at, rows + e, out + e)


@njit
def _scatter(weights: int, value: int, rows: int, width: int, near: Any) -> None:
    """Add the weighted value to the rows."""
    for e in range(0, 4 * width, ROW):
        for j in range(0, near.places, ROWS):
            scatter(weights + 4 * j, value + e, near.offsets + 8 * j, rows + e)


@njit
def _exponentiate(scores: int, places: int, shift: float) -> Any:
    """Replace the scores by 2^(score - shift); return the sum."""
    sums = splat(0.0)
    for at in range(scores, scores + 4 * places, VECTOR):
        weight = exp2(load(at) - splat(shift))
        sums = sums + weight
        store(at, weight)
    return total(sums)


@njit
def _softmax(scores: int, places: int) -> Any:
    """Replace the scores by their softmax, zero if all are hidden; return the log of the sum."""
    top = splat(LOWEST)
    for at in range(scores, scores + 4 * places, VECTOR):
        top = at_least(load(at), top)
    shift = largest(top)
    weight = _exponentiate(scores, places, shift)
    if weight == 0:
        weight = np.float32(1.0)
    for at in range(scores, scores + 4 * places, VECTOR):
        store(at, load(at) * splat(np.float32(1.0) / weight))
    return shift + np.log2(weight)


@njit
def _softmax_backward(weights: int, grads: int, places: int) -> None:
    """Turn the gradients of the weights into those of the scores."""
    sums = splat(0.0)
    for j in range(0, 4 * places, VECTOR):
        sums = sums + load(weights + j) * load(grads + j)
    mean = splat(total(sums))
    for j in range(0, 4 * places, VECTOR):
        store(grads + j, load(weights + j) * (load(grads + j) - mean))


@compiled
def _forward(queue: Any, inputs: Any, y: Any, log_sum: Any) -> None:
    """Attend from the queries of a queue, counted over all items; y starts at zero."""
    heads, places = y.shape[2], _places(inputs.neighbours.shape[1])
    offsets, scores = np.zeros(places, np.int64), np.empty((heads, places), np.float32)
    take_worker(queue)
    start, stop = take_range(queue)
    while start < stop:
        _attend(inputs, start, stop, offsets, scores, y, log_sum)
        finish(queue, stop - start)
        start, stop = take_range(queue)


@njit
def _attend(
    inputs: Any, start: int, stop: int, offsets: Any, scores: Any, y: Any, log_sum: Any
) -> None:
    """Attend from the queries number start to stop."""
    _, length, heads, width = y.shape
    head, places = 4 * width, offsets.size
    near = Neighbours(_address(offsets), places)
    q, k, v = _address(inputs.q), _address(inputs.k), _address(inputs.v)
    for query in range(start, stop):
        _load_neighbours(inputs, query, offsets, scores)
        first = query // length * inputs.k.shape[1]
        for h in range(heads):
            at, rows = (query * heads + h) * head, (first * heads + h) * head
            score = _address(scores) + 4 * h * places
            _add_products(inputs.scale * LOG2_E, q + at, k + rows, width, near, score)
            log_sum[query, h] = _softmax(score, places)
            _combine(1.0, score, v + rows, width, near, _address(y) + at)


@njit
def _addresses(inputs: Any, grad: Any) -> Any:
    return Addresses(
        _address(inputs.q),
        _address(inputs.k),
        _address(inputs.v),
        _address(grad.y),
        _address(grad.q),
        _address(grad.k),
        _address(grad.v),
    )


@njit
def _move(base: Any, query: int, row: int, sums: int) -> Any:
    q, k, v, dy, dq, dk, dv = base
    return Addresses(q + query, k + row, v + row, dy + query, dq + query, dk + sums, dv + sums)


@njit
def _reverse_head(
    to: Any, scale: float, log_sum: float, width: int, near: Any, weights: int, grads: int
) -> None:
    """Do the backward of one head of one query; the weights start as the bias, grads at zero."""
    _add_products(scale * LOG2_E, to.q, to.k, width, near, weights)
    _exponentiate(weights, near.places, log_sum)
    _add_products(1.0, to.dy, to.v, width, near, grads)
    _softmax_backward(weights, grads, near.places)
    _combine(scale, grads, to.k, width, near, to.dq)
    _scatter(grads, to.q, to.dk, width, near)
    _scatter(weights, to.dy, to.dv, width, near)


@compiled
def _backward(queue: Any, inputs: Any, grad: Any) -> None:
    """Do the backward of the parts of a queue; all gradients start at zero."""
    heads, places = inputs.q.shape[2], _places(inputs.neighbours.shape[1])
    offsets, weights = np.zeros(places, np.int64), np.empty((heads, places), np.float32)
    grads = np.empty_like(weights)
    take_worker(queue)
    start, stop = take_range(queue)
    while start < stop:
        for task in range(start, stop):
            _reverse_part(inputs, grad, task, offsets, weights, grads)
        finish(queue, stop - start)
        start, stop = take_range(queue)


@njit
def _reverse_part(
    inputs: Any, grad: Any, task: int, offsets: Any, weights: Any, grads: Any
) -> None:
    """Do the backward of the queries of one part of an item."""
    _, length, heads, width = inputs.q.shape
    parts, points = grad.k.shape[1:3]
    head, places = 4 * width, offsets.size
    near, base = Neighbours(_address(offsets), places), _addresses(inputs, grad)
    item, part = divmod(task, parts)
    first, last = part * length // parts, (part + 1) * length // parts
    for query in range(item * length + first, item * length + last):
        _load_neighbours(inputs, query, offsets, weights)
        grads[:] = 0.0
        for h in range(heads):
            at = (query * heads + h) * head
            rows, sums = (item * points * heads + h) * head, (task * points * heads + h) * head
            _reverse_head(
                _move(base, at, rows, sums),
                inputs.scale,
                grad.log_sum[query, h],
                width,
                near,
                _address(weights) + 4 * h * places,
                _address(grads) + 4 * h * places,
            )
        _store_bias_gradient(grads, grad.bias[query])


@njit
def _store_bias_gradient(grads: Any, out: Any) -> None:
    """Transpose (H, places) to (K, H) without the padding."""
    for j in range(out.shape[0]):
        for h in range(out.shape[1]):
            out[j, h] = grads[h, j]


def _rows(x: Tensor) -> np.ndarray:
    """Return (B, L, H, E) as a float32 array, the channels padded with zeros to whole rows."""
    x = x.detach().float()
    return F.pad(x, (0, -x.shape[-1] % WIDTH)).contiguous().numpy()


def _trimmed(x: np.ndarray, like: Tensor) -> Tensor:
    """Undo the padding of `_rows`."""
    return torch.from_numpy(x)[..., : like.shape[-1]].contiguous()


def _queries(x: Tensor, dtype: torch.dtype) -> np.ndarray:
    """Return (B, L, ...) as an array (B L, ...)."""
    return x.detach().to(dtype).flatten(0, 1).contiguous().numpy()


def _inputs(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, index: Tensor) -> Inputs:
    check_index(index, k.shape[1])  # the kernels would read whatever memory it points to
    bias_, neighbours = _queries(bias, torch.float32), _queries(index, torch.int64)
    return Inputs(_rows(q), _rows(k), _rows(v), bias_, neighbours, 1 / math.sqrt(q.shape[-1]))


def check_index(index: Tensor, keys: int) -> None:
    """Check the neighbours.

    Raises:
        InputError: One of them is not in [0, keys).
    """
    if index.numel() and not 0 <= index.min() <= index.max() < keys:
        raise InputError(f"an index of local attention is not one of the {keys} keys")


@torch.library.custom_op("sparsefield::local_attention", mutates_args=())
def _attention_op(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Return y and the base-2 logarithm of the sum of the weights, (B, L, H)."""
    inputs = _inputs(q, k, v, bias, index)
    y = np.zeros_like(inputs.q)
    log_sum = torch.empty(len(inputs.neighbours), q.shape[2])
    run_in_threads(_forward, len(inputs.neighbours), inputs, y, log_sum.numpy())
    return _trimmed(y, q).to(q.dtype), log_sum.view(q.shape[:3])


@_attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.empty_like(q, memory_format=torch.contiguous_format)
    return y, q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("sparsefield::local_attention_backward", mutates_args=())
def _backward_op(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, index: Tensor, log_sum: Tensor
) -> list[Tensor]:
    """Return the gradients of q, k, v and bias, in float32."""
    inputs = _inputs(q, k, v, bias, index)
    parts = _parts(*q.shape[:2])
    dq, dbias = np.zeros_like(inputs.q), torch.empty(inputs.bias.shape)
    dk, dv = (np.zeros((len(k), parts, *inputs.k.shape[1:]), np.float32) for _ in range(2))
    grad = Gradients(_rows(dy), _queries(log_sum, torch.float32), dq, dk, dv, dbias.numpy())
    run_in_threads(_backward, len(q) * parts, inputs, grad)
    heads = [_trimmed(x, q) for x in (dq, dk.sum(1) * np.float32(inputs.scale), dv.sum(1))]
    return [*heads, dbias.view(bias.shape)]


def _parts(items: int, length: int) -> int:
    """Return into how many parts to cut an item's queries for the backward.

    Every part adds up its own gradients of keys and values. The number depends on shapes alone,
    so that the order of all sums, and thus every bit, is the same for any number of threads.
    """
    return max(1, min(PARTS // max(1, items), length // QUERIES_PER_PART))


@_backward_op.register_fake
def _(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, index: Tensor, log_sum: Tensor
) -> list[Tensor]:
    return [x.new_empty(x.shape, dtype=torch.float32) for x in (q, k, v, bias)]


def _save_for_backward(
    ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]
) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _gradients(ctx: Any, dy: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors
    grads = _backward_op(dy, *inputs)
    return *(g.to(x.dtype) for g, x in zip(grads, inputs, strict=False)), None


_attention_op.register_autograd(_gradients, setup_context=_save_for_backward)


def attend_cpu(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, index: Tensor) -> Tensor:
    """Return y (B, L, H, E); see `local_attention`.

    Raises:
        InputError: The tensors are float64 or not in the processor's memory, or numba is turned
            off.
    """
    require_numba("the local attention backend 'cpu'", "use 'gather'")
    if q.device.type != "cpu" or q.dtype == torch.float64:
        raise InputError(
            f"the local attention backend 'cpu' takes float32 or less on the processor, not "
            f"{q.dtype} on {q.device.type}; use 'gather'"
        )
    return _attention_op(q, k, v, bias, index)[0]
