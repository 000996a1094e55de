"""What a baseline is given and what it returns."""

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

import numpy as np

# Values whose range is below this share of their size differ by rounding alone.
ROUNDING = 8 * np.finfo(float).eps


class BaselineWarning(UserWarning):
    """A baseline could not take the measurements as they are; the message says what it did."""


class Prediction(NamedTuple):
    """A reconstructed field in physical units.

    Attributes:
        mean: Values (L, C).
        std: Standard deviation (L, C) of a Gaussian forecast of the exact value at each point;
            None if the method has none, NaN where the measurements say nothing about it.
        seconds: Wall-clock time it took.
        field_std: The same for the field without what the nugget stands for: variation below the
            spacing of the points, and errors that were not stated.
        note: What was done to measurements that the method cannot take as they are.
    """

    mean: np.ndarray
    std: np.ndarray | None = None
    seconds: float = 0.0
    field_std: np.ndarray | None = None
    note: str = ""


class Points(NamedTuple):
    """One task: measured points and where to predict.

    Attributes:
        coords: Measured positions (M, P).
        values: Measurements in physical units (M, C).
        query: Positions to predict (L, P).
        noise: Standard deviation of each measurement's error (M, C), in the units of the values;
            None for exact measurements.
    """

    coords: np.ndarray
    values: np.ndarray
    query: np.ndarray
    noise: np.ndarray | None = None

    @property
    def dims(self) -> int:
        """Number of coordinate dimensions P."""
        return self.coords.shape[1]

    @property
    def radius(self) -> float:
        """Root mean square distance of the measured positions from their centre."""
        offsets = self.coords - self.coords.mean(axis=0)
        return float(np.sqrt((offsets**2).sum(axis=1).mean()))

    @property
    def spacing(self) -> float:
        """Distance between the points, were they spread evenly over as much room."""
        return 2 * self.radius / len(self.coords) ** (1 / self.dims)

    def channel(self, index: int) -> "Points":
        """Return the points with one of their channels."""
        noise = None if self.noise is None else self.noise[:, index : index + 1]
        return self._replace(values=self.values[:, index : index + 1], noise=noise)


def in_own_units(interpolate: Callable[[Points], Prediction]) -> Callable[[Points], Prediction]:
    """Make an interpolator equivariant to offset and unit of each channel and of the coordinates.

    It sees values around 0 with the standard deviation 1, errors included, and exact zeros in a
    channel that is constant. Coordinates are around 0 with a radius near 1. Tolerances inside
    of it then mean the same for every unit.
    """

    @wraps(interpolate)
    def equivariant(points: Points) -> Prediction:
        centre, scale = _units(points)
        noise = None if points.noise is None else points.noise / scale
        # A power of two, and a multiple of it, keep what is regular on a grid to the last bit.
        radius = 2.0 ** np.round(np.log2(points.radius)) if points.radius > 0 else 1.0
        origin = radius * np.round(points.coords.mean(axis=0) / radius)
        coords, query = ((x - origin) / radius for x in (points.coords, points.query))
        found = interpolate(Points(coords, (points.values - centre) / scale, query, noise))
        return found._replace(
            mean=centre + scale * found.mean,
            std=None if found.std is None else scale * found.std,
            field_std=None if found.field_std is None else scale * found.field_std,
        )

    return equivariant


def _units(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return centre and scale of each channel (C,); a constant is its centre, exactly."""
    low, high = points.values.min(axis=0), points.values.max(axis=0)
    constant = high - low <= ROUNDING * np.maximum(abs(low), abs(high))
    centre = np.where(constant, low, low + (high - low) / 2)
    variance = np.where(constant, 0.0, points.values.var(axis=0))
    if points.noise is not None:
        variance = variance + (points.noise**2).mean(axis=0)
    return centre, np.sqrt(np.where(variance > 0, variance, 1.0))
