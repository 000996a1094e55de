"""When and where the fields of a data set lie: what a file says beside the values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.frame import EARTH_KM, Frame

HOURS = 24


@dataclass(frozen=True, eq=False)
class Series:
    """Times of the items, and the places of the cells, of fields on one grid.

    Args:
        axes: Coordinates of the cell centres along each axis of the grid, rising.
        names: Name of each axis.
        units: Unit of each axis, "" where it is unknown.
        times: Time (N,) of each item, datetime64; None where items have none.
        unit: Unit of the values, "" where it is unknown.
    """

    axes: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]
    times: np.ndarray | None = None
    unit: str = ""

    def subset(self, items: np.ndarray) -> "Series":
        """Return the series of some of the items."""
        return self if self.times is None else replace(self, times=self.times[items])

    def coarsened(self, shape: Sequence[int]) -> "Series":
        """Return the series on a grid of fewer cells, each in the middle of those it covers."""
        axes = tuple(
            axis.reshape(cells, -1).mean(1) for axis, cells in zip(self.axes, shape, strict=True)
        )
        return replace(self, axes=axes)

    @cached_property
    def days(self) -> np.ndarray | None:
        """Calendar day (N,) of each item: hours of one are not independent."""
        return None if self.times is None else self.times.astype("datetime64[D]").astype(int)

    @cached_property
    def hours(self) -> np.ndarray:
        """Hour of the day (N,) of each item, 0 where items have no time."""
        if self.times is None:
            return np.zeros(0, int)
        return self.times.astype("datetime64[h]").astype(int) % HOURS

    @cached_property
    def lengths(self) -> np.ndarray:
        """Half the extent (P,) of the grid along each axis, in one unit.

        Degrees of longitude and latitude count in km at the middle latitude, so that axes times
        `lengths` is a map on which distances are true as long as the region is small.
        """
        half = np.array([_extent(axis) / 2 for axis in self.axes])
        kinds = [_kind(name, unit) for name, unit in zip(self.names, self.units, strict=True)]
        if {"lon", "lat"} <= set(kinds):
            middle = np.radians(np.mean(self.axes[kinds.index("lat")]))
            degree = np.radians(1) * EARTH_KM
            half[kinds.index("lat")] *= degree
            half[kinds.index("lon")] *= degree * np.cos(middle)
        return half

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """Where the cells begin and end along each axis."""
        found = []
        for axis in self.axes:
            room = _extent(axis) / len(axis) / 2
            found.append((float(axis[0] - room), float(axis[-1] + room)))
        return found

    @property
    def frame(self) -> Frame | None:
        """The frame of the grid; None of cells that reach beyond a pole or round the world."""
        low, high = zip(*self.bounds, strict=True)
        try:
            return Frame(self.names, low, high, units=self.units)
        except InputError:
            return None

    def card(self) -> dict[str, Any]:
        """Return the frame and the unit of the values in a form that JSON keeps."""
        frame = self.frame
        found = {} if frame is None else {"frame": frame.to_dict()}
        return found | {"unit": self.unit}

    def describe(self) -> str:
        """Return the axes and the time span in words."""
        parts = [
            f"{name} {axis[0]:g} to {axis[-1]:g}{f' {unit}' if unit else ''}"
            for name, unit, axis in zip(self.names, self.units, self.axes, strict=True)
        ]
        if self.times is not None:
            first, last = (str(self.times[at].astype("datetime64[m]")) for at in (0, -1))
            parts.append(f"{first} to {last}")
        return ", ".join(parts)


def _extent(axis: np.ndarray) -> float:
    """Return the length of an axis from the outer side of its first cell to that of its last."""
    span = float(axis[-1] - axis[0])
    return span * len(axis) / (len(axis) - 1) if len(axis) > 1 else 1.0


def _kind(name: str, unit: str) -> str:
    unit, name = unit.lower(), name.lower()
    if (unit.startswith("degree") and unit.endswith(("north", "_n"))) or name.startswith("lat"):
        return "lat"
    if (unit.startswith("degree") and unit.endswith(("east", "_e"))) or name.startswith("lon"):
        return "lon"
    return name


def join_series(parts: Sequence[Series]) -> Series:
    """Return the series of several data sets on the grid of the first; times if all have some."""
    times = [part.times for part in parts if part.times is not None]
    whole = np.concatenate(times) if len(times) == len(parts) else None
    return replace(parts[0], times=whole)
