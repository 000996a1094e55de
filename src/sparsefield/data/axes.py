"""Which axis of an array is what: items first, then the grid, then channels if there are any."""

from typing import Literal

import numpy as np

from sparsefield.core.errors import InputError

Channels = Literal["auto", "last", "none"]
CHANNELS: tuple[Channels, ...] = ("auto", "last", "none")

# A longer last axis may well be one of the grid, and a shorter one hardly.
MOST_CHANNELS = 4

_BOTH = (
    "say channels=last if the last axis holds channels, channels=none if there is no such axis "
    "(--channels none, data.channels=none)"
)


def understand_axes(values: np.ndarray, channels: Channels, where: str) -> tuple[np.ndarray, str]:
    """Return an array as items, grid and channels, and one sentence on how it was understood.

    Args:
        values: Numbers of any shape.
        channels: "last": the last axis holds channels; "none": there is no such axis; "auto": a
            last axis of 1 to 4 entries holds channels, and a longer one is refused.
        where: What messages call the array.

    Returns:
        Values (N, *grid, C) and the sentence.

    Raises:
        InputError: There are too few axes, or they can be understood in two ways.
    """
    shape = values.shape
    if channels == "auto":
        _check_unambiguous(values, where)
    full = values[..., None] if channels == "none" else values
    if full.ndim < 3:
        raise InputError(f"{where}: expected values of shape (N, *grid, C), got {shape}; {_BOTH}")
    items, *grid, count = full.shape
    cells = " x ".join(map(str, grid))
    last = "no axis of channels" if channels == "none" else f"channels in the last axis ({count})"
    return full, f"{where}: {shape} read as {items} items on a grid of {cells} cells, {last}"


def _check_unambiguous(values: np.ndarray, where: str) -> None:
    """Refuse an array whose shape leaves open what its axes are.

    Raises:
        InputError: It does.
    """
    shape = values.shape
    if values.ndim < 3:
        return
    if shape[-1] > MOST_CHANNELS:
        items, *grid, last = shape
        with_it = " x ".join(map(str, (*grid, last)))
        raise InputError(
            f"{where}: {shape} may be {items} items on a grid of {with_it} cells, or on one of "
            f"{' x '.join(map(str, grid))} with {last} channels; {_BOTH}"
        )
    if values.dtype == np.uint8 and values.ndim == 3 and shape[-1] in (1, 3, 4):
        raise InputError(
            f"{where}: {shape} looks like one image of {shape[0]} x {shape[1]} pixels; add an "
            f"axis for items in front, or {_BOTH}"
        )
