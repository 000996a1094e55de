"""Scattered measurements of a field."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.words import counted
from sparsefield.data.conversion import ArrayLike, inside, split_mask
from sparsefield.data.frame import Frame
from sparsefield.data.observation_parts import (
    check_frame,
    check_measured,
    check_points,
    read_grid,
    read_mask,
    read_noise,
    read_points,
)
from sparsefield.data.repeats import merge_repeats

__all__ = ["ArrayLike", "Observation", "Quantity"]

_PARTS = ("coords", "values", "valid", "noise", "grid", "frame", "quantities")


class Quantity(NamedTuple):
    """What a channel is.

    Attributes:
        name: Its name, "" where it has none.
        unit: Its unit, "" where it is unknown.
    """

    name: str = ""
    unit: str = ""


UNNAMED: tuple[Quantity, ...] = ()


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Observation:
    """M measured points of a field, or a batch of B such sets padded to one length.

    Args:
        coords: Positions in [-1, 1], shape (M, P) or (B, M, P).
        values: Measured values, shape (M, C) or (B, M, C).
        noise: Standard deviation of the measurement error, at least 0, in the unit of the values:
            one number, one per row (M,), or one per row and channel (M, C), each with B in front
            for a batch. An axis of length 1 stands for all: (1, C) is one per channel. None, or
            0 everywhere, states no error: flows and baselines take the measurements as exact, and
            `Interpolator` estimates their error.
        valid: Which rows are measurements and which are padding, bool, shape (M,) or (B, M);
            all are if it is not given. Rows that are not valid may hold anything, and become 0.
        grid: Cells along each axis of the grid whose cells were observed, P numbers; None for
            measurements at points.
        frame: The domain in physical units, which [-1, 1] stands for. `Observation.at` takes
            coordinates in these units.

    Attributes:
        quantities: Name and unit of each channel, empty where unknown; `labelled` sets them.

    Floating-point tensors keep their type. Arrays and sequences become float64 where float32 would
    lose digits, and float32 elsewhere. Rows of masked arrays that are masked were not observed:
    they are left out, or are not valid in a batch.

    Raises:
        InputError: Shapes disagree, these are no real numbers, no row is a measurement, or a valid
            row is NaN, infinite, outside [-1, 1] or masked in a part of its channels. Or a noise
            is negative or not finite, or grid or frame have other axes than the coordinates.
    """

    coords: Tensor
    values: Tensor
    valid: Tensor
    noise: Tensor | None
    grid: tuple[int, ...] | None
    frame: Frame | None
    quantities = UNNAMED

    def __init__(
        self,
        coords: ArrayLike,
        values: ArrayLike,
        noise: float | ArrayLike | None = None,
        *,
        valid: ArrayLike | None = None,
        grid: Sequence[int] | None = None,
        frame: Frame | None = None,
    ) -> None:
        """Convert to tensors, check, and zero the rows that are not valid."""
        coords, values, seen = read_points(coords, values)
        check_points(coords, values)
        mask = read_mask(valid, coords) & seen.to(coords.device)
        if not mask.any(dim=-1).all():
            raise InputError("valid: no row is a measurement; at least one is needed")
        check_measured("coords", coords, mask)
        check_measured("values", values, mask)
        sigma = read_noise(noise, values, mask)
        about = read_grid(grid, coords.shape[-1]), check_frame(frame, coords.shape[-1]), ()
        empty = ~mask[..., None]
        coords = inside(coords.masked_fill(empty, 0), valid=mask)
        self._assign(coords, values.masked_fill(empty, 0), mask, sigma, *about)
        if coords.ndim == 2 and not seen.all():
            self._assign(*self._rows(seen.to(coords.device)), *about)

    def __repr__(self) -> str:
        """Say what was observed, without the numbers."""
        sets = f"{len(self.coords)} x " if self.coords.ndim == 3 else ""
        size = "" if self.grid is None else f", cells of {' x '.join(map(str, self.grid))}"
        noise = "" if self.noise is None else ", noisy"
        where = "" if self.frame is None else f", {self.frame.describe()}"
        return (
            f"Observation({sets}{counted(self.count, 'point')}, {self.dims}-D, "
            f"{counted(self.channels, 'channel')}{size}{noise}{where})"
        )

    @classmethod
    def at(
        cls,
        physical: ArrayLike,
        values: ArrayLike,
        noise: float | ArrayLike | None = None,
        *,
        names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        frame: Frame | None = None,
    ) -> "Observation":
        """Return measurements at places in physical units, such as degrees or metres.

        Args:
            physical: Positions (M, P) in the units of the frame; masked rows were not observed.
            values: As in `Observation`.
            noise: As in `Observation`.
            names: Names of the axes for a frame that is made around the places, as in
                `Frame.of`: `("lat", "lon")` lie on the sphere.
            units: Units of the axes of that frame.
            frame: The domain, if it is not to be made.

        Raises:
            InputError: A place lies outside of the frame, there is neither a frame nor names, or
                what `Observation` and `Frame.of` raise.
        """
        if (frame is None) == (names is None):
            raise InputError("places in units of their own take either names= or frame=")
        places, mask = split_mask(physical, "coords")
        if frame is None:
            frame = Frame.of(physical, names or (), units)
        hidden = np.zeros((*places.shape[:-1], 1), bool)
        if mask is not None:
            hidden |= np.any(mask, axis=-1, keepdims=True)
        middle = (np.array(frame.low) + np.array(frame.high)) / 2
        unit = frame.to_unit(np.where(hidden, middle, places))
        coords = np.ma.masked_array(unit, np.broadcast_to(hidden, unit.shape))
        return cls(coords, values, noise, frame=frame)

    def labelled(self, *quantities: tuple[str, str]) -> "Observation":
        """Return it with labels of its channels, which results carry.

        Args:
            quantities: Name and unit of each channel, as ("temperature", "K").

        Raises:
            InputError: Their number is not that of the channels.
        """
        if len(quantities) != self.channels:
            raise InputError(
                f"a label for each of {counted(self.channels, 'channel')} is expected, "
                f"got {len(quantities)}"
            )
        found = tuple(Quantity(*map(str, each)) for each in quantities)
        return self._checked(*self._tensors, self.grid, self.frame, found)

    def within(self, frame: Frame) -> "Observation":
        """Return the same measurements in another frame, in its order of the axes.

        Cells become points.

        Raises:
            InputError: There is no frame to come from, the new one has other axes, or a place
                lies outside of it.
        """
        if self.frame is None:
            raise InputError("observations without a frame have no place in another one")
        if frame == self.frame:
            return self
        places = self.physical()[..., frame.order_of(self.frame)]
        coords = torch.from_numpy(frame.to_unit(places)).to(self.coords.device)
        return self._checked(coords, *self._tensors[1:], None, frame, self.quantities)

    def scaled(self, **scales: float) -> "Observation":
        """Return the same measurements with other scales of the frame's axes.

        Raises:
            InputError: There is no frame, it has no such axis, or a scale is not above 0.
        """
        if self.frame is None:
            raise InputError("observations without a frame have no axes to scale")
        return self._checked(
            *self._tensors, self.grid, self.frame.scaled(**scales), self.quantities
        )

    def positions(self) -> Tensor:
        """Return coordinates (..., M, Q) whose Euclidean distance is that of the places.

        They are those of the frame, see `Frame.positions`, or the coordinates without one.
        """
        if self.frame is None:
            return self.coords
        return torch.from_numpy(self.frame.positions(self.coords)).to(self.coords.device)

    def physical(self) -> Tensor:
        """Return coordinates (..., M, P) in the units of the frame, or in [-1, 1] without one."""
        if self.frame is None:
            return self.coords
        return torch.from_numpy(self.frame.to_physical(self.coords)).to(self.coords.device)

    def _assign(self, *parts: Any) -> None:
        for name, part in zip(_PARTS, parts, strict=True):
            object.__setattr__(self, name, part)

    @classmethod
    def _checked(cls, *parts: Any) -> "Observation":
        """Return an observation of parts that come from a checked one."""
        new = cls.__new__(cls)
        new._assign(*parts)
        return new

    @property
    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        return self.coords, self.values, self.valid, self.noise

    @property
    def _about(self) -> tuple[Any, ...]:
        """What holds for all rows: grid, frame and quantities."""
        return self.grid, self.frame, self.quantities

    def _rows(self, index: Any) -> list[Tensor | None]:
        return [None if part is None else part[index] for part in self._tensors]

    @staticmethod
    def stack(observations: Sequence["Observation"]) -> "Observation":
        """Return one batch of single observations, padded to the longest.

        Args:
            observations: B observations without a batch axis, with the same P, C, grid and frame.
                Where some have noise, the others count as exact.

        Returns:
            The batch, with coords of shape (B, M, P).

        Raises:
            InputError: One has a batch axis, or P, C, the grid or the frame differ.
        """
        kinds = {(obs.coords.ndim, obs.dims, obs.channels, obs.grid) for obs in observations}
        if len(kinds) != 1 or next(iter(kinds))[0] != 2:
            raise InputError(
                "stack needs observations without a batch axis and with equal dims, channels and "
                f"grid, got (axes, dims, channels, grid) {sorted(kinds, key=str)}"
            )
        longest = max(obs.count for obs in observations)
        if len({obs.frame for obs in observations}) > 1:
            raise InputError("stack needs observations in one frame")
        noisy = any(obs.noise is not None for obs in observations)
        padded = [obs.pad(longest) for obs in observations]
        return Observation._checked(
            torch.stack([obs.coords for obs in padded]),
            torch.stack([obs.values for obs in padded]),
            torch.stack([obs.valid for obs in padded]),
            torch.stack([obs._sigma for obs in padded]) if noisy else None,
            *observations[0]._about,
        )

    @property
    def _sigma(self) -> Tensor:
        """Standard deviation of every value, 0 where it is exact."""
        return torch.zeros_like(self.values) if self.noise is None else self.noise

    @property
    def count(self) -> int:
        """Number of rows M, padding included."""
        return self.coords.shape[-2]

    @property
    def dims(self) -> int:
        """Number of coordinate dimensions P."""
        return self.coords.shape[-1]

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.values.shape[-1]

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Observation":
        """Return it on another device or with another floating type."""
        return self._checked(
            self.coords.to(device=device, dtype=dtype),
            self.values.to(device=device, dtype=dtype),
            self.valid.to(device=device),
            None if self.noise is None else self.noise.to(device=device, dtype=dtype),
            *self._about,
        )

    def batched(self) -> "Observation":
        """Return it with a batch axis, shape (1, M, ...) where there was none."""
        return self if self.coords.ndim == 3 else self._checked(*self._rows(None), *self._about)

    def item(self, index: int) -> "Observation":
        """Return one set of a batch, without its padding.

        Raises:
            InputError: This is no batch.
        """
        if self.coords.ndim != 3:
            raise InputError("item takes one set out of a batch; this is a single set")
        one = self._checked(*self._rows(index), *self._about)
        return self._checked(*one._rows(one.valid), *self._about)

    def sets(self, index: slice) -> "Observation":
        """Return some sets of a batch, as padded as they are.

        Raises:
            InputError: This is no batch.
        """
        if self.coords.ndim != 3:
            raise InputError("sets takes sets out of a batch; this is a single set")
        return self._checked(*self._rows(index), *self._about)

    def take(self, rows: ArrayLike) -> "Observation":
        """Return some rows of a single set, by their numbers or by a mask (M,).

        Raises:
            InputError: This is a batch.
        """
        if self.coords.ndim != 2:
            raise InputError("take takes rows of a single set; this is a batch")
        return self._checked(*self._rows(torch.as_tensor(rows)), *self._about)

    def pad(self, count: int) -> "Observation":
        """Return it with zero rows, which are not valid, appended up to `count` rows.

        Raises:
            InputError: It has more rows than that.
        """
        extra = count - self.count
        if extra < 0:
            raise InputError(f"cannot pad {self.count} observations to {count}")
        rows = (0, 0, 0, extra)
        return self._checked(
            F.pad(self.coords, rows),
            F.pad(self.values, rows),
            F.pad(self.valid, (0, extra)),
            None if self.noise is None else F.pad(self.noise, rows),
            *self._about,
        )

    def on_grid(self, grid: Sequence[int] | None) -> "Observation":
        """Return it as observations of cells of a grid, or of points.

        Args:
            grid: Cells along each axis, P numbers of at least 1; None for points.

        Raises:
            InputError: These are others.
        """
        return self._checked(
            *self._tensors, read_grid(grid, self.dims), self.frame, self.quantities
        )

    def repeat(self, samples: int) -> "Observation":
        """Return the batch S times in a row, for S samples, at least 1: shape (S B, M, ...).

        `unflatten(0, (S, B))` on a result separates the samples again.
        """
        parts = self.batched()._tensors
        copies = [None if p is None else p.repeat(samples, *[1] * (p.ndim - 1)) for p in parts]
        return self._checked(*copies, *self._about)

    def merged(self) -> "Observation":
        r"""Return it with one row a place, as a flow is given it.

        Readings :math:`y_i` of one place with errors of standard deviation :math:`\sigma_i` say as
        much of it as their weighted mean,

        .. math:: \bar y = \frac{\sum_i y_i / \sigma_i^2}{\sum_i 1 / \sigma_i^2}, \qquad
            \bar\sigma = \Big(\sum_i 1 / \sigma_i^2\Big)^{-1/2},

        which is :math:`\sigma / \sqrt n` for n alike. Exact readings outweigh all others, and must
        agree. Points closer than 1e-6, in coordinates from -1 to 1, are one place.

        Returns:
            The observation itself if no place is repeated; else one whose rows are in the order
            of their first reading, without padding.

        Raises:
            InputError: Exact readings of one place differ.
        """
        if self.coords.ndim == 3:
            items = [self.item(index) for index in range(len(self.coords))]
            merged = [each.merged() for each in items]
            same = all(a is b for a, b in zip(items, merged, strict=True))
            return self if same else self.stack(merged)
        coords, values = self.coords[self.valid], self.values[self.valid]
        sigma = None if self.noise is None else _double(self.noise[self.valid])
        places = self._places()
        shown = _double(self.physical()[self.valid])
        found = merge_repeats(places, _double(values), sigma, shown)
        if found is None:
            return self
        first, mean, deviation = found
        noise = None if deviation is None else values.new_tensor(deviation)
        valid = self.valid.new_ones(len(first))
        return self._checked(coords[first], values.new_tensor(mean), valid, noise, *self._about)

    def _places(self) -> np.ndarray:
        """Return the rows' places (M, Q), about as wide as [-1, 1]."""
        if self.frame is None or self.frame.geometry == "plane":
            return _double(self.coords[self.valid])
        return _double(self.positions()[self.valid]) / self.frame.radius


def _double(part: Tensor) -> np.ndarray:
    return part.detach().double().cpu().numpy()
