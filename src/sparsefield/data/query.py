"""Where a field is wanted: on a grid, or at points."""

import copy
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.memory import check_memory
from sparsefield.core.words import counted
from sparsefield.data.conversion import ArrayLike, inside, real_array, real_tensor
from sparsefield.data.frame import Frame, axis_kind
from sparsefield.data.grids import cell_centres


class Grid:
    """A regular grid of cells that covers the domain; values belong to their centres.

    The domain is that of the observations' frame, or [-1, 1]^P without one.

    Without `native`, a value is the mean over a cell as large as those observed, around the
    centre. A posterior mean is then one function of the coordinates, if the model claims
    `query_invariant`: grids agree at shared points. With `native`, a value is the mean over the
    grid's own cell: on a finer grid it is sharper, and the cells within an observed one have the
    observed mean.

    Args:
        shape: Cells along each axis, at least 1: P numbers, or one sequence of them.
        native: Give means over the grid's own cells. It takes a model that is `resolution_aware`,
            and a grid finer or coarser than the observed one by the same factor along all axes.

    Attributes:
        frame: The frame whose domain it covers; None for [-1, 1].

    Raises:
        InputError: There is no axis, or not a whole number of cells along it.
    """

    frame: Frame | None = None

    def __init__(self, *shape: int | Sequence[int], native: bool = False) -> None:
        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        self.shape, self.native = _sizes(sizes), native

    @classmethod
    def spaced(cls, *steps: float) -> "Spacing":
        """Return the grid of the multiples of a step along each axis that lie in the domain.

        The observations must have a frame.

        Args:
            steps: Distance of neighbours along each axis, in its unit; one number for all.

        Raises:
            InputError: A step is not finite and above 0.
        """
        return Spacing(steps)

    @classmethod
    def like(cls, other: Any) -> "Lattice":
        """Return the grid of another field, whose axes are found by name.

        Args:
            other: An xarray DataArray or Dataset, or a mapping from names to positions (n,).

        Raises:
            InputError: It has no axes with coordinates, or those along an axis are not finite, or
                neither rise nor fall.
        """
        return Lattice(_axes_of(other))

    def __repr__(self) -> str:
        """Show the call that makes it."""
        return f"Grid({', '.join(map(str, self.shape))}{', native=True' if self.native else ''})"

    def __eq__(self, other: object) -> bool:
        """Whether the other one is the same grid."""
        return isinstance(other, Grid) and vars(self) == vars(other)

    def __hash__(self) -> int:
        """Hash shape and resolution."""
        return hash((self.shape, self.native))

    def __len__(self) -> int:
        """Number of cells L."""
        return math.prod(self.shape)

    @property
    def dims(self) -> int:
        """Coordinate dimensions P."""
        return len(self.shape)

    @property
    def coords(self) -> Tensor:
        """Centres of the cells (L, P) in [-1, 1], in the order of an array of this shape."""
        return cell_centres(self.shape)

    @property
    def axes(self) -> list[np.ndarray]:
        """Positions (n,) of the cells along each axis, in the units of the frame."""
        centres = [-1 + (2 * np.arange(n) + 1) / n for n in self.shape]
        if self.frame is None:
            return centres
        low, high = self.frame.low, self.frame.high
        return [a + (x + 1) / 2 * (b - a) for x, a, b in zip(centres, low, high, strict=True)]

    @property
    def physical(self) -> np.ndarray:
        """Centres of the cells (L, P) in the units of the frame, float64."""
        return _mesh(self.axes)

    def within(self, frame: Frame | None) -> "Grid":
        """Return the grid that covers the domain of a frame.

        Raises:
            InputError: The frame has other axes.
        """
        if frame is None or self.frame == frame:
            return self
        _check_dims(self, self.dims, frame)
        other = copy.copy(self)
        other.frame = frame
        return other


