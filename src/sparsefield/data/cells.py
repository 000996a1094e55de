"""Cells of one size observed, cells of another asked for: what they say about each other."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsefield.data.conversion import SAME_POINT
from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation

# Halvings of the range of a shift; float32 tells no more apart.
_HALVINGS = 30


@dataclass(frozen=True)
class CellGrids:
    """The grid whose cells were observed, and the one over whose cells means are asked for.

    Attributes:
        observed: Cells per axis of the grid that was observed.
        asked: Cells per axis of the grid that is asked for.
    """

    observed: tuple[int, ...]
    asked: tuple[int, ...]

    @property
    def side(self) -> float:
        """Side of a cell asked for, in sides of one observed, as a geometric mean."""
        sides = (n / m for n, m in zip(self.observed, self.asked, strict=True))
        return math.prod(sides) ** (1 / len(self.asked))

    @property
    def nested(self) -> bool:
        """Whether every observed cell consists of whole cells that are asked for."""
        return all(m % n == 0 for n, m in zip(self.observed, self.asked, strict=True))


def keep_means(
    values: Tensor,
    coords: Tensor,
    obs: Observation,
    grids: CellGrids,
    clip: Callable[[Tensor], Tensor] = lambda values: values,
) -> Tensor:
    r"""Return values whose means over observed cells are those observed.

    All parts u of an observed cell with mean y move alike, within the range of values,

    .. math:: u_i \to \mathrm{clip}(u_i + \lambda), \qquad
        \frac{1}{n} \sum_{i=1}^n \mathrm{clip}(u_i + \lambda) = y,

    which is the nearest field, in squared error, that has the range and the means.

    Args:
        values: Means over finer cells (B, L, C), in the unit of the observations, on the CPU.
        coords: Centres of those cells (B, L, P) in [-1, 1].
        obs: Observations; those that lie at the centre of an observed cell are its mean.
        grids: Both grids, the finer one nested in the observed one.
        clip: Moves values into their range, where there is one; what was observed lies in it.
    """
    values = values.clone()
    for item in range(len(values)):
        at, mean = _observed_cells(obs, item, grids.observed)
        number = torch.full((math.prod(grids.observed),), -1)
        number[at] = torch.arange(len(at))
        part_of = number[_cell_indices(coords[item].cpu(), grids.observed)]
        inside = part_of >= 0
        parts = _shift_to_mean(values[item, inside], part_of[inside], mean.to(values), clip)
        values[item, inside] = parts
    return values


def _observed_cells(obs: Observation, item: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return observed cells (K,) of a field and their values (K, C), repeated ones averaged."""
    coords, values = obs.coords[item][obs.valid[item]].cpu(), obs.values[item][obs.valid[item]]
    index = _cell_indices(coords, shape)
    central = (coords - cell_centres(shape)[index]).abs().amax(-1) < SAME_POINT
    cells, rows = index[central].unique(return_inverse=True)
    return cells, _means(values.cpu()[central], rows, len(cells))


def _shift_to_mean(
    parts: Tensor, cell: Tensor, mean: Tensor, clip: Callable[[Tensor], Tensor]
) -> Tensor:
    """Move the parts (N, C) of cells (N,) so that their means are those given (K, C)."""
    index = cell[:, None].expand_as(parts)
    largest = torch.zeros_like(mean).scatter_reduce(0, index, parts, "amax", include_self=False)
    smallest = torch.zeros_like(mean).scatter_reduce(0, index, parts, "amin", include_self=False)
    # With the one no part lies above the mean, with the other none below.
    low, high = mean - largest, mean - smallest
    for _ in range(_HALVINGS):
        shift = (low + high) / 2
        below = _means(clip(parts + shift[cell]), cell, len(mean)) < mean
        low, high = torch.where(below, shift, low), torch.where(below, high, shift)
    return clip(parts + ((low + high) / 2)[cell])


def _means(values: Tensor, group: Tensor, count: int) -> Tensor:
    """Return means (K, C) of the values (N, C) of each group (N,)."""
    sums = values.new_zeros(count, values.shape[-1]).index_add(0, group, values)
    return sums / torch.bincount(group, minlength=count)[:, None].clamp_min(1)


def _cell_indices(coords: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the cell (L,), in C order, of a grid on [-1, 1] that points (L, P) lie in."""
    sides = torch.tensor(shape)
    along = ((coords + 1) / 2 * sides).floor().long().clamp_min(0).minimum(sides - 1)
    strides = sides.flip(0).cumprod(0).flip(0) // sides
    return (along * strides).sum(-1)
