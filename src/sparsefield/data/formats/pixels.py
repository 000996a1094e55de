"""What an encoded image holds: upright, and scaled by the range of its type."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image, UnidentifiedImageError

from sparsefield.core.errors import InputError
from sparsefield.core.memory import check_memory
from sparsefield.data.formats.guard import readable

# Formats of Pillow that are read. Others run programs (EPS) or are seldom meant.
ADMITTED = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")

GREY = ("1", "L", "LA", "La")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")

# The tag of EXIF that says how an image is turned; pixels of this alpha and less are missing.
ORIENTATION, KNOWN_ALPHA = 0x0112, 127
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Tags of TIFF: what a number of a pixel is.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2
_GEOGRAPHIC = 34735  # the tag of GeoTIFF that says where it lies

# Memory that a pixel takes while it is decoded, and until it is an observation.
_DECODED_BYTES, _WORKING_BYTES = 4, 48


@contextmanager
def opened(data: bytes, where: str) -> Iterator[Image.Image]:
    """Open an encoded image, decoded and upright; errors of the library are one line.

    Raises:
        InputError: It is no image of an admitted format, damaged, or too large for memory.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata, and of sizes that are checked here
        with readable(where, "image", "repair or remove it"):
            image = _open(data, where)
        with image:
            check_memory(image.width * image.height * _WORKING_BYTES, where)
            check_memory(image.width * image.height * _DECODED_BYTES, where, len(data))
            with readable(where, "image", "repair or remove it"):
                image.load()
                upright = _upright(image)
                _check_mode(upright, where)
            yield upright


def values_and_known(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of an image in [0, 1] and which of its pixels are known.

    Integers are scaled by the range of their type. Transparent pixels, and NaN in images of
    floating-point numbers, are not known.

    Returns:
        Values, float32, shape (H, W, C) with C = 1 for greys and 3 for colours, and a mask (H, W).

    Raises:
        InputError: The image cannot be read, or its numbers have no known range.
    """
    with opened(data, where) as image, readable(where, "image", "repair or remove it"):
        if is_wide(image):
            wide = wide_values(image, where)
            known = np.isfinite(wide) & _opaque_wide(image)
            return np.where(known, wide, 0).astype(np.float32)[..., None], known
        known = np.asarray(image.convert("RGBA"))[..., 3] > KNOWN_ALPHA
        pixels = np.asarray(_plain(image))
        return pixels.reshape(*known.shape, -1).astype(np.float32) / 255, known


def rgb_bytes(image: Image.Image, where: str) -> Image.Image:
    """Return an opened image with 8 bits of red, green and blue; transparency is dropped.

    Raises:
        InputError: Its numbers have no known range.
    """
    if not is_wide(image):
        return _plain(image).convert("RGB")
    wide = wide_values(image, where)
    if np.isnan(wide).any():
        raise InputError(f"{where} has {int(np.isnan(wide).sum())} pixels that are NaN; fill them")
    return Image.fromarray(np.rint(255 * wide).astype(np.uint8)).convert("RGB")


def is_wide(image: Image.Image) -> bool:
    """Return whether the pixels are greys of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def wide_values(image: Image.Image, where: str) -> np.ndarray:
    """Return greys of more than 8 bits, scaled by the range of their type, float64 (H, W).

    Raises:
        InputError: The numbers have no range, or use next to nothing of it.
    """
    stored = np.asarray(image)
    highest = 1.0 if image.mode == "F" else _highest(image)
    values = stored.astype(np.float64) / highest
    low, high = float(np.nanmin(values, initial=0)), float(np.nanmax(values, initial=0))
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"{where} has {'floating-point numbers' if image.mode == 'F' else 'signed integers'} "
            f"from {low * highest:g} to {high * highest:g}; scale them to 0 ... {highest:g}, or "
            "pass the numbers as an array"
        )
    if highest > 2**16 and 0 < high < 2**-15:
        raise InputError(
            f"{where} has 32-bit integers up to {high * highest:g} only, which is black on their "
            f"scale of 0 ... {highest:g}; save it with 16 bits, or pass the numbers as an array"
        )
    inverted = _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO
    return 1 - values if inverted else values


def _open(data: bytes, where: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=ADMITTED)
    except UnidentifiedImageError as error:
        raise InputError(
            f"{where} is not a readable image (unknown format, not one of {', '.join(ADMITTED)}); "
            "repair or remove it"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{where} is not a readable image (too many pixels); reduce it"
        ) from error
    frames = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    if frames > 1:
        raise InputError(f"{where} holds {frames} images; save the one meant by itself")
    return image


def _upright(image: Image.Image) -> Image.Image:
    orientation = 1
    with suppress(Exception):  # metadata that no one can read turn no image
        orientation = image.getexif().get(ORIENTATION, 1)
    if orientation not in _UPRIGHT:
        return image
    turned = image.transpose(_UPRIGHT[orientation])
    turned.info.update(image.info)
    return turned


def _check_mode(image: Image.Image, where: str) -> None:
    if not is_wide(image) and image.mode not in (*GREY, *COLOUR):
        raise InputError(f"{where} has colours of the kind {image.mode}; convert it to RGB")
    if is_wide(image) and _GEOGRAPHIC in getattr(image, "tag_v2", {}):
        raise InputError(
            f"{where} is a GeoTIFF, whose places and units would be lost; turn it into NetCDF, "
            "which keeps them: gdal_translate -of netCDF in.tif out.nc"
        )
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > 255:
        raise InputError(
            f"{where} marks transparency by a colour of 16 bits; save it with an alpha channel"
        )


def _plain(image: Image.Image) -> Image.Image:
    """Return the image as L if it is grey, else as RGB, whatever its transparency."""
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    return image.convert("L" if image.mode in GREY else "RGB")


def _opaque_wide(image: Image.Image) -> np.ndarray:
    """Return where a wide grey has another value than the one that stands for transparency."""
    stored = np.asarray(image)
    transparent = image.info.get("transparency")
    return np.ones(stored.shape, bool) if transparent is None else stored != transparent


def _highest(image: Image.Image) -> float:
    """Return the largest number that the type of an integer image holds."""
    if image.mode.startswith("I;16"):
        return float(2 ** int(_tag(image, _BITS, 16)) - 1)
    if image.format == "PPM":
        return float(2**16 - 1)  # what Pillow scales wide greys of this format to
    bits = int(_tag(image, _BITS, 32))
    return float(2 ** (bits - (_tag(image, _SAMPLE_FORMAT, 1) == _SIGNED)) - 1)


def _tag(image: Image.Image, tag: int, default: int) -> int:
    tags = getattr(image, "tag_v2", {})
    found = tags.get(tag, default)
    return int(found[0] if isinstance(found, tuple) else found)
