"""From columns of numbers to observations with a frame: what tables, archives and grids share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.formats.reading import LOGGER, Reading
from sparsefield.data.frame import Frame
from sparsefield.data.observation import Observation

# Axes whose coordinates may be those of the domain [-1, 1] itself, if they lie within.
PLAIN = (("x",), ("y", "x"), ("z", "y", "x"))


class Axes(NamedTuple):
    """Axes of the coordinates.

    Attributes:
        names: Their names.
        units: Their units, "" where unknown.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]


def plain_axes(dims: int) -> Axes:
    """Return the axes of coordinates that have no names.

    Raises:
        InputError: There are more than three.
    """
    if dims > len(PLAIN):
        raise InputError(f"coordinates of {dims} dimensions need names; name them in coords")
    return Axes(PLAIN[dims - 1], ("",) * dims)


def place(
    coords: np.ndarray, values: np.ndarray, noise: Any, *, axes: Axes, reading: Reading
) -> Observation:
    """Return measurements at coordinates (M, P) in the units of their axes.

    Axes x, y and z without units whose coordinates all lie in [-1, 1] are those of the domain.
    Others get a frame around the measurements, and it is said.

    Raises:
        InputError: An axis has no extent, or what `Observation` raises.
    """
    if reading.frame is None and _is_domain(coords, axes):
        return Observation(coords, values, noise)
    frame = reading.frame or _frame(coords, axes, reading)
    obs = Observation.at(coords, values, noise, frame=frame)
    if reading.frame is None:
        LOGGER.info("domain: %s%s", frame.describe(), _rate(frame))
    return obs


def _is_domain(coords: np.ndarray, axes: Axes) -> bool:
    names = tuple(name.lower() for name in axes.names)
    return names in PLAIN and not any(axes.units) and bool((np.abs(coords) <= 1).all())


def _frame(coords: np.ndarray, axes: Axes, reading: Reading) -> Frame:
    """Return the frame around points; a time counts as the settings say, or as much as space."""
    frame = Frame.of(coords, axes.names, axes.units)
    times = [axis for axis, kind in enumerate(frame.kinds) if kind == "time"]
    if not times or frame.dims == 1:
        if reading.time_scale is not None:
            raise InputError("a time scale needs an axis of times beside one of space")
        return frame
    name = frame.names[times[0]]
    scale = reading.time_scale or _even_scale(frame, coords, times[0])
    return frame.scaled(**{name: scale})


def _even_scale(frame: Frame, coords: np.ndarray, axis: int) -> float:
    """Return the lengths per unit of time at which times vary as much as places do."""
    positions = frame.positions(frame.to_unit(np.ma.getdata(coords)))
    spread = positions.std(axis=0)
    time = coords[:, axis].std()
    space = np.sqrt(max((spread**2).sum() - time**2, 0) / max(frame.dims - 1, 1))
    return float(f"{space / time:.3g}") if space > 0 and time > 0 else 1.0


def _rate(frame: Frame) -> str:
    """Say how a time counts beside lengths."""
    return f"; {frame.rate} (time_scale sets it)" if frame.rate else ""


def pick(names: Sequence[str], wanted: Sequence[str], where: str, kind: str) -> list[str]:
    """Return the names wanted, in letters of either case.

    Raises:
        InputError: One is not there; the message lists those that are.
    """
    found = []
    for name in wanted:
        same = [other for other in names if other == name] or [
            other for other in names if other.lower() == name.lower()
        ]
        if len(same) != 1:
            raise InputError(f"{where} has no {kind} '{name}'; it has: {', '.join(names)}")
        found += same
    return found
