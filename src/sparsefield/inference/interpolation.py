"""Predict a scalar field at any points from scattered measurements, with nothing fitted."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from threadpoolctl import ThreadpoolController
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.data import contexts
from sparsefield.data.contexts import Context
from sparsefield.inference.conditioned import Progress, silent
from sparsefield.inference.copula import Covariance, likeliest
from sparsefield.inference.tasks import Task, features_of, hear, standardise
from sparsefield.models.universal import PARTS, Prediction, UniversalInterpolator
from sparsefield.nn.experts.groups import useful_numbers
from sparsefield.nn.experts.kriging import Seen
from sparsefield.nn.mixture import Mixture

FEWEST = 3
OWN = 32  # observations at most whose surroundings share one context
ASKED = 2048  # queries at a time
ROWS = 32  # their number is made a multiple of this
SAMPLED = 6  # leaves at which the experts to ask at all are chosen


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


class View(NamedTuple):
    """Queries that see the same measurements.

    Attributes:
        asked: Numbers of the queries (Q,).
        seen: Numbers of the measurements (N,).
    """

    asked: np.ndarray
    seen: np.ndarray


class Measurements:
    """Measurements of one field, made ready once for any queries.

    Few are seen whole; of many, each place sees the near ones. Places are the leaves of a tree
    over the measurements, and a query belongs to the leaf of its nearest one. No query depends on
    another.

    Args:
        coords: Positions (N, P) of one to three axes, in units that are the same on every axis.
        values: Measurements (N,).
        noise: Standard deviation of the error, at least 0, one or of each (N,); None if it is
            unknown.

    Raises:
        InputError: There are fewer than three measurements, shapes disagree, or a number is not
            finite or a noise negative.
    """

    def __init__(
        self, coords: np.ndarray, values: np.ndarray, noise: float | np.ndarray | None = None
    ) -> None:
        coords = np.ascontiguousarray(coords, dtype=np.float64)
        values = np.asarray(values, dtype=np.float64)
        _check(coords, values, noise)
        self.values = values
        self.stated = noise is not None
        std = np.ones(len(values)) if noise is None else np.broadcast_to(noise, values.shape)
        floor = 1e-6 * max(float(values.std()), 1e-150)
        self.noise = np.maximum(std, floor) ** 2
        self.tree = cKDTree(coords)
        whole = len(values) <= contexts.WHOLE
        self.leaf = np.zeros(len(values), int) if whole else _leaves(coords)

    @cached_property
    def covariance(self) -> Covariance:
        """Covariance of the expert that is likeliest where the middle measurement lies."""
        coords = np.asarray(self.tree.data)
        middle = self.tree.query(coords.mean(0))[1]
        seen = self.context(self.seen_from(int(self.leaf[middle])))
        return likeliest(hear(standardise(seen, coords[:1], self.stated)))

    @cached_property
    def useful(self) -> np.ndarray | None:
        """Isotropic experts (G, E) that have a say at some of many places; None for all."""
        count = int(self.leaf.max()) + 1
        if count < 2 * SAMPLED:
            return None
        chosen = np.linspace(0, count - 1, SAMPLED).astype(int)
        seen = (self.context(self.seen_from(leaf)) for leaf in chosen)
        return useful_numbers(
            [Seen(*standardise(x, x.coords[:1], self.stated).seen) for x in seen]
        )

    def views(self, query: np.ndarray) -> Iterator[View]:
        """Yield queries that see the same measurements, each once."""
        leaf = self.leaf[self.tree.query(query)[1]]
        order = np.argsort(leaf, kind="stable")
        starts = np.flatnonzero(np.diff(leaf[order], prepend=-1))
        for numbers in np.split(order, starts[1:]):
            yield View(numbers, self.seen_from(int(leaf[numbers[0]])))

    def seen_from(self, leaf: int) -> np.ndarray:
        """Return the numbers (N,) of the measurements that a leaf sees."""
        if len(self.values) <= contexts.WHOLE:
            return np.arange(len(self.values))
        own = np.asarray(self.tree.data)[self.leaf == leaf]
        return contexts.nearest(self.tree, own.mean(0))

    def context(self, numbers: np.ndarray) -> Context:
        """Return measurements by their numbers."""
        places = np.asarray(self.tree.data)[numbers]
        return Context(places, self.values[numbers], self.noise[numbers])


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
    size = min(chunk or ASKED, ASKED)
    found = Interpolated.empty(len(query))
    useful = measurements.useful

    def answer(view: View) -> int:
        with torch.inference_mode():
            seen = measurements.context(view.seen)
            task = standardise(seen, query[:0], measurements.stated)
            heard = hear(task, useful)
            for numbers in np.split(view.asked, range(size, len(view.asked), size)):
                part = task._replace(query=_padded(query[numbers]))
                found.put(numbers, _to_units(model(features_of([part], [heard])), part))
        return len(view.asked)

    for count in each_in_threads(answer, measurements.views(query)):
        progress(count)
    return found


def each_in_threads(act: Callable[[View], int], views: Iterable[View]) -> Iterator[int]:
    """Yield what an action returns for each view, in order, on as many threads as torch has.

    Each of them computes on one processor.
    """
    workers = torch.get_num_threads()
    with one_thread():
        if workers == 1:
            yield from map(act, views)
            return
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(act, views)


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


def _check(coords: np.ndarray, values: np.ndarray, noise: float | np.ndarray | None) -> None:
    if coords.ndim != 2 or not 1 <= coords.shape[1] <= 3 or values.shape != coords.shape[:1]:
        raise InputError(
            "measurements need positions (N, P), P from 1 to 3, and values (N,), "
            f"got shapes {coords.shape} and {values.shape}"
        )
    if len(values) < FEWEST:
        raise InputError(f"at least {FEWEST} measurements are needed, got {len(values)}")
    if not (np.isfinite(coords).all() and np.isfinite(values).all()):
        raise InputError("positions and values must be finite numbers")
    if noise is not None and not (np.isfinite(noise).all() and (np.asarray(noise) >= 0).all()):
        raise InputError("the noise must be finite and at least 0")


def _leaves(coords: np.ndarray) -> np.ndarray:
    """Return the number (N,) of the compact part, of at most OWN points, of each point."""
    leaf = np.zeros(len(coords), int)
    parts = -(-len(coords) // OWN)
    for number, part in enumerate(contexts.halve(coords, np.arange(len(coords)), parts)):
        leaf[part] = number
    return leaf
