"""Regular grids of cell centres."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparsefield.core.errors import InputError


class GridError(InputError):
    """A grid cannot be averaged to the size that was asked for."""


def cell_centres(
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the coordinates of a grid's cell centres, `-1 + (2 i + 1) / n` along each axis.

    Axis `k` of the coordinates belongs to axis `k` of the array, and points follow the array's
    row-major order, so that `field.reshape(-1, C)[i]` lies at row `i`. A grid of `n` cells shares
    its centres with the grid of `3 n` cells.

    Args:
        shape: Cells per axis `(n_1, ..., n_P)`, each at least 1.
        dtype: Floating type of the result.
        device: Device of the result.

    Returns:
        Coordinates (L, P) in (-1, 1), with `L = n_1 ... n_P`.

    Raises:
        InputError: An axis is empty or there is none.
    """
    if not shape or min(shape) < 1:
        raise InputError(f"a grid needs at least one cell along each axis, got shape {shape}")
    # Computed in double precision so that shared centres agree to the last bit of `dtype`.
    axes = [-1 + (2 * torch.arange(n, dtype=torch.float64) + 1) / n for n in shape]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return points.reshape(math.prod(shape), len(shape)).to(device=device, dtype=dtype)


def finer_shape(shape: Sequence[int], count: int) -> tuple[int, ...]:
    """Return a grid of at least so many cells: this one, or finer by the least power of two.

    Args:
        shape: Cells per axis, each at least 1.
        count: Cells that are needed, at least 1.
    """
    finer = math.log2(count / math.prod(shape)) / len(shape)
    return tuple(n * 2 ** max(0, math.ceil(finer)) for n in shape)


def size_setting(shape: Sequence[int]) -> str:
    """Return how to ask for a grid of this size: in Python, in commands and in training."""
    cells = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    listed = ",".join(map(str, shape))
    return f"size=({cells}) (--size {listed.replace(',', ' ')}, data.size=[{listed}])"
