"""Predict a scalar field at any points from scattered measurements, with nothing fitted."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.data import contexts
from sparsefield.data.contexts import Context, local_context
from sparsefield.inference.tasks import Task, features_of, hear, standardise
from sparsefield.models.universal import Prediction, UniversalInterpolator
from sparsefield.nn.mixture import Mixture

FEWEST = 3
OWN = 32  # observations at most whose surroundings share one context
ASKED = 2048  # queries at a time


class Interpolated(NamedTuple):
    """What is known of a field at some points, in the units of the measurements.

    Attributes:
        value: Distribution of a new measurement at each point (L,); without its error where the
            errors of the measurements are stated.
        field_std: Standard deviation of the noise-free field (L,), whose mean is that of `value`.
    """

    value: Mixture
    field_std: Tensor


class Measurements:
    """Measurements of one field, made ready once for any queries.

    Few are seen whole; of many, each place sees the near ones. Places are the leaves of a tree
    over the measurements, and a query belongs to the leaf of its nearest one. No query depends on
    another.

    Args:
        coords: Positions (N, P) of one to three axes, in units that are the same on every axis.
        values: Measurements (N,).
        noise: Standard deviation of the error, one or of each (N,); None if it is unknown.

    Raises:
        InputError: There are fewer than three measurements, or some are not finite.
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

    def tasks(self, query: np.ndarray) -> Iterator[tuple[np.ndarray, Task]]:
        """Yield numbers of queries (Q,) with what is seen from where they are."""
        coords = np.asarray(self.tree.data)
        leaf = self.leaf[self.tree.query(query)[1]]
        order = np.argsort(leaf, kind="stable")
        starts = np.flatnonzero(np.diff(leaf[order], prepend=-1))
        for numbers in np.split(order, starts[1:]):
            if len(coords) <= contexts.WHOLE:
                seen = Context(coords, self.values, self.noise)
            else:
                own = coords[self.leaf == leaf[numbers[0]]]
                seen = local_context(self.tree, self.values, self.noise, own.mean(0))
            yield numbers, standardise(seen, query[numbers], self.stated)


@torch.inference_mode()
def interpolate(
    model: UniversalInterpolator, measurements: Measurements, query: np.ndarray
) -> Interpolated:
    """Predict at queries (L, P).

    Raises:
        InputError: The queries have other axes than the measurements, or are not finite.
    """
    query = np.ascontiguousarray(query, dtype=np.float64)
    if query.ndim != 2 or query.shape[1] != measurements.tree.m or not np.isfinite(query).all():
        raise InputError(
            f"queries must be finite numbers of shape (L, {measurements.tree.m}), "
            f"got {query.shape}"
        )
    found: list[Interpolated] = []
    order: list[np.ndarray] = []
    for numbers, task in measurements.tasks(query):
        heard = hear([task])
        for block in np.split(task.query, range(ASKED, len(numbers), ASKED)):
            part = task._replace(query=block)
            found.append(_to_units(model(features_of([part], heard)), part))
        order.append(numbers)
    back = torch.from_numpy(np.argsort(np.concatenate(order)))
    parts = [torch.cat(x)[back] for x in zip(*(f.value for f in found), strict=True)]
    return Interpolated(Mixture(*parts), torch.cat([f.field_std for f in found])[back])


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
    parts = 2 ** int(np.ceil(np.log2(len(coords) / OWN)))
    for number, part in enumerate(contexts.halve(coords, np.arange(len(coords)), parts)):
        leaf[part] = number
    return leaf
