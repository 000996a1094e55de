"""Real photographs that ship inside scikit-image: small for examples, finer as truth."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.formats.images import decode_image
from sparsefield.data.masks import observed_indices

# File, then first row, first column and side of the square that is cut from it.
Square = tuple[str, int, int, int]
PHOTOGRAPHS: dict[str, Square] = {
    "astronaut": ("astronaut.png", 0, 96, 256),
    "cat": ("chelsea.png", 14, 80, 256),
    "coffee": ("coffee.png", 8, 120, 384),
    "rocket": ("rocket.jpg", 8, 128, 384),
}
# All distinct photographs that are large enough, those that are grey included. Larger ones give
# two squares that do not overlap.
SCENES: dict[str, Square] = {
    "astronaut": ("astronaut.png", 0, 0, 512),
    "cat": ("chelsea.png", 14, 80, 256),
    "coffee": ("coffee.png", 8, 120, 384),
    "rocket": ("rocket.jpg", 8, 128, 384),
    "motorcycle": ("motorcycle_left.png", 60, 0, 352),
    "workshop": ("motorcycle_left.png", 60, 384, 352),
    "camera": ("camera.png", 0, 0, 512),
    "coins": ("coins.png", 8, 48, 288),
    "clock": ("clock_motion.png", 6, 56, 288),
    "moon": ("moon.png", 0, 0, 512),
    "galaxies": ("hubble_deep_field.jpg", 200, 40, 448),
    "stars": ("hubble_deep_field.jpg", 200, 520, 448),
    "retina": ("retina.jpg", 320, 200, 480),
    "vessels": ("retina.jpg", 620, 720, 480),
    "cell": ("cell.png", 64, 16, 512),
    "tissue": ("ihc.png", 0, 0, 512),
    "brick": ("brick.png", 0, 0, 512),
    "grass": ("grass.png", 0, 0, 512),
    "gravel": ("gravel.png", 0, 0, 512),
}
# Finest grid on which every scene has cells of a pixel or more.
FINEST = min(side for *_, side in SCENES.values())


def photographs(side: int = 32) -> FieldDataset:
    """Return four photographs, cut square and area-averaged to `side` x `side` cells.

    Args:
        side: Cells along each axis, a divisor of 128.

    Raises:
        InputError: scikit-image is not installed, or `side` does not divide the images.
    """
    squares = (FieldDataset(image[None], "photographs") for image in _cut(PHOTOGRAPHS))
    small = [square.resized((side, side)).values for square in squares]
    return FieldDataset(np.concatenate(small), "photographs")


def scenes(side: int) -> FieldDataset:
    """Return all photographs of `SCENES`, area-averaged to `side` x `side` cells.

    A cell is the mean over the part of the photograph that it covers, pixels cut by its border
    counting by their share, so that every size shows the same square.

    Args:
        side: Cells along each axis, from 1 to `FINEST`.

    Returns:
        The photographs, uint8, shape (N, side, side, 3).

    Raises:
        InputError: scikit-image is not installed, or `side` is out of range.
    """
    if not 1 <= side <= FINEST:
        raise InputError(
            f"the photographs give truth for up to {FINEST} x {FINEST} cells, not {side} x {side}"
        )
    return FieldDataset(np.stack([_average(image, side) for image in _cut(SCENES)]), "photographs")


def _cut(squares: Mapping[str, Square]) -> list[np.ndarray]:
    """Return the squares (S, S, 3), each of its own side."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise InputError("the photographs are in scikit-image: install sparsefield[image]")
    folder = Path(spec.origin).parent / "data"
    return [
        decode_image(folder / file, file)[top : top + side, left : left + side]
        for file, top, left, side in squares.values()
    ]


def _average(image: np.ndarray, side: int) -> np.ndarray:
    """Return the area average of a square (S, S, C) over `side` x `side` cells."""
    pixels, edges = np.arange(len(image)), np.arange(side + 1) * (len(image) / side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = overlap.clip(0) * (side / len(image))
    mean = np.einsum("ij,jkc,lk->ilc", weights, image, weights, optimize=True)
    return np.rint(mean).astype(np.uint8)


def example(density: float = 0.2) -> tuple[Tensor, Tensor]:
    """Return scattered measurements to try things with: pixels of a 32 x 32 photograph of a cat.

    Args:
        density: Fraction of the pixels, in (0, 1].

    Returns:
        Coordinates (M, 2) and values (M, 3) in [0, 1].

    Raises:
        InputError: scikit-image is not installed, or the density is out of range.
    """
    images = photographs()
    cat = list(PHOTOGRAPHS).index("cat")
    seen = observed_indices(images.points, density, 0, "validation", cat)
    return images.coords[seen], images.batch([cat])[0, seen]
