"""Observations as patches of a grid, whatever grid they fill and whether they fill it."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparsefield.data.observation import Observation

# Cells of a patch along each axis.
PATCH = 2
# Coordinates closer than this lie in one row of a grid; this fraction of a cell off its centre is
# still on it.
SAME_ROW = 1e-5
OFF_CENTRE = 0.01


class Patches(NamedTuple):
    """Patches of the grids of a batch, as many as the largest grid has.

    Attributes:
        values: Mean of the observations in each cell, and 1 where there is one, 0 elsewhere,
            (B, N, 2^P (C + 1)).
        centres: Coordinates of the middle of each patch (B, N, P).
        valid: Which patches hold an observation (B, N).
        spacing: Size of a cell along each axis (B, 1, P).
    """

    values: Tensor
    centres: Tensor
    valid: Tensor
    spacing: Tensor


def cut_patches(obs: Observation, cells: int) -> Patches:
    """Lay observations out on a grid each and cut it into patches; odd grids get an empty row.

    Args:
        obs: Batched observations.
        cells: Cells per axis of the grid for observations that fill none of their own.
    """
    shape = grid_shape(obs, cells)
    per_axis = -(-shape // PATCH)
    total, slots = int(per_axis.prod(1).max()), PATCH**obs.dims
    cell = ((obs.coords + 1) / 2 * shape[:, None]).long().clamp_min(0)
    cell = cell.minimum(shape[:, None] - 1)
    slot = _ravel(cell // PATCH, per_axis) * slots + _ravel(cell % PATCH, PATCH)
    values = _cell_means(obs, slot, total * slots).unflatten(1, (total, slots))
    index = _unravel(torch.arange(total, device=shape.device), per_axis)
    return Patches(
        values=values.flatten(2),
        centres=((2 * index + 1) * PATCH / shape[:, None] - 1).to(obs.coords.dtype),
        valid=values[..., -1].any(-1),
        spacing=(2 / shape[:, None]).to(obs.coords.dtype),
    )


def grid_shape(obs: Observation, cells: int) -> Tensor:
    """Return the cells per axis (B, P) of the grid whose centres an item fills, else `cells`."""
    padded = obs.coords.masked_fill(~obs.valid[..., None], 4.0).sort(dim=1).values
    rows = 1 + (padded.diff(dim=1) > SAME_ROW).sum(1) - (~obs.valid.all(1))[:, None].long()
    place = (obs.coords + 1) / 2 * rows[:, None] - 0.5
    centred = (place - place.round()).abs() < OFF_CENTRE
    fills = (rows.prod(1) == obs.valid.sum(1)) & (rows >= PATCH).all(1)
    fills &= (centred | ~obs.valid[..., None]).flatten(1).all(1)
    return torch.where(fills[:, None], rows, cells)


def _cell_means(obs: Observation, slot: Tensor, count: int) -> Tensor:
    """Return the mean of each of `count` slots, and whether it has one, (B, count, C + 1)."""
    weight = obs.valid[..., None].to(obs.values.dtype)
    marked = torch.cat([obs.values * weight, weight], dim=-1)
    sums = marked.new_zeros(len(marked), count, marked.shape[-1])
    sums = sums.scatter_add(1, slot[..., None].expand_as(marked), marked)
    number = sums[..., -1:]
    return torch.cat([sums[..., :-1] / number.clamp_min(1), number.clamp_max(1)], dim=-1)


def _ravel(index: Tensor, size: Tensor | int) -> Tensor:
    """Return row-major positions (B, M) of indices (B, M, P) on grids of `size` (B, P)."""
    flat = torch.zeros_like(index[..., 0])
    for axis in range(index.shape[-1]):
        flat = flat * (size if isinstance(size, int) else size[:, None, axis]) + index[..., axis]
    return flat


def _unravel(flat: Tensor, size: Tensor) -> Tensor:
    """Return the indices (B, N, P) of row-major positions (N,) on grids of `size` (B, P)."""
    index = []
    rest = flat.expand(len(size), -1)
    for axis in reversed(range(1, size.shape[1])):
        index.append(rest % size[:, axis, None])
        rest = rest // size[:, axis, None]
    return torch.stack([*index, rest][::-1], dim=-1)
