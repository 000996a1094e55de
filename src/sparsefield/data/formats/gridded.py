"""Grids with gaps: from arrays and their axes to observations."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsefield.core.checks import partly_missing
from sparsefield.core.errors import InputError
from sparsefield.data.formats.placing import Axes, place
from sparsefield.data.formats.reading import Reading
from sparsefield.data.frame import Frame, axis_kind
from sparsefield.data.masks import observed_indices
from sparsefield.data.observation import Observation

# Steps of an axis are even if they differ by less than this share of one.
_EVEN = 1e-3


class GridAxis(NamedTuple):
    """An axis of a grid.

    Attributes:
        name: Its name.
        unit: Its unit, "" where it is unknown.
        positions: Where the cells lie along it (n,).
    """

    name: str
    unit: str
    positions: np.ndarray


def known_cells(path: Path, values: np.ndarray, reading: Reading) -> np.ndarray:
    """Return the numbers of the cells that were observed, of values (L, C) with NaN for gaps.

    Raises:
        InputError: Nothing is known, channels differ in what is, or all is known and `density`
            does not say which part counts.
    """
    missing = ~np.isfinite(values)
    for channel in range(values.shape[1]):
        if missing[:, channel].all():
            which = f"channel {channel + 1} of {values.shape[1]}"
            raise InputError(f"{path}: nothing is known of {which}: it has no number")
    partly = partly_missing(missing)
    if partly.size:
        raise InputError(
            f"{path}: {partly.size} cells are missing in some channels only; choose one with value"
        )
    cells = np.flatnonzero(~missing[:, 0])
    if reading.density is not None:
        return cells[observed_indices(len(cells), reading.density, reading.seed, "validation", 0)]
    if len(cells) == len(values):
        raise InputError(
            f"{path} has no gaps, so nothing is missing; make the unknown cells NaN, or give "
            "--density (density=) for the part that counts as observed"
        )
    return cells


def observe_grid(
    path: Path, values: np.ndarray, axes: Sequence[GridAxis], reading: Reading
) -> Observation:
    """Return the cells of a grid (*shape, C) that were observed; NaN was not.

    The domain reaches half a cell beyond the outermost ones. Even axes make a grid of cells.

    Raises:
        InputError: What `known_cells` and `check_axis` raise.
    """
    for axis in axes:
        check_axis(path, axis)
    flat = values.reshape(-1, values.shape[-1])
    cells = known_cells(path, flat, reading)
    index = np.unravel_index(cells, values.shape[:-1])
    coords = np.stack([a.positions[i] for a, i in zip(axes, index, strict=True)], axis=-1)
    noise = None if isinstance(reading.noise, tuple) else reading.noise
    names = Axes(tuple(a.name for a in axes), tuple(a.unit for a in axes))
    frame, even = frame_of(axes) if reading.frame is None else (reading.frame, False)
    obs = place(coords, flat[cells], noise, axes=names, reading=reading._replace(frame=frame))
    if not even:
        return obs
    return Observation(obs.coords, obs.values, obs.noise, grid=values.shape[:-1], frame=frame)


def check_axis(path: Path, axis: GridAxis) -> None:
    """Refuse an axis without numbers, with one position, or that turns back.

    Raises:
        InputError: It is one.
    """
    x, name = axis.positions, axis.name
    if not np.isfinite(x).all():
        raise InputError(f"{path}: axis '{name}' holds NaN or infinite numbers")
    steps = np.diff(x)
    if len(x) < 2:
        raise InputError(
            f"{path}: axis '{name}' has one position, an extent of zero; leave it out"
        )
    if (steps == 0).any():
        raise InputError(f"{path}: axis '{name}' repeats the position {x[1:][steps == 0][0]:g}")
    if not ((steps > 0).all() or (steps < 0).all()):
        turn = int(np.flatnonzero(np.sign(steps) != np.sign(steps[0]))[0])
        raise InputError(
            f"{path}: axis '{name}' neither rises nor falls throughout: {x[turn]:g} is followed "
            f"by {x[turn + 1]:g}; sort it"
        )


def frame_of(axes: Sequence[GridAxis]) -> tuple[Frame, bool]:
    """Return the frame of a grid, and whether its cells divide the domain evenly."""
    low, high, even = [], [], True
    for axis in axes:
        x = np.sort(axis.positions)
        first, last = x[0] - (x[1] - x[0]) / 2, x[-1] + (x[-1] - x[-2]) / 2
        step = (x[-1] - x[0]) / (len(x) - 1)
        even &= bool(np.abs(np.diff(x) - step).max() <= _EVEN * step)
        if axis_kind(axis.name, axis.unit) == "latitude" and x[0] >= -90 and x[-1] <= 90:
            even &= max(-first, last) <= 90 + _EVEN * step
            first, last = max(first, -90.0), min(last, 90.0)
        low.append(float(first))
        high.append(float(last))
    names = tuple(axis.name for axis in axes)
    return Frame(names, tuple(low), tuple(high), units=tuple(axis.unit for axis in axes)), even
