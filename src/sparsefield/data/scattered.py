"""Data sets without a grid: many items, each measured at places of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.words import counted
from sparsefield.data.normalize import Normalizer

# Cells of the grid that stands for the domain, for each point of an item.
CELLS_PER_POINT = 4


@dataclass(frozen=True, eq=False, repr=False)
class ScatteredDataset:
    """N items of at most M measured points each; the whole field of none is known.

    Args:
        coords: Places (N, M, P) in [-1, 1].
        values: Values (N, M, C) in physical units; NaN in the rows that pad an item.
        name: What reports call the data.
        size: Cells along each axis of the grid that results come on unless told otherwise; about
            four for each point of an item if empty.

    Raises:
        InputError: Shapes disagree, or an item has fewer than two points.
    """

    coords: np.ndarray
    values: np.ndarray
    name: str = "points"
    size: tuple[int, ...] = ()

    is_images: ClassVar[bool] = False
    days: ClassVar[None] = None
    grid: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Check what training relies on."""
        shapes = self.coords.shape, self.values.shape
        if [len(shape) for shape in shapes] != [3, 3] or shapes[0][:2] != shapes[1][:2]:
            raise InputError(f"{self.name}: expected (N, M, P) and (N, M, C), got {shapes}")
        few = self.known.sum(1) < 2
        if few.any():
            raise InputError(
                f"{self.name}: {int(few.sum())} of {counted(len(self), 'item')} have fewer than "
                "two points; one is to be observed and one to be predicted"
            )
        if self.size and len(self.size) != shapes[0][-1]:
            raise InputError(
                f"{self.name} has {shapes[0][-1]} axes, and data.size {len(self.size)} numbers"
            )

    @property
    def summary(self) -> str:
        """Number of items, points and channels in words."""
        return (
            f"{counted(len(self), 'item')} of up to {counted(self.points, 'point')} in "
            f"{self.coords.shape[-1]} dimensions with {counted(self.channels, 'channel')} of "
            "numbers"
        )

    def __repr__(self) -> str:
        """Return one line."""
        return f"ScatteredDataset({self.name!r}: {self.summary})"

    def __len__(self) -> int:
        """Return the number of items N."""
        return len(self.values)

    @property
    def points(self) -> int:
        """Number of points M of the largest item."""
        return self.values.shape[1]

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.values.shape[-1]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Grid that stands for the domain."""
        dims = self.coords.shape[-1]
        side = (CELLS_PER_POINT * float(self.known.double().sum(1).mean())) ** (1 / dims)
        return self.size or (max(2, math.ceil(side)),) * dims

    @cached_property
    def known(self) -> Tensor:
        """Which rows are measurements (N, M)."""
        return torch.from_numpy(~np.isnan(self.values).any(-1))

    @cached_property
    def normalizer(self) -> Normalizer:
        """Standardisation of each channel."""
        return Normalizer.fit(self.values)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Return some items in physical units, float32 (B, M, C); NaN in rows of padding."""
        return torch.from_numpy(self.values[np.asarray(indices)]).float()

    def places(self, items: Sequence[int] | np.ndarray) -> Tensor:
        """Return the places (B, M, P) of some items."""
        return torch.from_numpy(self.coords[np.asarray(items)]).float()

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ScatteredDataset":
        """Return the data set of some of its items, on the same grid."""
        chosen = np.asarray(indices)
        return replace(
            self, coords=self.coords[chosen], values=self.values[chosen], size=self.shape
        )
