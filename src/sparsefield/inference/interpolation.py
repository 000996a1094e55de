"""Predict a scalar field at any points from scattered measurements, with nothing fitted."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.inference.conditioned import Progress, silent
from sparsefield.inference.measurements import Measurements, View
from sparsefield.inference.regions import Verdict, decide, moments, settle
from sparsefield.inference.tasks import Task, features_of, hear, standardise
from sparsefield.models.universal import PARTS, Prediction, UniversalInterpolator
from sparsefield.nn.mixture import Mixture

ASKED = 2048  # queries at a time
ROWS = 32  # their number is made a multiple of this
MANY = 512  # leaves from which on neighbouring ones share the network's decisions
SHARING = 16  # leaves that share them
PEERS = 4  # of them on which the choice of experts is tried

T = TypeVar("T")
U = TypeVar("U")


class Interpolated(NamedTuple):
    """What is known of a field at some points, in the units of the measurements.

    Attributes:
        value: Distribution of a new measurement at each point (L,); without its error where the
            errors of the measurements are stated.
        field_std: Standard deviation of the noise-free field (L,), whose mean is that of `value`.
    """

    value: Mixture
    field_std: Tensor

    def take(self, part: slice) -> "Interpolated":
        """Return what is known at some of the points."""
        return Interpolated(Mixture(*(x[part] for x in self.value)), self.field_std[part])


class Blend:
    """Averages of what is known from several places, with room for so many points.

    Parts of mixtures are averaged one by one. The variance of each is that of the mixture of what
    it is from every place: where places disagree it is greater.
    """

    def __init__(self, count: int) -> None:
        self._share = torch.zeros(count, dtype=torch.float64)
        parts = [torch.zeros(count, PARTS, dtype=torch.float64) for _ in Mixture._fields]
        self._weight, self._loc, self._var = parts
        self._mean, self._field_var = torch.zeros(2, count, dtype=torch.float64)

    def add(self, asked: np.ndarray, share: np.ndarray, said: Interpolated) -> int:
        """Add what is known at some points (Q,) from a place; return how many are new.

        Args:
            asked: Numbers of the points, each once.
            share: How much it counts (Q,).
            said: What is known, at the points first.
        """
        rows, part = torch.from_numpy(asked), torch.from_numpy(share)
        before = self._share[rows]
        self._share[rows] = before + part
        part = part / (before + part)
        value, field_std = said.take(slice(len(rows)))
        self._average(self._weight, rows, part, value.log_weight.exp())
        gap = self._average(self._loc, rows, part, value.loc)
        self._average(self._var, rows, part, value.scale.square())
        self._var[rows] += gap
        gap = self._average(self._mean, rows, part, value.mean)
        self._average(self._field_var, rows, part, field_std.square())
        self._field_var[rows] += gap
        return int((before == 0).sum())

    @staticmethod
    def _average(whole: Tensor, rows: Tensor, part: Tensor, new: Tensor) -> Tensor:
        """Move averages towards new numbers; return the variance that this adds."""
        part = part.view(-1, *(1,) * (new.ndim - 1))
        gap = new - whole[rows]
        whole[rows] += part * gap
        return part * (1 - part) * gap.square()

    def result(self) -> Interpolated:
        """Return the averages."""
        value = Mixture(self._weight.log_(), self._loc, self._var.sqrt_())
        return Interpolated(value, self._field_var.sqrt_())


def interpolate(
    model: UniversalInterpolator,
    measurements: Measurements,
    query: np.ndarray,
    *,
    chunk: int | None = None,
    progress: Progress = silent,
) -> Interpolated:
    """Predict at queries (L, P).

    Args:
        model: The network.
        measurements: What was measured.
        query: Positions, in the units of the measurements'.
        chunk: Queries at a time at most, at least 1; 2048 by default.
        progress: Called after each part with the number of queries that it is the first to answer.

    Raises:
        InputError: The queries have other axes than the measurements, or are not finite.
    """
    query = np.ascontiguousarray(query, dtype=np.float64)
    if query.ndim != 2 or query.shape[1] != measurements.tree.m or not np.isfinite(query).all():
        raise InputError(
            f"queries must be finite numbers of shape (L, {measurements.tree.m}), "
            f"got {query.shape}"
        )
    blend = Blend(len(query))
    for view, said in _answers(model, measurements, query, min(chunk or ASKED, ASKED)):
        progress(blend.add(view.asked, view.share, said))
    return blend.result()


class Answer(NamedTuple):
    """What is known of a field from one place.

    Attributes:
        view: Place and queries (Q,).
        said: What is known at the queries, and maybe at more.
    """

    view: View
    said: Interpolated


def _answers(
    model: UniversalInterpolator, measurements: Measurements, query: np.ndarray, size: int
) -> Iterator[Answer]:
    """Yield what is known at all queries, part by part."""
    views = measurements.views(query)
    if measurements.leaves < MANY:
        parts = each_in_threads(partial(_answer, model, measurements, query, size), views)
    else:
        regions = (list(x) for _, x in groupby(views, lambda view: view.leaf // SHARING))
        act = partial(_answer_together, model, measurements, query)
        parts = each_in_threads(act, regions)
    for part in parts:
        yield from part


@torch.inference_mode()
def _answer(
    model: UniversalInterpolator,
    measurements: Measurements,
    query: np.ndarray,
    size: int,
    view: View,
) -> list[Answer]:
    """Return what is known at the queries of a view, so many at a time."""
    seen = measurements.context(measurements.seen_from(view.leaf))
    task = standardise(seen, query[:0], measurements.stated)
    heard = hear(task, measurements.useful)
    answers = []
    for part in view.split(size):
        asking = task._replace(query=_padded(query[part.asked]))
        said = model(features_of([asking], [heard]))
        answers.append(Answer(part, _to_units(said, asking)))
    return answers


@torch.inference_mode()
def _answer_together(
    model: UniversalInterpolator, measurements: Measurements, query: np.ndarray, views: list[View]
) -> list[Answer]:
    """Return what is known at the queries of neighbouring views, by one decision."""
    verdict = _verdict(model, measurements, views[0].leaf // SHARING)
    parts = []
    for view in views:
        seen = measurements.context(measurements.seen_from(view.leaf))
        parts.append(moments(verdict, standardise(seen, query[view.asked], measurements.stated)))
    said = settle(model, verdict, np.concatenate(parts, axis=1))
    every = Interpolated(Mixture(*(x[0] for x in said.value)), said.field_std[0])
    ends = np.cumsum([len(view.asked) for view in views])
    return [
        Answer(view, every.take(slice(end - len(view.asked), end)))
        for view, end in zip(views, ends, strict=True)
    ]


def _verdict(model: UniversalInterpolator, measurements: Measurements, region: int) -> Verdict:
    """Return what is decided for the leaves of a region."""
    last = min((region + 1) * SHARING, measurements.leaves) - 1
    leaves = np.linspace(region * SHARING, last, PEERS + 1).astype(int)
    seen = [measurements.context(measurements.seen_from(leaf)) for leaf in leaves]
    middle = seen.pop(PEERS // 2)
    return decide(model, middle, seen, measurements.stated, measurements.useful)


def each_in_threads(act: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Yield what an action returns for each item, in order, on as many threads as torch has.

    Each of them computes on one processor.
    """
    workers = torch.get_num_threads()
    with one_thread():
        if workers == 1:
            yield from map(act, items)
            return
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(act, items)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep the libraries of linear algebra, and torch, from starting threads of their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _blas().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _padded(query: np.ndarray) -> np.ndarray:
    """Return queries (Q, P) with the last one repeated up to a multiple of ROWS.

    Products of matrices with few rows are rounded in another way; a prediction would depend, in
    its last bits, on what else is asked.
    """
    return np.concatenate([query, query[-1:].repeat(-len(query) % ROWS, axis=0)])


def _to_units(said: Prediction, task: Task) -> Interpolated:
    value = Mixture(*(x[0].double() for x in said.value))
    shift, factor = (
        torch.full(value.loc.shape[:1], x).double() for x in (task.centre, task.scale)
    )
    return Interpolated(value.affine(shift, factor), said.field_std[0].double() * task.scale)
