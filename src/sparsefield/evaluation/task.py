"""What is observed of which items, and what is asked for: frozen masks and noise per item."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.data.cells import CellGrids
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.masks import observed_indices
from sparsefield.data.observation import Observation
from sparsefield.inference.model import Model


@dataclass(frozen=True)
class Protocol:
    """Which points of which items are observed.

    Attributes:
        density: Observed fraction, in (0, 1].
        seed: Seed of masks and noise, at least 0.
        split: Split whose masks are used: train, validation or test.
        batch_size: Items per evaluation; changes speed and nothing else.
    """

    density: float = 0.2
    seed: int = 0
    split: str = "validation"
    batch_size: int = 50


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


def grid_tasks(
    fields: FieldDataset,
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
    fields: FieldDataset,
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
    truth, index = fields.batch(list(items)), _observed(fields, protocol, items)
    coords = fields.coords.expand(len(items), -1, -1)
    return Task(
        items=items,
        truth=truth,
        coords=coords,
        obs=Observation(_take(coords, index), _take(truth, index), grid=fields.shape),
        missing=torch.ones(truth.shape[:2], dtype=torch.bool).scatter(1, index, False),
        shape=fields.shape,
        observed=fields.shape,
        seed=protocol.seed,
        value_range=data_range(fields) if value_range is None else value_range,
    )


def _observed(fields: FieldDataset, protocol: Protocol, items: Sequence[int]) -> Tensor:
    """Return the numbers (B, M) of the cells that are observed."""
    how = (fields.points, protocol.density, protocol.seed, protocol.split)
    return torch.from_numpy(np.stack([observed_indices(*how, item) for item in items]))


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def data_range(fields: FieldDataset) -> float:
    """Return the range that PSNR refers to: 1 for images, else that of the data."""
    if fields.values.dtype == np.uint8:
        return 1.0
    return float(fields.values.max() - fields.values.min())


def check_fit(model: Model, fields: FieldDataset) -> None:
    """Check that a model knows fields of these dimensions, channels and values.

    Raises:
        InputError: It does not.
    """
    has = (len(fields.shape), fields.channels)
    needs = (len(model.spec.shape), model.spec.normalizer.channels)
    if has != needs:
        raise InputError(
            f"model '{model.name}' takes {needs[0]}-D fields of {needs[1]} channels; "
            f"{fields.name} has {has[0]}-D fields of {has[1]}"
        )
    fields.check_range(model.spec.normalizer, f"model '{model.name}'")
