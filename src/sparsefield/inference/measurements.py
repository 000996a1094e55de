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
NEAR = 8  # measurements whose distance is the width of a border
BORDER = 0.25  # times that
GAP = 0.75  # times the distance to the nearest one, far from all of them
LEAVES = 4  # that answer a query at most
FARTHEST = 512  # measurements at most among which leaves are looked for
BLOCK = 65536  # queries at a time
SAMPLED = 6  # leaves at which the experts to ask at all are chosen


class View(NamedTuple):
    """Queries that see the same measurements.

    Attributes:
        asked: Numbers of the queries (Q,).
        share: How much of the answer to each is given from here (Q,).
        leaf: Number of the leaf from which they see them.
    """

    asked: np.ndarray
    share: np.ndarray
    leaf: int

    def split(self, size: int) -> "Iterator[View]":
        """Yield the same with so many queries at most."""
        for first in range(0, len(self.asked), size):
            part = slice(first, first + size)
            yield View(self.asked[part], self.share[part], self.leaf)


class Measurements:
    """Measurements of one field, made ready once for any queries.

    Few are seen whole; of many, each place sees the near ones. Places are the leaves of a tree
    over the measurements, and a query belongs to the leaf of its nearest one, or near a border in
    parts to several, see `shares_of_leaves`. No query depends on another.

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

    def views(self, query: np.ndarray, *, blended: bool = True) -> Iterator[View]:
        """Yield queries that see the same measurements, by rising leaf.

        Args:
            query: Positions (L, P).
            blended: Let several leaves answer near a border; their shares sum to 1.
        """
        asked, leaf, share = self._shares(query, blended)
        order = np.argsort(leaf, kind="stable")
        starts = np.flatnonzero(np.diff(leaf[order], prepend=-1))
        for numbers in np.split(order, starts[1:]):
            yield View(asked[numbers], share[numbers], int(leaf[numbers[0]]))

    def _shares(self, query: np.ndarray, blended: bool) -> "Shares":
        if self.leaves == 1 or not blended:
            nearest = self.tree.query(query)[1]
            return Shares(np.arange(len(query)), self.leaf[nearest], np.ones(len(query)))
        blocks = range(0, len(query), BLOCK)
        parts = [shares_of_leaves(self.tree, self.leaf, query[i : i + BLOCK]) for i in blocks]
        asked, leaf, share = (np.concatenate(x) for x in zip(*parts, strict=True))
        starts = np.repeat(blocks, [len(part.asked) for part in parts])
        return Shares(asked + starts, leaf, share)

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


class Shares(NamedTuple):
    """Which leaves answer which queries.

    Attributes:
        asked: Numbers of the queries (A,).
        leaf: Numbers of leaves (A,).
        share: How much each counts (A,), of sum 1 for every query.
    """

    asked: np.ndarray
    leaf: np.ndarray
    share: np.ndarray


def shares_of_leaves(tree: cKDTree, leaf: np.ndarray, query: np.ndarray) -> Shares:
    r"""Return which leaves answer queries (Q, P), so that answers change smoothly on the way.

    A leaf is as far as its nearest measurement. Those that are little farther than the nearest
    one count too,

    .. math:: w_l \propto \max\left(0, 1 - \frac{d_l - d_1}{r - d_1}\right)^2,

    with a reach r of :math:`d_1` and a part of the distance to the eighth measurement, more in
    gaps, or of the distance to the fifth leaf if that is less. Every distance is continuous, and
    a leaf has no weight where it comes in: so are the weights.

    Reference: Shepard (1968); the partition of unity of Franke and Nielson (1980).

    Args:
        tree: Tree of the measurements (N, P).
        leaf: Leaf of each (N,).
        query: Positions.
    """
    done, left, near = [], np.arange(len(query)), min(NEAR, tree.n)
    width = None
    while len(left):
        distance, number = tree.query(query[left], np.arange(1, near + 1))
        width = _border(distance) if width is None else width
        entry, nearest = _first_of_each(leaf[number], distance), distance[:, 0]
        reach = nearest + width
        if near > LEAVES:
            reach = np.minimum(reach, np.partition(entry, LEAVES, axis=1)[:, LEAVES])
        last = near >= min(FARTHEST, tree.n)
        found = (reach <= distance[:, -1]) | last
        reach = np.minimum(reach, np.inf if near == tree.n else distance[:, -1])
        asked, column = np.nonzero((entry < reach[:, None]) | (entry == nearest[:, None]))
        whole = np.maximum(reach - nearest, 1e-300)[asked]
        share = np.maximum(1 - (entry[asked, column] - nearest[asked]) / whole, 0) ** 2
        share /= np.bincount(asked, share, len(left))[asked]
        kept = found[asked] & (share > 0)
        asked, column, share = asked[kept], column[kept], share[kept]
        done.append(Shares(left[asked], leaf[number[asked, column]], share))
        left, width, near = left[~found], width[~found], min(4 * near, tree.n)
    return Shares(*(np.concatenate(part) for part in zip(*done, strict=True)))


def _border(distance: np.ndarray) -> np.ndarray:
    """Return the width (Q,) of a border from the distances (Q, K) of the nearest measurements."""
    first, last = distance[:, 0], distance[:, -1]
    return BORDER * last + GAP * first**2 / np.maximum(last, 1e-300)


def _first_of_each(leaf: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Return distances (Q, K), rising, where a leaf comes first in its row; infinite elsewhere."""
    first = distance.copy()
    for column in range(1, leaf.shape[1]):
        again = (leaf[:, :column] == leaf[:, column, None]).any(1)
        first[again, column] = np.inf
    return first


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