class Lattice(Grid):
    """A grid whose positions along each axis are given; see `Grid.like`.

    Args:
        axes: Positions (n,) along each axis by its name, in the units of the frame.

    Raises:
        InputError: An axis is no finite numbers, or neither rises nor falls.
    """

    def __init__(self, axes: Mapping[str, ArrayLike]) -> None:
        self._axes = {str(name): _positions(x, str(name)) for name, x in axes.items()}
        super().__init__([len(x) for x in self._axes.values()])

    def __eq__(self, other: object) -> bool:
        """Whether the other one has the same axes."""
        return (
            isinstance(other, Lattice)
            and self.frame == other.frame
            and list(self._axes) == list(other._axes)
            and all(np.array_equal(x, other._axes[name]) for name, x in self._axes.items())
        )

    def __hash__(self) -> int:
        """Hash shape and names."""
        return hash((self.shape, *self._axes))

    @property
    def coords(self) -> Tensor:
        """Points (L, P) in [-1, 1], in the order of an array of this shape."""
        return Points(self.physical).within(self.frame).coords

    @property
    def axes(self) -> list[np.ndarray]:
        """Positions (n,) along each axis."""
        return list(self._axes.values())

    @property
    def corners(self) -> np.ndarray:
        """Corners of the grid (2^P, P)."""
        return _mesh([x[[0, -1]] for x in self.axes])

    def within(self, frame: Frame | None) -> "Grid":
        """Return the grid with the axes of a frame, in its order.

        Raises:
            InputError: An axis of the frame is missing, or a position lies outside of its domain.
        """
        if frame is None or self.frame == frame:
            return self
        other = Lattice({name: self._axes[self._find(name, frame)] for name in frame.names})
        other.frame = frame
        frame.to_unit(other.corners)
        return other

    def _find(self, name: str, frame: Frame) -> str:
        """Return the axis that an axis of a frame names: by its name or by what it is."""
        kind = axis_kind(name, frame.units[frame.names.index(name)])
        for own in self._axes:
            if own == name:
                return own
        for own in self._axes:
            if own.lower() == name.lower() or (kind != "other" and axis_kind(own) == kind):
                return own
        raise InputError(
            f"the grid lacks the axis '{name}' of the observations; it has {', '.join(self._axes)}"
        )


class Spacing(Grid):
    """The grid of the multiples of a step; see `Grid.spaced`.

    It has a shape once the frame of the observations is known.

    Args:
        steps: Distance of neighbours along each axis, in its unit; one number for all.

    Raises:
        InputError: A step is not finite and above 0.
    """

    def __init__(self, steps: Sequence[float]) -> None:
        self.steps = tuple(float(step) for step in steps)
        if not self.steps or not all(math.isfinite(step) and step > 0 for step in self.steps):
            raise InputError(f"a spacing takes finite steps above 0, not {list(steps)}")

    def __repr__(self) -> str:
        """Show the call that makes it."""
        return f"Grid.spaced({', '.join(f'{step:g}' for step in self.steps)})"

    def __hash__(self) -> int:
        """Hash the steps."""
        return hash(self.steps)

    def __getattr__(self, name: str) -> Any:
        """Say that there is no shape yet."""
        if name in ("shape", "native"):
            raise InputError(f"{self} has cells where the observations have a frame")
        raise AttributeError(name)

    def within(self, frame: Frame | None) -> Grid:
        """Return the multiples of the steps within the domain of a frame.

        Raises:
            InputError: There is no frame, its axes are others, or no multiple lies in the domain.
        """
        if frame is None:
            raise InputError(f"{self} is in units of a frame, and the observations have none")
        steps = self.steps * frame.dims if len(self.steps) == 1 else self.steps
        _check_dims(self, len(steps), frame)
        axes = {}
        for name, step, low, high in zip(frame.names, steps, frame.low, frame.high, strict=True):
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            check_memory(8 * max(last - first, 0), f"an axis {name} with a spacing of {step:g}")
            if last < first:
                raise InputError(
                    f"no multiple of {step:g} lies in the domain: {frame.describe()}; take a "
                    "smaller spacing"
                )
            axes[name] = step * np.arange(first, last + 1)
        return Lattice(axes).within(frame)


