"""Measurements of one field, and what is seen of them from where."""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from sparsefield.core.errors import InputError
from sparsefield.data import contexts
from sparsefield.data.contexts import Context
from sparsefield.inference.copula import Covariance, likeliest
from sparsefield.inference.tasks import hear, standardise
from sparsefield.nn.experts.groups import useful_numbers
from sparsefield.nn.experts.kriging import Seen

FEWEST = 3
OWN = 32  # observations at most whose surroundings share one context
SAMPLED = 6  # leaves at which the experts to ask at all are chosen


class View(NamedTuple):
    """Queries that see the same measurements.

    Attributes:
        asked: Numbers of the queries (Q,).
        leaf: Number of the leaf from which they see them.
    """

    asked: np.ndarray
    leaf: int


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
        self.leaves = int(self.leaf.max()) + 1

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
        if self.leaves < 2 * SAMPLED:
            return None
        chosen = np.linspace(0, self.leaves - 1, SAMPLED).astype(int)
        seen = (self.context(self.seen_from(leaf)) for leaf in chosen)
        return useful_numbers(
            [Seen(*standardise(x, x.coords[:1], self.stated).seen) for x in seen]
        )

    def views(self, query: np.ndarray) -> Iterator[View]:
        """Yield queries that see the same measurements, each once, by rising leaf."""
        leaf = self.leaf[self.tree.query(query)[1]]
        order = np.argsort(leaf, kind="stable")
        starts = np.flatnonzero(np.diff(leaf[order], prepend=-1))
        for numbers in np.split(order, starts[1:]):
            yield View(numbers, int(leaf[numbers[0]]))

    def seen_from(self, leaf: int) -> np.ndarray:
        """Return the numbers (N,) of the measurements that a leaf sees."""
        if len(self.values) <= contexts.WHOLE:
            return np.arange(len(self.values))
        own = np.asarray(self.tree.data)[self._members[leaf]]
        return contexts.nearest(self.tree, own.mean(0))

    @cached_property
    def _members(self) -> list[np.ndarray]:
        """Numbers of the measurements of each leaf."""
        order = np.argsort(self.leaf, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.leaf))[:-1])

    def context(self, numbers: np.ndarray) -> Context:
        """Return measurements by their numbers."""
        places = np.asarray(self.tree.data)[numbers]
        return Context(places, self.values[numbers], self.noise[numbers])


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
