"""From whatever a user holds numbers in to tensors: one way in, used by everything public."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError

ArrayLike = Tensor | np.ndarray | Sequence[Any]

# Two points closer than this, in coordinates from -1 to 1, are one place: float32 tells points
# near the border apart to 6e-8, and arithmetic on them loses a few bits more.
SAME_POINT = 1e-6

_KINDS = {
    "c": "complex numbers; pass real and imaginary part as two channels",
    "O": "Python objects; convert it to an array of numbers first, as with np.asarray(..., float)",
    "M": "dates; convert them to numbers first",
    "m": "durations; convert them to numbers first",
    "V": "records; pass one plain array of numbers",
}


def real_array(data: ArrayLike, name: str) -> np.ndarray:
    """Return numbers as a contiguous writable array in native byte order.

    Strides, byte order, alignment and write protection of what is given make no difference. An
    array that has all this already is returned as it is.

    Args:
        data: Anything that numpy reads as booleans, integers or real numbers.
        name: What an error message calls it.

    Returns:
        An array of the type given; numbers longer than 64 bits become float64.

    Raises:
        InputError: These are no real numbers, or some entries are masked.
    """
    values, mask = split_mask(data, name)
    if mask is not None:
        raise InputError(
            f"{name}: {int(mask.sum())} of {mask.size} entries are masked, and all are needed; "
            "fill or drop them"
        )
    return values


def split_mask(data: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return numbers as `real_array` does, and which of them are masked; None if none is.

    Raises:
        InputError: These are no real numbers.
    """
    if isinstance(data, Tensor):
        data = data.detach().cpu().resolve_conj().resolve_neg().numpy()
    mask = np.ma.getmaskarray(data) if isinstance(data, np.ma.MaskedArray) else None
    try:
        array = np.asarray(data)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{name} is no array of numbers: its rows differ in length or hold other things"
        ) from error
    if array.dtype.kind not in "biuf":
        found = _KINDS.get(array.dtype.kind, "text; convert it to numbers first")
        raise InputError(f"{name}: real numbers are needed, not {found}")
    kind = np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):
        native = np.require(array, kind, ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE"])
    return native, mask if mask is not None and mask.any() else None


def real_tensor(data: ArrayLike, name: str) -> Tensor:
    """Return numbers as a floating-point tensor.

    Floating-point tensors keep their type and device. Arrays of float64, int64 and longer keep
    double precision; all others become float32.

    Raises:
        InputError: These are no real numbers, or some entries are masked.
    """
    if isinstance(data, Tensor) and data.is_floating_point():
        return data
    found = to_floating(real_array(data, name))
    return found.to(data.device) if isinstance(data, Tensor) else found


def to_floating(array: np.ndarray) -> Tensor:
    """Return a native array as a tensor of float32, or of float64 where that would lose digits."""
    return torch.from_numpy(array.astype(np.promote_types(array.dtype, np.float32), copy=False))


def inside(coords: Tensor, name: str = "coords", valid: Tensor | None = None) -> Tensor:
    """Return coordinates (..., P) that lie in [-1, 1], with what rounding puts beyond moved back.

    Args:
        coords: Positions, shape (..., M, P).
        name: What an error message calls them.
        valid: Which rows count, bool, shape (..., M); all if None.

    Raises:
        InputError: A row that counts lies outside by more than SAME_POINT.
    """
    if not coords.numel() or coords.abs().max() <= 1:
        return coords
    outside = coords.abs().amax(-1) > 1 + SAME_POINT
    counted = torch.ones_like(outside) if valid is None else valid
    outside &= counted
    if outside.any():
        where = ", ".join(f"{number:g}" for number in coords[outside][0].tolist())
        raise InputError(
            f"{name}: {int(outside.sum())} of {int(counted.sum())} points lie outside [-1, 1], "
            f"the first at ({where}); rescale each axis so that the field spans -1 to 1"
        )
    return coords.clamp(-1, 1)
