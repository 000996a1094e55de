"""Real photographs that ship inside scikit-image, small, for the demo and for examples."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from torch import Tensor

from sparsefield.errors import InputError
from sparsefield.fields.datasets import FieldDataset
from sparsefield.fields.files import decode_image
from sparsefield.fields.masks import observed_indices

# File, then first row, first column and side of the square that is cut from it.
PHOTOGRAPHS = {
    "astronaut": ("astronaut.png", 0, 96, 256),
    "cat": ("chelsea.png", 14, 80, 256),
    "coffee": ("coffee.png", 8, 120, 384),
    "rocket": ("rocket.jpg", 8, 128, 384),
}


def photographs(side: int = 32) -> FieldDataset:
    """Return the photographs, cut square and area-averaged to `side` x `side` cells.

    Args:
        side: cells along each axis, a divisor of 128.

    Raises:
        InputError: if scikit-image is not installed, or `side` does not divide the images.
    """
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise InputError("the photographs are in scikit-image: install sparsefield[image]")
    folder = Path(spec.origin).parent / "data"
    small = []
    for file, top, left, size in PHOTOGRAPHS.values():
        square = decode_image(folder / file, file)[top : top + size, left : left + size]
        small.append(FieldDataset(square[None], file).resized((side, side)).values)
    return FieldDataset(np.concatenate(small), "photographs")


def example(density: float = 0.2) -> tuple[Tensor, Tensor]:
    """Return scattered measurements to try things with: pixels of a 32 x 32 photograph of a cat.

    Args:
        density: fraction of the pixels, in (0, 1].

    Returns:
        Coordinates (M, 2) and values (M, 3) in [0, 1].

    Raises:
        InputError: if scikit-image is not installed, or the density is out of range.
    """
    images = photographs()
    cat = list(PHOTOGRAPHS).index("cat")
    seen = observed_indices(images.points, density, 0, "validation", cat)
    return images.coords[seen], images.batch([cat])[0, seen]
