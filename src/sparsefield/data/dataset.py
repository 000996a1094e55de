"""Data sets of fields on regular grids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.data.conversion import real_array
from sparsefield.data.formats.sources import read_fields
from sparsefield.data.grids import cell_centres
from sparsefield.data.masks import SPLIT_CODES
from sparsefield.data.normalize import Normalizer


@dataclass(frozen=True, eq=False)
class FieldDataset:
    """N fields on one grid, in memory.

    Args:
        values: fields, shape (N, *shape, C); uint8 for images (255 stands for 1), else float32 in
            physical units.
        name: what reports call the data.

    Raises:
        InputError: if there is no grid axis, no item, or a value is not finite.
    """

    values: np.ndarray
    name: str = "fields"

    def __post_init__(self) -> None:
        """Check what every later step relies on."""
        object.__setattr__(self, "values", real_array(self.values, self.name))
        if self.values.ndim < 3 or 0 in self.values.shape:
            raise InputError(
                f"{self.name}: expected values of shape (N, *grid, C), got {self.values.shape}"
            )
        if self.values.dtype not in (np.uint8, np.float32):
            raise InputError(f"{self.name}: expected uint8 or float32, got {self.values.dtype}")
        if self.values.dtype == np.float32 and not np.isfinite(self.values).all():
            bad = int((~np.isfinite(self.values)).sum())
            raise InputError(
                f"{self.name}: {bad} of {self.values.size} values are NaN or infinite; "
                "drop those fields or fill them"
            )

    def __len__(self) -> int:
        """Return the number of fields N."""
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis of the grid."""
        return self.values.shape[1:-1]

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.values.shape[-1]

    @property
    def points(self) -> int:
        """Number of grid points L."""
        return int(np.prod(self.shape))

    @cached_property
    def coords(self) -> Tensor:
        """Cell centres of the grid, shape (L, P)."""
        return cell_centres(self.shape)

    @cached_property
    def normalizer(self) -> Normalizer:
        """Scaling that suits the values: [0, 1] to [-1, 1] for images, else standardisation."""
        if self.values.dtype == np.uint8:
            return Normalizer.unit_range(self.channels)
        return Normalizer.fit(self.values)

    def item(self, index: int) -> np.ndarray:
        """Return one field in physical units, float32, shape (L, C)."""
        return self.batch([index])[0].numpy()

    def batch(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Return some fields in physical units, float32, shape (B, L, C)."""
        chosen = self.values[np.asarray(indices)].reshape(-1, self.points, self.channels)
        values = torch.from_numpy(chosen)
        return values.float() / 255 if values.dtype == torch.uint8 else values

    def subset(self, indices: Sequence[int] | np.ndarray) -> "FieldDataset":
        """Return the data set of some of its fields, in the given order."""
        return replace(self, values=self.values[np.asarray(indices)])

    def resized(self, shape: Sequence[int]) -> "FieldDataset":
        """Return the data set on a coarser grid, each cell the mean of those it covers.

        Args:
            shape: cells per axis, each a divisor of the present number.

        Raises:
            InputError: if an axis is not divided evenly.
        """
        if tuple(shape) == self.shape:
            return self
        if len(shape) != len(self.shape) or any(
            new < 1 or old % new for old, new in zip(self.shape, shape, strict=False)
        ):
            raise InputError(
                f"{self.name}: cannot area-average a grid of {self.shape} to {tuple(shape)}; "
                "each axis must be divided evenly"
            )
        return replace(self, values=np.stack([self._coarsen(v, shape) for v in self.values]))

    def _coarsen(self, field: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        factors = [old // new for old, new in zip(self.shape, shape, strict=True)]
        split = [part for pair in zip(shape, factors, strict=True) for part in pair]
        axes = tuple(range(1, len(split), 2))
        mean = field.reshape(*split, self.channels).mean(axis=axes, dtype=np.float32)
        return np.rint(mean).astype(np.uint8) if field.dtype == np.uint8 else mean


def open_dataset(
    path: str | Path,
    split: str = "validation",
    limit: int | None = None,
    size: Sequence[int] | None = None,
) -> FieldDataset:
    """Open fields from disk.

    Args:
        path: a parquet file or folder in the Hugging Face layout (struct column `image` or `img`
            with `bytes`), an image file or folder, the official CIFAR-10 python archive or its
            folder, or a .npy/.npz array of shape (N, *grid, C).
        split: which part to read where names tell parts apart: "train", "validation" or "test".
        limit: number of fields at most, from the first; all if None.
        size: grid to area-average to; images of other aspect are cropped at the centre first.

    Returns:
        The data set, images as uint8.

    Raises:
        InputError: if the data are missing, of no supported kind, broken, of several sizes
            without `size`, or lack the split.
    """
    if split not in SPLIT_CODES:
        raise unknown_name("split", split, list(SPLIT_CODES))
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}")
    path = Path(path).expanduser()
    image_size = (size[0], size[1]) if size is not None and len(size) == 2 else None
    values = read_fields(path, split, limit, image_size)
    dataset = FieldDataset(_supported_type(values, path), name=path.name)
    dataset = replace(dataset, values=dataset.values[:limit])
    return dataset if size is None else dataset.resized(size)


def _supported_type(values: np.ndarray, path: Path) -> np.ndarray:
    if values.dtype.kind not in "iuf":
        raise InputError(f"{path} holds values of type {values.dtype}; numbers are needed")
    return values if values.dtype == np.uint8 else values.astype(np.float32, copy=False)


def carve_validation(n: int, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split items at random into a training and a validation part.

    Args:
        n: number of items.
        count: number of items of the validation part, between 1 and `n - 1`.
        seed: seed of the choice.

    Returns:
        Sorted indices of the training part, shape (n - count,), and the validation part,
        shape (count,).

    Raises:
        InputError: if one of the parts would be empty.
    """
    if not 1 <= count < n:
        raise InputError(f"cannot hold out {count} of {n} items; both parts need at least one")
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[count:]), np.sort(order[:count])
