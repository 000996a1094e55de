"""What is observed of which items, and what is asked for: frozen masks and noise per item."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.words import counted
from sparsefield.data.cells import CellGrids
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.masks import (
    known_first,
    observed_count,
    observed_indices,
    permutation,
)
from sparsefield.data.observation import Observation
from sparsefield.data.scattered import ScatteredDataset
from sparsefield.inference.model import Model


@dataclass(frozen=True)
class Protocol:
    """Which points of which items are observed.

    Attributes:
        density: Observed fraction, in (0, 1].
        seed: Seed of masks and noise, at least 0.
        split: Split whose masks are used: train, validation or test.
        batch_size: Items per evaluation; changes speed and nothing else.
        stations: Whether each item has a mask of its own ("moving"), or all have that of the first
            ("fixed"), as stations that stay.
    """

    density: float = 0.2
    seed: int = 0
    split: str = "validation"
    batch_size: int = 50
    stations: Literal["moving", "fixed"] = "moving"


@dataclass(frozen=True)
class Task:
    """A batch of items: what is observed, what is asked for, and the truth, in physical units.

    Attributes:
        items: Numbers of the items in their data set.
        truth: True fields (B, L, C) at the points asked for.
        coords: Points asked for (B, L, P).
        obs: Observations (B, M, ...).
        missing: Which points are not observed (B, L).
        shape: Cells along each axis of the grid asked for.
        observed: Cells along each axis of the grid whose cells are observed.
        seed: Seed of the noise that models start from, which is keyed by the item.
        value_range: Range that PSNR refers to.
        known: Which points have a true value (B, L); None where all have. The others are 0.
    """

    items: Sequence[int]
    truth: Tensor
    coords: Tensor
    obs: Observation
    missing: Tensor
    shape: tuple[int, ...]
    observed: tuple[int, ...]
    seed: int
    value_range: float = 1.0
    known: Tensor | None = None

    @property
    def grids(self) -> CellGrids:
        """The observed grid and the one asked for."""
        return CellGrids(self.observed, self.shape)

    def images(self, values: Tensor) -> Tensor:
        """Return values (B, L, C) on the grid asked for (B, *shape, C)."""
        return values.unflatten(1, self.shape)


@dataclass(frozen=True)
class Tasks:
    """Tasks of many items, made when they are needed.

    Attributes:
        make: Returns the task of some items; an item never depends on the others.
        count: Number of items N.
        batch_size: Items per task; changes speed and nothing else.
    """

    make: Callable[[Sequence[int]], Task]
    count: int
    batch_size: int

    def of(self, items: range) -> Iterator[Task]:
        """Yield the tasks of consecutive items, in order."""
        for start in range(0, len(items), self.batch_size):
            yield self.make(items[start : start + self.batch_size])

    def part(self, items: range) -> "Tasks":
        """Return the tasks of some of the items."""
        return replace(
            self, make=lambda chosen: self.make([items[i] for i in chosen]), count=len(items)
        )


def grid_tasks(
    fields: FieldDataset | ScatteredDataset,
    protocol: Protocol,
    limit: int | None = None,
    *,
    batch_size: int | None = None,
) -> Tasks:
    """Return tasks that observe some cells of a data set's grid and ask for all of them.

    Args:
        fields: Items with the true values.
        protocol: Masks and seeds.
        limit: Use the first items only, as many as this.
        batch_size: Items per task; those of the protocol by default.
    """
    make = partial(make_task, fields, protocol, value_range=data_range(fields))
    count = len(range(len(fields))[:limit])
    return Tasks(make, count, batch_size or protocol.batch_size)


def make_task(
    fields: FieldDataset | ScatteredDataset,
    protocol: Protocol,
    items: Sequence[int],
    *,
    value_range: float | None = None,
) -> Task:
    """Observe some cells of some items as the protocol says, and ask for all cells.

    Args:
        fields: Items with the true values.
        protocol: Masks and seeds.
        items: Numbers of the items.
        value_range: Range that PSNR refers to; `data_range` by default.
    """
    truth, coords = fields.batch(list(items)), fields.places(items)
    known = None if fields.known is None else fields.known[list(items)]
    if known is not None:
        truth = torch.where(known[..., None], truth, 0.0)
    index, valid = _observed(fields, protocol, items, known)
    missing = _missing(index, valid, truth.shape[1])
    return Task(
        items=items,
        truth=truth,
        coords=coords,
        obs=Observation(_take(coords, index), _take(truth, index), valid=valid, grid=fields.grid),
        missing=missing if known is None else missing & known,
        shape=fields.shape,
        observed=fields.shape,
        seed=protocol.seed,
        value_range=data_range(fields) if value_range is None else value_range,
        known=known,
    )


def _observed(
    fields: FieldDataset | ScatteredDataset,
    protocol: Protocol,
    items: Sequence[int],
    known: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Return the numbers (B, M) of the points that are observed, and which of them count.

    An item is observed at its share of the points that have a value.
    """
    mask = (protocol.seed, protocol.split)
    masks = [0] * len(items) if protocol.stations == "fixed" else list(items)
    if known is None:
        how = (fields.points, protocol.density, *mask)
        return torch.from_numpy(np.stack([observed_indices(*how, item) for item in masks])), None
    order = [permutation(fields.points, *mask, item) for item in masks]
    counts = torch.tensor([observed_count(int(n), protocol.density) for n in known.sum(1)])
    ordered = known_first(torch.from_numpy(np.stack(order)), known)
    most = int(counts.max())
    return ordered[:, :most], torch.arange(most) < counts[:, None]


def _missing(index: Tensor, valid: Tensor | None, points: int) -> Tensor:
    """Return which of L points are not observed (B, L)."""
    missing = torch.ones(len(index), points, dtype=torch.bool)
    if valid is None:
        return missing.scatter(1, index, False)
    for item, (row, known) in enumerate(zip(index, valid, strict=True)):
        missing[item, row[known]] = False
    return missing


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def data_range(fields: FieldDataset | ScatteredDataset) -> float:
    """Return the range that PSNR refers to: 1 for images, else that of the data."""
    if fields.is_images:
        return 1.0
    return float(np.nanmax(fields.values) - np.nanmin(fields.values))


def check_fit(model: Model, fields: FieldDataset) -> None:
    """Check that a model knows fields of these dimensions, channels and values.

    Raises:
        InputError: It does not.
    """
    has = (len(fields.shape), fields.channels)
    needs = (len(model.spec.shape), model.spec.normalizer.channels)
    if has != needs:
        raise InputError(
            f"model '{model.name}' takes {needs[0]}-D fields of {counted(needs[1], 'channel')}; "
            f"{fields.name} has {has[0]}-D fields of {has[1]}"
        )
    fields.check_range(model.spec.normalizer, f"model '{model.name}'")
