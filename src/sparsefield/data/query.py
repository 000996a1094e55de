"""Where a field is wanted: on a grid, or at points."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.data.conversion import ArrayLike, inside, real_tensor
from sparsefield.data.grids import cell_centres


class Grid:
    """A regular grid of cells that covers the domain [-1, 1]^P; values belong to their centres.

    Without `native`, a value is the mean over a cell as large as those observed, around the
    centre. A reconstruction is then one function of the coordinates, and grids agree at shared
    points. With `native`, a value is the mean over the grid's own cell: on a finer grid it is
    sharper, and the cells within an observed one have the observed mean.

    Args:
        shape: Cells along each axis, at least 1.
        native: Give values at the grid's native resolution. It takes a model that is
            `resolution_aware`, and a grid finer or coarser than the observed one by the same
            factor along all axes.

    Raises:
        InputError: There is no axis, or one without a cell.
    """

    def __init__(self, *shape: int | Sequence[int], native: bool = False) -> None:
        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        self.shape, self.native = _sizes(sizes), native

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
        """Centres of the cells (L, P), in the order of an array of this shape."""
        return cell_centres(self.shape)


class Points:
    """Points anywhere in the domain.

    Args:
        coords: Coordinates (L, P) in [-1, 1], at least one point.

    Raises:
        InputError: The shape is another one, or a coordinate is not finite or out of range.
    """

    shape = None
    native = False

    def __init__(self, coords: ArrayLike) -> None:
        given = real_tensor(coords, "coords").float()
        if given.ndim != 2 or 0 in given.shape:
            raise InputError(
                f"coords: expected shape (L, P) with at least one point, got {tuple(given.shape)}"
            )
        if not given.isfinite().all():
            raise InputError("coords hold NaN or infinite numbers; drop those points")
        self.coords = inside(given)

    def __repr__(self) -> str:
        """Say how many points there are, without the numbers."""
        return f"Points({len(self)} points, {self.dims}-D)"

    def __len__(self) -> int:
        """Number of points L."""
        return len(self.coords)

    @property
    def dims(self) -> int:
        """Coordinate dimensions P."""
        return self.coords.shape[1]


def check_query(at: Any) -> Grid | Points:
    """Return what is a grid or points.

    Raises:
        InputError: It is something else.
    """
    if isinstance(at, Grid | Points):
        return at
    raise InputError(
        f"a field is wanted at sf.Grid(64, 64) or at sf.Points(coords), not at {type(at).__name__}"
    )


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
