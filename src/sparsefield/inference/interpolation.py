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

    @classmethod
    def empty(cls, count: int) -> "Interpolated":
        """Return room for what is known at so many points."""
        parts = (torch.empty(count, PARTS, dtype=torch.float64) for _ in Mixture._fields)
        return cls(Mixture(*parts), torch.empty(count, dtype=torch.float64))

    def put(self, numbers: np.ndarray, part: "Interpolated") -> None:
        """Write what is known at some of the points (Q,), the first ones of a part."""
        rows = torch.from_numpy(numbers)
        for whole, piece in zip(self.value, part.value, strict=True):
            whole[rows] = piece[: len(rows)]
        self.field_std[rows] = part.field_std[: len(rows)]


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
        progress: Called after each part with the number of queries in it.

    Raises:
        InputError: The queries have other axes than the measurements, or are not finite.
    """
    query = np.ascontiguousarray(query, dtype=np.float64)
    if query.ndim != 2 or query.shape[1] != measurements.tree.m or not np.isfinite(query).all():
        raise InputError(
            f"queries must be finite numbers of shape (L, {measurements.tree.m}), "
            f"got {query.shape}"
        )
    found = Interpolated.empty(len(query))
    for numbers, said in _answers(model, measurements, query, min(chunk or ASKED, ASKED)):
        found.put(numbers, said)
        progress(len(numbers))
    return found


class Answer(NamedTuple):
    """What is known at some queries.

    Attributes:
        asked: Numbers of the queries (Q,).
        said: What is known there, and maybe at more.
    """

    asked: np.ndarray
    said: Interpolated


def _answers(
    model: UniversalInterpolator, measurements: Measurements, query: np.ndarray, size: int
) -> Iterator[Answer]:
    """Yield what is known at all queries, part by part."""
    views = measurements.views(query)
    if measurements.leaves < MANY:
        answer = partial(_answer, model, measurements, query, size)
        for answers in each_in_threads(answer, views):
            yield from answers
    else:
        regions = (list(x) for _, x in groupby(views, lambda view: view.leaf // SHARING))
        yield from each_in_threads(partial(_answer_together, model, measurements, query), regions)


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
    for numbers in np.split(view.asked, range(size, len(view.asked), size)):
        part = task._replace(query=_padded(query[numbers]))
        said = model(features_of([part], [heard]))
        answers.append(Answer(numbers, _to_units(said, part)))
    return answers


@torch.inference_mode()
def _answer_together(
    model: UniversalInterpolator, measurements: Measurements, query: np.ndarray, views: list[View]
) -> Answer:
    """Return what is known at the queries of neighbouring views, by one decision."""
    verdict = _verdict(model, measurements, views[0].leaf // SHARING)
    parts = []
    for view in views:
        seen = measurements.context(measurements.seen_from(view.leaf))
        parts.append(moments(verdict, standardise(seen, query[view.asked], measurements.stated)))
    said = settle(model, verdict, np.concatenate(parts, axis=1))
    value = Mixture(*(x[0] for x in said.value))
    asked = np.concatenate([view.asked for view in views])
    return Answer(asked, Interpolated(value, said.field_std[0]))


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
