"""The fields that a run learns from, and the settings that follow them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import (
    FieldDataset,
    Selection,
    carve_validation,
    open_selection,
    validation_share,
)
from sparsefield.data.formats.point_sets import Columns, holds_points, read_point_sets
from sparsefield.data.grids import GridError, size_setting
from sparsefield.data.scattered import ScatteredDataset
from sparsefield.data.series import join_series
from sparsefield.training.config import DataConfig, TrainConfig

Examples = FieldDataset | ScatteredDataset


class TrainingData(NamedTuple):
    """What a run learns from and is chosen by.

    Attributes:
        training: Fields to learn from.
        validation: Fields to choose the best weights by.
        finer: The training fields of which a finer grid is known, on that grid.
    """

    training: Examples
    validation: Examples
    finer: FieldDataset | None = None


def open_training_data(config: TrainConfig) -> TrainingData:
    """Open the training fields of all data sets, and the validation fields carved from them.

    Raises:
        InputError: There are no data, the sets do not share a grid, or none has the finer one.
    """
    data = config.data
    if not data.paths:
        raise InputError("no training data: pass --data with a file or folder of fields")
    paths = [Path(path).expanduser() for path in data.paths]
    if all(map(holds_points, paths)):
        columns = Columns(data.coords, data.values, data.item)
        return TrainingData(*_carve(read_point_sets(paths, columns, data.size), config)[:2])
    sets = [_open(path, data, data.size, data.image_size) for path in data.paths]
    _check_alike(sets)
    training, validation, kept = _carve(_join(sets), config)
    return TrainingData(training, validation, _open_finer(data, sets, kept) if data.fine else None)


def _carve(whole: Examples, config: TrainConfig) -> tuple[Examples, Examples, np.ndarray]:
    """Return what to learn from, what is held out, and the numbers of the former."""
    count = config.data.validation or validation_share(len(whole))
    kept, held_out = carve_validation(len(whole), count, config.seed, days=whole.days)
    return whole.subset(kept), whole.subset(held_out), kept


def _join(sets: Sequence[FieldDataset]) -> FieldDataset:
    """Return one data set of all items; those of series lie on the grid of the first."""
    if len(sets) == 1:
        return replace(sets[0], remarks=())
    name, values = "+".join(s.name for s in sets), np.concatenate([s.values for s in sets])
    series = [s.series for s in sets if s.series is not None]
    return FieldDataset(values, name, series=join_series(series) if series else None)


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
    select = Selection(
        data.split,
        data.limit or None,
        size or None,
        data.channels,
        image_size or None,
        data.values,
        data.period,
    )
    return open_selection(path, select)


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
