"""Data sets: many examples of fields on one regular grid."""

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.checks import refuse_empty_channels
from sparsefield.core.errors import InputError, unknown_name
from sparsefield.core.words import counted
from sparsefield.data.axes import CHANNELS, Channels, understand_axes
from sparsefield.data.conversion import real_array
from sparsefield.data.formats.datasets import read_examples
from sparsefield.data.formats.examples import Request
from sparsefield.data.grids import GridError, cell_centres, size_setting
from sparsefield.data.masks import SPLIT_CODES
from sparsefield.data.normalize import Normalizer
from sparsefield.data.series import Series

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class FieldDataset:
    """N examples of a field, all on one grid, in memory.

    Args:
        values: Values, shape (N, *shape, C); uint8 for images (255 stands for 1), else numbers in
            physical units, kept as float32. Strides, byte order and precision make no difference.
        name: What reports call the data.
        remarks: How the data were understood, in sentences, where a file left room for doubt.
        series: Times and places, if they are known. With them, NaN is a value that is missing.

    Cells that are NaN in every item, as land in fields of the sea, are missing; they are neither
    observed nor scored. NaN in some items counts as damage, except in a series.

    Raises:
        InputError: There is no grid axis or no item, the values are no real numbers, some are
            masked, some are not finite in float32, or an item has no value.
    """

    values: np.ndarray
    name: str = "fields"
    remarks: tuple[str, ...] = ()
    series: Series | None = None

    def __post_init__(self) -> None:
        """Check what every later step relies on."""
        object.__setattr__(self, "values", _as_stored(self.values, self.name))
        if self.values.ndim < 3 or 0 in self.values.shape:
            raise InputError(
                f"{self.name}: expected values of shape (N, *grid, C), got {self.values.shape}"
            )
        if self.values.dtype == np.float32 and not np.isfinite(self.values).all():
            self._check_gaps()

    def _check_gaps(self) -> None:
        """Refuse what is not finite, unless it is missing."""
        missing = np.isnan(self.values)
        bad = ~np.isfinite(self.values)
        refuse_empty_channels(bad, self.name)
        if self.series is not None:
            bad &= ~missing
        elif not missing.all():
            bad &= ~missing.all(axis=0)
        empty = ~self._known_cells().any(axis=1)
        if bad.any() or (self.series is None and missing.all()):
            raise self._not_finite(bad if bad.any() else missing)
        if empty.any():
            raise InputError(
                f"{self.name}: {int(empty.sum())} of {len(self)} items have no value, the first "
                f"of them item {int(empty.argmax())}; drop those"
            )

    def _known_cells(self) -> np.ndarray:
        """Return where all channels have a value (N, L)."""
        return ~np.isnan(self.values).any(axis=-1).reshape(len(self), -1)

    def _not_finite(self, bad: np.ndarray) -> InputError:
        items = np.flatnonzero(bad.reshape(len(self), -1).any(axis=1))
        count, missing = int(bad.sum()), int(np.isnan(self.values[bad]).sum())
        return InputError(
            f"{self.name}: {count} of {bad.size} values are NaN or infinite in float32 "
            f"({missing} and {count - missing}), in {len(items)} of {len(self)} items, "
            f"the first of them item {items[0]}; drop those items or fill them"
        )

    def __repr__(self) -> str:
        """Return one line: name, number of items, grid and channels."""
        return f"FieldDataset({self.name!r}: {self.summary})"

    @property
    def summary(self) -> str:
        """Number of items, grid, channels and what the values are, in words."""
        grid = " x ".join(map(str, self.shape))
        count, channels = counted(len(self), "item"), counted(self.channels, "channel")
        kind = "bytes (255 stands for 1)" if self.is_images else "numbers"
        gaps = (
            "" if self.known is None else f", {1 - float(self.known.double().mean()):.1%} missing"
        )
        return f"{count} on a grid of {grid} cells with {channels} of {kind}{gaps}"

    @property
    def is_images(self) -> bool:
        """Whether values are bytes, which stand for [0, 1]."""
        return self.values.dtype == np.uint8

    def __len__(self) -> int:
        """Return the number of items N."""
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis of the grid."""
        return self.values.shape[1:-1]

    @property
    def grid(self) -> tuple[int, ...]:
        """The same: the grid whose cells are observed."""
        return self.shape

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
    def known(self) -> Tensor | None:
        """Which points have a value (N, L); None where all have."""
        if self.is_images or np.isfinite(self.values).all():
            return None
        return torch.from_numpy(self._known_cells())

    @property
    def days(self) -> np.ndarray | None:
        """Day (N,) of each item, where items have times."""
        return None if self.series is None else self.series.days

    def places(self, items: Sequence[int] | np.ndarray) -> Tensor:
        """Return the points (B, L, P) of some items."""
        return self.coords.expand(len(items), -1, -1)

    @cached_property
    def normalizer(self) -> Normalizer:
        """Scaling that suits the values: [0, 1] to [-1, 1] for images, else standardisation."""
        if self.is_images:
            return Normalizer.unit_range(self.channels)
        return Normalizer.fit(self.values)

    def check_range(self, normalizer: Normalizer, who: str) -> None:
        """Refuse values that a model cannot return, since its range ends before them.

        Args:
            normalizer: The model's, with the range if there is one.
            who: What the message calls the model.

        Raises:
            InputError: Some values lie outside.
        """
        low, high = normalizer.bounds
        if self.is_images:
            return
        outside = int(((self.values < low) | (self.values > high)).sum())
        if outside:
            raise InputError(
                f"{self.name}: {outside} of {self.values.size} values lie outside "
                f"[{low:g}, {high:g}], the range of {who}, and go from "
                f"{np.nanmin(self.values):g} to {np.nanmax(self.values):g}; scale them, or choose "
                "a model of such values"
            )

    def item(self, index: int) -> np.ndarray:
        """Return one item in physical units, float32, shape (L, C)."""
        return self.batch([index])[0].numpy()

    def batch(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Return some items in physical units, float32, shape (B, L, C); NaN where missing."""
        chosen = self.values[np.asarray(indices)].reshape(-1, self.points, self.channels)
        values = torch.from_numpy(chosen)
        return values.float() / 255 if values.dtype == torch.uint8 else values

    def subset(self, indices: Sequence[int] | np.ndarray) -> "FieldDataset":
        """Return the data set of some of its items, in the given order."""
        items = np.asarray(indices)
        series = None if self.series is None else self.series.subset(items)
        return replace(self, values=self.values[items], series=series)

    def resized(self, shape: Sequence[int]) -> "FieldDataset":
        """Return the data set on a coarser grid, each cell the mean of those it covers.

        Args:
            shape: Cells per axis, each a divisor of the present number.

        Raises:
            GridError: An axis is not divided evenly.
        """
        if tuple(shape) == self.shape:
            return self
        if not self.divides(shape):
            works = self._nearest_size(shape)
            how = "leaves it as it is" if works == self.shape else "is the nearest that works"
            raise GridError(
                f"{self.name}: cannot area-average a grid of {self.shape} to {tuple(shape)}; each "
                f"axis must be divided evenly; {size_setting(works)} {how}"
            )
        values = np.stack([self._coarsen(v, shape) for v in self.values])
        series = None if self.series is None else self.series.coarsened(shape)
        return replace(self, values=values, series=series)

    def divides(self, shape: Sequence[int]) -> bool:
        """Return whether every axis of the grid is a multiple of that of `shape`."""
        return len(shape) == len(self.shape) and all(
            new >= 1 and old % new == 0 for old, new in zip(self.shape, shape, strict=True)
        )

    def _nearest_size(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the grid of divisors that is nearest to a wanted one, by ratio of cells."""
        wanted = shape if len(shape) == len(self.shape) else self.shape
        return tuple(
            _nearest_divisor(old, new) for old, new in zip(self.shape, wanted, strict=True)
        )

    def _coarsen(self, item: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        factors = [old // new for old, new in zip(self.shape, shape, strict=True)]
        split = [part for pair in zip(shape, factors, strict=True) for part in pair]
        axes = tuple(range(1, len(split), 2))
        mean = item.reshape(*split, self.channels).mean(axis=axes, dtype=np.float32)
        return np.rint(mean).astype(np.uint8) if item.dtype == np.uint8 else mean


def open_dataset(
    path: str | Path,
    split: str = "validation",
    limit: int | None = None,
    *,
    size: Sequence[int] | None = None,
    channels: Channels = "auto",
    image_size: Sequence[int] | None = None,
) -> FieldDataset:
    """Open a data set on disk.

    Names tell splits apart by the rules of Hugging Face. A split is a folder whose name begins
    with train, training, validation, valid, val, dev, test, testing, eval or evaluation, or a file
    with such a word (train-00000-of-00003.parquet, train.npy in an .npz). Data that are divided by
    other names are refused. A single file has no splits, nor has a folder with all files in one
    place: all of it is read, and the `remarks` of the result say so.

    Args:
        path: A parquet file or folder in the Hugging Face layout (struct column `image` or `img`
            with `bytes`), an image file or folder, the official CIFAR-10 python archive or its
            folder, a .npy/.npz array of shape (N, *grid, C), or fields along time in NetCDF.
        split: Which part to read where names tell parts apart: "train", "validation" or "test";
            "all" reads everything, whatever the names.
        limit: Number of items at most, from the first, at least 1; all if None.
        size: Cells along each axis of the grid to area-average to, at least 1; images of other
            aspect are cropped at the centre first.
        channels: What the last axis of an array is: with "last" the channels, with "none" an axis
            of the grid. With "auto" up to 4 entries are channels, and more are refused.
        image_size: As `size`, but for images only, and only where it divides their grid.

    Returns:
        The data set: images as uint8, all else as float32.

    Raises:
        InputError: The data are missing, of no supported kind, damaged, ambiguous, larger than
            memory allows (see `core.memory`), of several sizes without `size`, or lack the split;
            or an argument is out of range.
    """
    select = Selection(split, limit, size, channels, image_size)
    return open_selection(path, select)


class Selection(NamedTuple):
    """What of a data set is wanted; the first five are those of `open_dataset`.

    Attributes:
        split: See there.
        limit: See there.
        size: See there.
        channels: See there.
        image_size: See there.
        values: Variables of NetCDF files that are channels; all on the same axes if empty.
        period: First and last time of fields in NetCDF, as 2019-03-01 or 2019-03-01T06; a last day
            counts whole. All times if empty.
    """

    split: str = "validation"
    limit: int | None = None
    size: Sequence[int] | None = None
    channels: Channels = "auto"
    image_size: Sequence[int] | None = None
    values: tuple[str, ...] = ()
    period: tuple[str, ...] = ()


def open_selection(path: str | Path, select: Selection) -> FieldDataset:
    """Open a part of a data set; see `open_dataset`.

    Raises:
        InputError: As there, or a variable or the period is not in the file.
    """
    split, limit, size, channels, image_size, values, period = select
    if split not in SPLIT_CODES:
        raise unknown_name("split", str(split), list(SPLIT_CODES))
    if channels not in CHANNELS:
        raise unknown_name("value of channels", str(channels), list(CHANNELS))
    if limit is not None and (not isinstance(limit, int | np.integer) or limit < 1):
        raise InputError(f"limit must be a whole number from 1, got {limit}")
    limit = None if limit is None else min(int(limit), sys.maxsize)
    size, image_size = _check_size(size, "size"), _check_size(image_size, "image_size")
    path = Path(path).expanduser()
    request = Request(split, limit, _image_request(size or image_size), values, period)
    found = read_examples(path, request)
    array, remarks = found.values, found.remarks
    if not found.images and found.series is None:
        array, understood = understand_axes(array, channels, str(path))
        remarks = (understood, *remarks)
    dataset = FieldDataset(array[:limit], path.name, remarks, found.series)
    if size is not None:
        return dataset.resized(size)
    for remark in remarks:
        _log.info(remark)
    fits = image_size is not None and dataset.is_images and dataset.divides(image_size)
    return dataset.resized(image_size) if fits and image_size is not None else dataset


def _nearest_divisor(whole: int, wanted: int) -> int:
    divisors = [n for n in range(1, whole + 1) if whole % n == 0]
    return min(divisors, key=lambda n: abs(math.log(n / max(wanted, 1))))


def _check_size(size: Sequence[int] | None, name: str) -> tuple[int, ...] | None:
    if size is None:
        return None
    cells = tuple(size)
    if not cells or not all(isinstance(n, int | np.integer) and n >= 1 for n in cells):
        raise InputError(f"{name} needs a whole number from 1 for each axis, got {cells}")
    return tuple(int(n) for n in cells)


def _image_request(size: tuple[int, ...] | None) -> tuple[int, int] | None:
    return (size[0], size[1]) if size is not None and len(size) == 2 else None


def _as_stored(values: np.ndarray, name: str) -> np.ndarray:
    """Return values as uint8 or float32, in native order; those that are so already, uncopied."""
    stored = type(values) is np.ndarray and values.dtype in (np.uint8, np.float32)
    if stored and values.dtype.isnative and values.flags.carray:
        return values
    array = real_array(values, name)
    with np.errstate(over="ignore"):  # what becomes infinite is named
        return array if array.dtype == np.uint8 else array.astype(np.float32, copy=False)


def carve_validation(
    n: int, count: int, seed: int = 0, *, days: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split items into a training and a validation part: at random, or the last whole days.

    Args:
        n: Number of items.
        count: Number of items of the validation part, between 1 and `n - 1`; of whole days as
            many more as complete the first one.
        seed: Seed of the choice.
        days: Day (N,) of each item. Items that follow each other are alike: neighbours of what
            was trained on would say little.

    Returns:
        Sorted indices of the training part, shape (n - count,), and the validation part,
        shape (count,).

    Raises:
        InputError: One of the parts would be empty.
    """
    if n < 2:
        raise InputError(f"cannot hold out a validation part of {n} item; it takes at least two")
    if not 1 <= count < n:
        raise InputError(
            f"cannot hold out {count} of {n} items, since both parts need at least one; "
            f"data.validation={validation_share(n)} holds out a part that suits"
        )
    if days is not None and days.min() < days.max():
        first = max(np.sort(days)[n - count], days.min() + 1)
        return np.flatnonzero(days < first), np.flatnonzero(days >= first)
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[count:]), np.sort(order[:count])


def validation_share(n: int) -> int:
    """Return how many of n items to hold out: 500, or a fifth where that is fewer."""
    return max(1, min(500, n // 5))