class Points:
    """Points anywhere in the domain.

    Args:
        coords: Coordinates (L, P), at least one point: in the units of the observations' frame, or
            in [-1, 1] where they have none.

    Attributes:
        frame: The frame that the coordinates are in; None for [-1, 1].

    Raises:
        InputError: The shape is another one, or a coordinate is no finite number.
    """

    shape = None
    native = False
    frame: Frame | None = None

    def __init__(self, coords: ArrayLike) -> None:
        self._given = real_tensor(coords, "coords")
        if self._given.ndim != 2 or 0 in self._given.shape:
            raise InputError(
                "coords: expected shape (L, P) with at least one point, got "
                f"{tuple(self._given.shape)}"
            )
        if not self._given.isfinite().all():
            raise InputError("coords hold NaN or infinite numbers; drop those points")

    def __repr__(self) -> str:
        """Say how many points there are, without the numbers."""
        return f"Points({counted(len(self), 'point')}, {self.dims}-D)"

    def __len__(self) -> int:
        """Number of points L."""
        return len(self._given)

    @property
    def dims(self) -> int:
        """Coordinate dimensions P."""
        return self._given.shape[1]

    @cached_property
    def coords(self) -> Tensor:
        """Coordinates (L, P) in [-1, 1].

        Raises:
            InputError: A point lies outside of the domain.
        """
        if self.frame is None:
            return inside(self._given.float())
        return torch.from_numpy(self.frame.to_unit(self._given)).float()

    @property
    def physical(self) -> np.ndarray:
        """Coordinates (L, P) as they were given, float64."""
        return self._given.detach().double().cpu().numpy()

    def within(self, frame: Frame | None) -> "Points":
        """Return the points in a frame.

        Raises:
            InputError: The frame has other axes, or a point lies outside of its domain.
        """
        other = self if frame in (None, self.frame) else Points(self._given)
        if other is not self and frame is not None:
            _check_dims(self, self.dims, frame)
            other.frame = frame
        _ = other.coords
        return other


def check_query(at: Any, frame: Frame | None = None) -> Grid | Points:
    """Return what is a grid or points, in the frame of the observations.

    Raises:
        InputError: It is something else, or does not fit the frame.
    """
    if isinstance(at, Grid | Points):
        return at.within(frame)
    raise InputError(
        f"a field is wanted at sf.Grid(64, 64) or at sf.Points(coords), not at {type(at).__name__}"
    )


def _check_dims(at: Grid | Points, dims: int, frame: Frame) -> None:
    if dims != frame.dims:
        raise InputError(
            f"{at} has {dims} dimensions; the observations have {frame.dims}: "
            f"{', '.join(frame.names)}"
        )


def _mesh(axes: Sequence[np.ndarray]) -> np.ndarray:
    """Return the points (L, P) of a grid with these axes, in the order of its array."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _axes_of(other: Any) -> dict[str, Any]:
    """Return the positions along the axes of an array with coordinates."""
    if isinstance(other, Mapping) and not hasattr(other, "dims"):
        return dict(other)
    names = [name for name in getattr(other, "dims", ()) if name in getattr(other, "coords", ())]
    if not names:
        raise InputError(
            "a grid is taken from an xarray DataArray with coordinates or from a mapping of names "
            f"to positions, not from {type(other).__name__}"
        )
    return {str(name): other[name].values for name in names}


def _positions(given: ArrayLike, name: str) -> np.ndarray:
    positions = real_array(given, name).astype(np.float64)
    if positions.ndim != 1 or not len(positions) or not np.isfinite(positions).all():
        raise InputError(f"axis {name} needs finite positions (n,), got shape {positions.shape}")
    steps = np.diff(positions)
    if not ((steps > 0).all() or (steps < 0).all()):
        kind = "repeats positions" if (steps == 0).any() else "neither rises nor falls throughout"
        raise InputError(f"axis {name} {kind}; sort it, and keep each position once")
    return positions


def _sizes(shape: Any) -> tuple[int, ...]:
    try:
        sizes = tuple(int(cells) for cells in shape)
    except (TypeError, ValueError) as error:
        raise InputError(f"a grid takes whole numbers of cells, not {shape!r}") from error
    if not sizes or min(sizes) < 1 or sizes != tuple(shape):
        raise InputError(
            f"a grid needs a whole number of cells, at least one, along each axis; got "
            f"{list(shape)}"
        )
    return sizes
