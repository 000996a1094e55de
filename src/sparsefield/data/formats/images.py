"""Images on disk and in memory."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from sparsefield.core.errors import InputError
from sparsefield.data.grids import GridError, size_setting

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})


def decode_image(
    source: bytes | Path, where: str, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Return an encoded image as RGB bytes.

    Args:
        source: the encoded image or the path to it; grey and transparent images become RGB.
        where: what an error message calls the image.
        size: height and width to reduce to: the largest centred part of that aspect is
            area-averaged.

    Returns:
        Pixels, uint8, shape (H, W, 3).

    Raises:
        InputError: if the image cannot be read or is smaller than `size`.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            rgb = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "unknown format" if unknown else str(error)
        raise InputError(
            f"{where} is not a readable image ({reason}); repair or remove it"
        ) from error
    return np.asarray(rgb if size is None else _reduce(rgb, size, where))


def _reduce(image: Image.Image, size: tuple[int, int], where: str) -> Image.Image:
    height, width = size
    factor = min(image.height / height, image.width / width)
    if factor < 1:
        fits = int(height * factor), int(width * factor)
        raise GridError(
            f"{where} has {image.height} x {image.width} pixels, fewer than the size "
            f"{height} x {width} asked for; {size_setting([max(n, 1) for n in fits])} fits, "
            "or remove it"
        )
    left, top = (image.width - width * factor) / 2, (image.height - height * factor) / 2
    box = (left, top, left + width * factor, top + height * factor)
    if factor.is_integer():
        # Rounds once, where resize rounds after each axis and comes out brighter.
        whole = int(left), int(top)
        end = whole[0] + width * int(factor), whole[1] + height * int(factor)
        return image.reduce(int(factor), box=(*whole, *end))
    return image.resize((width, height), Image.Resampling.BOX, box=box)


def load_image(path: str | Path) -> np.ndarray:
    """Return an image file as RGB values in [0, 1], float32, shape (H, W, 3)."""
    return decode_image(Path(path), str(path)).astype(np.float32) / 255


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write values in [0, 1], shape (H, W), (H, W, 1) or (H, W, 3), as an image file.

    Values outside [0, 1] are clipped; the suffix of the path chooses the format.

    Raises:
        InputError: if the shape is not an image's or the suffix is unknown.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 and pixels.shape[2:] != (3,):
        raise InputError(f"an image has shape (H, W), (H, W, 1) or (H, W, 3), got {image.shape}")
    if Path(path).suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: unknown image suffix; use one of {sorted(IMAGE_SUFFIXES)}")
    Image.fromarray(np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)).save(path)
