"""Between points and the cells of a grid: means in cells, cubic interpolation at points."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsefield.data.grids import cell_centres

# Points closer than this to the centres of cells, in cells, are the grid.
ON_CENTRE = 1e-3


def is_grid(coords: Tensor, shape: Sequence[int]) -> bool:
    """Tell whether points (B, L, 2) are the centres of all cells of a grid, in its order."""
    height, width = shape
    if coords.shape[1] != height * width:
        return False
    off = (coords - cell_centres(shape, coords.dtype, coords.device)).abs().amax((0, 1))
    return bool((off * coords.new_tensor([height, width]) < 2 * ON_CENTRE).all())


def mean_in_cells(
    coords: Tensor, values: Tensor, valid: Tensor, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the mean of the values in each cell, and which cells have any.

    Args:
        coords: Points (B, M, 2) in [-1, 1].
        values: Values (B, M, C).
        valid: Which points count (B, M).
        shape: Cells H and W.

    Returns:
        Means (B, C, H, W), 0 in empty cells, and weights (B, 1, H, W), 1 or 0.
    """
    height, width = shape
    sides = coords.new_tensor([height, width])
    along = ((coords + 1) / 2 * sides).floor().clamp_min(0).minimum(sides - 1).long()
    cell = along[..., 0] * width + along[..., 1]
    counted = torch.cat([values, torch.ones_like(values[..., :1])], -1) * valid[..., None]
    sums = values.new_zeros(len(values), height * width, counted.shape[-1])
    sums.scatter_add_(1, cell[..., None].expand_as(counted), counted)
    sums = sums.transpose(1, 2).unflatten(2, (height, width))
    count = sums[:, -1:]
    return sums[:, :-1] / count.clamp_min(1), (count > 0).to(values.dtype)


def cubic_at(field: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
    """Interpolate a field on a grid by cubic convolution; beyond the outer centres it is constant.

    References:
        Cubic convolution interpolation for digital image processing (Keys, 1981), Eq. 15.

    Args:
        field: Values (B, C, H, W) at the centres of cells.
        coords: Points (B, L, 2) in [-1, 1].

    Returns:
        Values (B, L, C), and the offset of each point from the nearest centre in cells (B, L, 2).
    """
    shape = field.shape[-2:]
    position = (coords + 1) / 2 * coords.new_tensor(shape) - 0.5
    phase = position - position.round()
    flat = field.flatten(2).transpose(1, 2)
    if bool((phase.abs() < ON_CENTRE).all()):
        row, column = position.round().long().unbind(-1)
        index = row.clamp(0, shape[0] - 1) * shape[1] + column.clamp(0, shape[1] - 1)
        return flat.gather(1, index[..., None].expand(-1, -1, flat.shape[-1])), 0 * phase
    below = position.floor()
    taps = _keys_weights(position - below)
    found = flat.new_zeros(*coords.shape[:2], field.shape[1])
    for down in range(4):
        row = (below[..., 0].long() + down - 1).clamp(0, shape[0] - 1)
        for right in range(4):
            column = (below[..., 1].long() + right - 1).clamp(0, shape[1] - 1)
            weight = taps[..., 0, down] * taps[..., 1, right]
            index = (row * shape[1] + column)[..., None].expand_as(found)
            found = found + weight[..., None] * flat.gather(1, index)
    return found, phase


def _keys_weights(f: Tensor) -> Tensor:
    """Return the weights (..., 4) of the four nearest centres at fraction f of the way."""
    return torch.stack(
        [
            ((2 - f) * f - 1) * f / 2,
            ((3 * f - 5) * f * f + 2) / 2,
            ((4 - 3 * f) * f + 1) * f / 2,
            (f - 1) * f * f / 2,
        ],
        dim=-1,
    )
