"""The parts of an observation, read and checked: points, masks, noise and grid."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.checks import refuse_empty_channels
from sparsefield.core.errors import InputError
from sparsefield.data.conversion import ArrayLike, real_tensor, split_mask, to_floating
from sparsefield.data.frame import Frame


def read_points(coords: ArrayLike, values: ArrayLike) -> tuple[Tensor, Tensor, Tensor]:
    """Return both as tensors, and which rows no mask hides, shape (M,) or (B, M).

    Raises:
        InputError: These are no real numbers, or a row is masked in some channels only.
    """
    (places, place_mask), (readings, reading_mask) = (
        _read(coords, "coords"),
        _read(values, "values"),
    )
    seen = torch.ones(places.shape[:-1], dtype=torch.bool)
    if place_mask is not None:
        seen &= ~torch.from_numpy(place_mask.any(-1))
    if reading_mask is None:
        return places, readings, seen
    check_points(places, readings)
    partly = reading_mask.any(-1) & ~reading_mask.all(-1)
    if partly.any():
        refuse_empty_channels(reading_mask, "values")
        raise InputError(
            f"values: {int(partly.sum())} of {partly.size} rows are masked in some channels only; "
            "mask the whole row, or observe each channel by itself"
        )
    return places, readings, seen & ~torch.from_numpy(reading_mask.all(-1))


def _read(data: ArrayLike, name: str) -> tuple[Tensor, np.ndarray | None]:
    """Return numbers as a floating tensor, and which are masked, if any."""
    if isinstance(data, Tensor):
        return real_tensor(data, name), None
    array, mask = split_mask(data, name)
    return to_floating(array), mask


def read_mask(valid: ArrayLike | None, coords: Tensor) -> Tensor:
    """Return the validity of each row as a bool tensor beside the coordinates.

    Raises:
        InputError: It has not one entry per row.
    """
    if valid is None:
        return torch.ones(coords.shape[:-1], dtype=torch.bool, device=coords.device)
    mask = real_tensor(valid, "valid").to(coords.device) != 0
    if mask.shape != coords.shape[:-1]:
        raise InputError(
            f"valid: expected shape {tuple(coords.shape[:-1])} for coords of shape "
            f"{tuple(coords.shape)}, got {tuple(mask.shape)}"
        )
    return mask


def read_noise(noise: float | ArrayLike | None, values: Tensor, valid: Tensor) -> Tensor | None:
    """Return the standard deviation of each value's error, or None if all are exact.

    Raises:
        InputError: A valid one is negative or not finite, or the shape fits no values.
    """
    if noise is None:
        return None
    sigma = real_tensor(noise, "noise").to(values)  # type: ignore[arg-type]
    full = _expand_noise(sigma, values.shape)
    bad = ~(full.isfinite() & (full >= 0)) & valid[..., None]
    if bad.any():
        raise InputError(
            f"noise: a standard deviation is a finite number of at least 0, not {full[bad][0]:g}"
        )
    full = full.masked_fill(~valid[..., None], 0)
    return full if full.any() else None


def _expand_noise(sigma: Tensor, shape: torch.Size) -> Tensor:
    rows = sigma[..., None] if sigma.shape == shape[:-1] else sigma
    fits = rows.ndim == len(shape) and all(
        have in (1, want) for have, want in zip(rows.shape, shape, strict=True)
    )
    if not fits and sigma.ndim:
        *leading, channels = shape
        raise InputError(
            f"noise: expected one number, shape {tuple(leading)} for one per row, {tuple(shape)}, "
            f"or {(*[1] * len(leading), channels)} for one per channel, got {tuple(sigma.shape)}"
        )
    return rows.expand(shape).contiguous()


def read_grid(grid: Sequence[int] | None, dims: int) -> tuple[int, ...] | None:
    """Return the cells per axis, if they are given.

    Raises:
        InputError: These are not `dims` whole numbers of at least 1.
    """
    if grid is None:
        return None
    size = tuple(int(cells) for cells in grid)
    if len(size) != dims or min(size, default=0) < 1 or size != tuple(grid):
        raise InputError(
            f"grid: expected {dims} whole numbers of cells, at least 1 each, got {list(grid)}"
        )
    return size


def check_frame(frame: Frame | None, dims: int) -> Frame | None:
    """Return the frame, if it is given.

    Raises:
        InputError: It has other axes than the coordinates.
    """
    if frame is not None and frame.dims != dims:
        raise InputError(
            f"frame: it has the axes {', '.join(frame.names)}, and coords have {dims} dimensions"
        )
    return frame


def check_points(coords: Tensor, values: Tensor) -> None:
    """Check the shapes of coordinates (M, P) or (B, M, P) and values (M, C) or (B, M, C).

    Raises:
        InputError: They are others.
    """
    if coords.ndim not in (2, 3) or 0 in coords.shape[-2:]:
        raise InputError(
            "coords: expected shape (M, P) or (B, M, P) with at least one point and dimension, "
            f"got {tuple(coords.shape)}"
        )
    if values.shape[:-1] != coords.shape[:-1] or values.shape[-1:].numel() == 0:
        expected = ", ".join(map(str, (*coords.shape[:-1], "C")))
        raise InputError(
            f"values: expected shape ({expected}) for coords of shape {tuple(coords.shape)}, "
            f"got {tuple(values.shape)}"
        )


def check_measured(name: str, data: Tensor, valid: Tensor) -> None:
    """Check the numbers of all valid rows.

    Raises:
        InputError: One of them is not finite.
    """
    bad = ~data.isfinite() & valid[..., None]
    if not bad.any():
        return
    if name == "values":
        refuse_empty_channels(bad[valid].cpu().numpy(), name)
    rows, total = int(bad.any(dim=-1).sum()), int(valid.sum())
    kind = "NaN" if data[bad].isnan().all() else "NaN or infinite"
    raise InputError(
        f"{int(bad.sum())} of {total * data.shape[-1]} {name} are {kind} (in {rows} of {total} "
        "rows); drop those rows, mark them invalid with valid=, or pass a masked array"
    )
