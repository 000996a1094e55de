"""What readers of data sets are asked for and return, and many encoded images as one array."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.core.memory import check_memory
from sparsefield.data.formats.images import decode_image
from sparsefield.data.series import Series


class Request(NamedTuple):
    """What to read of a data set.

    Attributes:
        split: "train", "validation", "test", or "all".
        limit: Number of examples at most, from the first; all if None.
        size: Height and width that encoded images are area-averaged to; as they are if None.
        values: Names of the variables that are channels; the format's own choice if empty.
        period: First and last time; all if empty.
    """

    split: str
    limit: int | None = None
    size: tuple[int, int] | None = None
    values: tuple[str, ...] = ()
    period: tuple[str, ...] = ()


class Examples(NamedTuple):
    """The examples of a data set as stored.

    Attributes:
        values: Values (N, ...), of the type they are stored in.
        remarks: What the user should know of how they were chosen.
        images: Whether they are images (N, H, W, C) for sure.
        series: Times and places, of fields (N, *grid, C) over time; what is missing is NaN.
    """

    values: np.ndarray
    remarks: tuple[str, ...] = ()
    images: bool = False
    series: Series | None = None


# An encoded image, and what an error message calls it.
Encoded = tuple[bytes, str]


def decode_images(
    images: Iterable[Encoded], count: int, request: Request, path: Path
) -> np.ndarray:
    """Return decoded images as one array.

    One thread decodes: small images gain nothing from more.

    Args:
        images: The encoded images.
        count: How many there are.
        request: How many to decode, and to which size.
        path: Where they come from.

    Returns:
        Pixels, uint8, shape (N, H, W, 3).

    Raises:
        InputError: An image is damaged or of another size than the first, there is none, or they
            would not fit into memory.
    """
    pixels = np.empty((0, 0, 0, 0), np.uint8)
    number = 0
    for number, (source, where) in enumerate(islice(images, request.limit), start=1):
        image = decode_image(source, where, request.size)
        if number == 1:
            count = min(count, request.limit or count)
            check_memory(count * image.nbytes, f"{path} with {count} images")
            pixels = np.empty((count, *image.shape), np.uint8)
        if image.shape != pixels.shape[1:]:
            raise _several_sizes(where, image.shape, pixels.shape[1:])
        if number > count:
            raise InputError(f"{path} holds more images than it says; fetch it again")
        pixels[number - 1] = image
    if not number:
        raise InputError(f"{path} holds no image")
    return pixels[:number]


def _several_sizes(where: str, shape: tuple[int, ...], first: tuple[int, ...]) -> InputError:
    height, width = (min(pair) for pair in zip(shape[:2], first[:2], strict=True))
    return InputError(
        f"{where} has {shape[0]} x {shape[1]} pixels but the first image has "
        f"{first[0]} x {first[1]}; reduce all images to one size with size=({height}, {width}) "
        f"(--size {height} {width}, data.size=[{height},{width}])"
    )
