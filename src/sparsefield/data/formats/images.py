"""Images on disk and in memory."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from sparsefield.core.errors import InputError
from sparsefield.core.files import write_atomically
from sparsefield.data.formats import IMAGE_SUFFIXES
from sparsefield.data.formats.guard import read_bytes, readable
from sparsefield.data.formats.pixels import opened, rgb_bytes, values_and_known
from sparsefield.data.formats.reading import LOGGER, Reading
from sparsefield.data.grids import GridError, cell_centres, size_setting
from sparsefield.data.masks import observed_indices
from sparsefield.data.observation import Observation


def decode_image(
    source: bytes | Path, where: str, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Return an encoded image as RGB bytes, upright.

    Args:
        source: The encoded image or the path to it; grey and transparent images become RGB, and
            wide numbers are scaled by the range of their type.
        where: What an error message calls the image.
        size: Height and width to reduce to: the largest centred part of that aspect is
            area-averaged.

    Returns:
        Pixels, uint8, shape (H, W, 3).

    Raises:
        InputError: The image cannot be read or is smaller than `size`.
    """
    data = source if isinstance(source, bytes) else read_bytes(source)
    with opened(data, where) as image, readable(where, "image", "repair or remove it"):
        rgb = rgb_bytes(image, where)
        return np.asarray(rgb if size is None else _reduce(rgb, size, where))


def read_observation(path: Path, reading: Reading) -> Observation:
    """Return the known pixels of an image, or a part of them if all are.

    Raises:
        InputError: The image cannot be read, nothing is known of it, or all is and `density` does
            not say which part counts.
    """
    reading.refuse(path, coords="an image has no columns", values="an image has no columns")
    if isinstance(reading.noise, str):
        raise InputError(f"{path}: the noise of an image is a number, not '{reading.noise}'")
    values, known = values_and_known(read_bytes(path), str(path))
    seen = _observed(path, known, reading)
    pixels = values.reshape(known.size, -1)[seen]
    return Observation(cell_centres(known.shape)[seen], pixels, reading.noise, grid=known.shape)


def _observed(path: Path, known: np.ndarray, reading: Reading) -> np.ndarray:
    """Return the indices of the pixels that count as observed."""
    if not known.any():
        raise InputError(f"{path}: all pixels are transparent, so nothing is known")
    if not known.all():
        if reading.density is not None:
            LOGGER.info("%s has transparent pixels, which are the unknown ones; density is "
                        "not used", path)  # fmt: skip
        return np.flatnonzero(known)
    if reading.density is None:
        raise InputError(
            f"{path} has no transparent pixels, so nothing is missing; make the unknown ones "
            "transparent, or give --density (density=) for the part that counts as observed"
        )
    return observed_indices(known.size, reading.density, reading.seed, "validation", 0)


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
        InputError: The shape is not an image's, the suffix is unknown, or the file cannot be
            written.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 and pixels.shape[2:] != (3,):
        raise InputError(f"an image has shape (H, W), (H, W, 1) or (H, W, 3), got {image.shape}")
    if Path(path).suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: unknown image suffix; use one of {sorted(IMAGE_SUFFIXES)}")
    encoded = Image.fromarray(np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8))
    write_atomically(Path(path), encoded.save)


def write_field(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the estimate of a field, or its mean, as an image.

    Raises:
        InputError: The field is no image, or the file cannot be written.
    """
    shown = arrays.get("estimate", arrays["mean"])
    if shown.ndim != 3 or shown.shape[-1] not in (1, 3):
        raise InputError(
            f"cannot write {path}: an image has two dimensions and 1 or 3 channels, the field has "
            f"{shown.ndim - 1} and {shown.shape[-1]}; write an archive (.npz)"
        )
    save_image(path, shown)
