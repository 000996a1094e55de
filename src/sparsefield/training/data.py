"""The fields that a run learns from, and the settings that follow them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import (
    FieldDataset,
    carve_validation,
    open_dataset,
    validation_share,
)
from sparsefield.data.grids import GridError, size_setting
from sparsefield.training.config import DataConfig, TrainConfig


class TrainingData(NamedTuple):
    """What a run learns from and is chosen by.

    Attributes:
        training: Fields to learn from.
        validation: Fields to choose the best weights by.
        finer: The training fields of which a finer grid is known, on that grid.
    """

    training: FieldDataset
    validation: FieldDataset
    finer: FieldDataset | None = None


def open_training_data(config: TrainConfig) -> TrainingData:
    """Open the training fields of all data sets, and the validation fields carved from them.

    Raises:
        InputError: There are no data, the sets do not share a grid, or none has the finer one.
    """
    data = config.data
    if not data.paths:
        raise InputError("no training data: pass --data with a file or folder of fields")
    sets = [_open(path, data, data.size, data.image_size) for path in data.paths]
    _check_alike(sets)
    whole = FieldDataset(np.concatenate([s.values for s in sets]), "+".join(s.name for s in sets))
    count = data.validation or validation_share(len(whole))
    kept, held_out = carve_validation(len(whole), count, config.seed)
    finer = _open_finer(data, sets, kept) if data.fine else None
    return TrainingData(whole.subset(kept), whole.subset(held_out), finer)


def follow_data(config: TrainConfig, data: TrainingData) -> TrainConfig:
    """Return the configuration with every setting that was left to the data in figures."""
    flip = data.training.is_images if config.data.flip == "auto" else config.data.flip
    settled = replace(
        config.data, size=data.training.shape, validation=len(data.validation), flip=flip
    )
    return replace(config, data=settled)


def _open(
    path: str, data: DataConfig, size: tuple[int, ...], image_size: tuple[int, ...] = ()
) -> FieldDataset:
    return open_dataset(
        path,
        data.split,
        data.limit or None,
        size=size or None,
        channels=data.channels,
        image_size=image_size or None,
    )


def _check_alike(sets: Sequence[FieldDataset]) -> None:
    """Refuse sets that cannot be joined.

    Raises:
        InputError: They differ in grid, channels or type.
    """
    kinds = {s.summary.partition(" on ")[2] for s in sets}
    if len(kinds) < 2:
        return
    differ = "; ".join(f"{s.name}: {s.summary}" for s in sets)
    common = _common_size(sets)
    advice = f"set {size_setting(common)}" if common else "train on one of them at a time"
    raise InputError(f"the data sets differ in grid or channels ({differ}); {advice}")


def _common_size(sets: Sequence[FieldDataset]) -> tuple[int, ...] | None:
    """Return the largest grid that divides those of all sets, if nothing else keeps them apart."""
    if len({(len(s.shape), s.channels, s.values.dtype) for s in sets}) > 1:
        return None
    return tuple(int(np.gcd.reduce(cells)) for cells in zip(*(s.shape for s in sets), strict=True))


def _open_finer(data: DataConfig, sets: list[FieldDataset], kept: np.ndarray) -> FieldDataset:
    """Return the kept fields of all sets on the finer grid, of those that have it."""
    parts, first = [], 0
    for path, coarse in zip(data.paths, sets, strict=True):
        mine = kept[(kept >= first) & (kept < first + len(coarse))] - first
        first += len(coarse)
        try:
            finer = _open(path, data, data.fine)
        except GridError:  # its own grid is not as fine
            continue
        parts.append(finer.subset(mine).values)
    if not parts:
        raise InputError(f"no data set has a grid as fine as data.fine={list(data.fine)}")
    return FieldDataset(np.concatenate(parts), "finer")
