"""Images on disk and in memory."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from sparsefield.core.errors import InputError
from sparsefield.core.files import write_atomically
from sparsefield.data.formats import IMAGE_SUFFIXES
from sparsefield.data.formats.guard import read_bytes, readable
from sparsefield.data.formats.pixels import (
    GREY,
    KNOWN_ALPHA,
    ORIENTATION,
    is_wide,
    opened,
    rgb_bytes,
    values_and_known,
)
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
    """Return the known pixels of an image; see `read_image`."""
    reasons = dict.fromkeys(("coords", "values", "time"), "an image has no columns")
    reading.refuse(path, **reasons)
    if isinstance(reading.noise, tuple):
        raise InputError(f"{path}: the noise of an image is a number, not '{reading.noise[0]}'")
    return read_image(path, noise=reading.noise, density=reading.density, seed=reading.seed)


def read_image(
    path: str | Path,
    *,
    mask: str | Path | None = None,
    mask_colour: str | None = None,
    noise: float | None = None,
    density: float | None = None,
    seed: int = 0,
) -> Observation:
    """Return the known pixels of an image.

    Missing pixels are transparent, are white or transparent in a mask, or have a given colour.

    Args:
        path: The image.
        mask: An image of the same size that is white or transparent where pixels are missing.
        mask_colour: Pixels of this colour are missing, in the mask if there is one, else in the
            image: a name, such as red, or #rrggbb.
        noise: Standard deviation of the error of the values, which are in [0, 1]; at least 0, none
            by default.
        density: Fraction, in (0, 1], of the pixels that count as observed, chosen at random, of
            an image in which nothing is missing.
        seed: Seed of that choice.

    Returns:
        Pixels in [0, 1] at the centres of the cells of `grid`.

    Raises:
        InputError: A file cannot be read, the sizes differ, nothing is known, or nothing is
            missing and `density` does not say which part counts.
    """
    path = Path(path)
    values, known = values_and_known(read_bytes(path), str(path))
    if mask is not None:
        known = known & ~read_mask(Path(mask), known.shape, mask_colour)
    elif mask_colour is not None:
        known = known & ~_has_colour(path, mask_colour)
    seen = _observed(path, known, density, seed)
    pixels = values.reshape(known.size, -1)[seen]
    return Observation(cell_centres(known.shape)[seen], pixels, noise, grid=known.shape)


def read_mask(path: Path, shape: tuple[int, ...], colour: str | None = None) -> np.ndarray:
    """Return where pixels are missing (H, W): white or transparent ones, or those of a colour.

    Raises:
        InputError: The mask cannot be read or has another size than `shape`.
    """
    if colour is not None:
        missing = _has_colour(path, colour)
    else:
        values, known = values_and_known(read_bytes(path), str(path))
        missing = ~known | (values.mean(-1) > 0.5)
    if missing.shape != shape:
        has, needs = (" x ".join(map(str, size)) for size in (missing.shape, shape))
        raise InputError(f"{path}: the mask has {has} pixels, the image {needs}; make them equal")
    if not missing.any():
        raise InputError(
            f"{path}: nothing is missing; a mask is white or transparent where pixels are, or "
            "name their colour with --mask-colour (mask_colour=)"
        )
    return missing


def _has_colour(path: Path, colour: str) -> np.ndarray:
    try:
        wanted = ImageColor.getrgb(colour)[:3]
    except ValueError as error:
        raise InputError(f"'{colour}' is no colour; write red or #ff0000") from error
    found = np.asarray((decode_image(path, str(path)) == np.array(wanted, np.uint8)).all(-1))
    if not found.any():
        raise InputError(f"{path}: no pixel has the colour {colour}")
    return found


def _observed(path: Path, known: np.ndarray, density: float | None, seed: int) -> np.ndarray:
    """Return the indices of the pixels that count as observed."""
    if not known.any():
        raise InputError(f"{path}: all pixels are transparent or masked, so nothing is known")
    if not known.all():
        if density is not None:
            LOGGER.info("%s has missing pixels, which are the unknown ones; density is "
                        "not used", path)  # fmt: skip
        return np.flatnonzero(known)
    if density is None:
        raise InputError(
            f"{path} has no transparent pixels, so nothing is missing; make the unknown ones "
            "transparent, give a --mask (mask=), or give --density (density=) for the part that "
            "counts as observed"
        )
    return observed_indices(known.size, density, seed, "validation", 0)


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


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width of an image, upright."""
    with opened(read_bytes(path), str(path)) as image:
        return image.height, image.width


def save_like(path: Path, image: np.ndarray, original: Path) -> None:
    """Write values in [0, 1] (H, W, C) as an image that keeps what another one is.

    Greys stay grey with as many bits, and colours keep their profile; transparency stays where
    pixels were partly transparent and known. Metadata stay, but for the orientation, since the
    result is upright. A format that cannot hold all of that keeps what it can.

    Raises:
        InputError: The original cannot be read, or the file cannot be written.
    """
    with opened(read_bytes(original), str(original)) as source:
        result = _as_mode(image, source)
        kept = {
            name: source.info[name]
            for name in ("icc_profile", "dpi")
            if source.info.get(name) is not None
        }
        exif = source.getexif()
        exif.pop(ORIENTATION, None)
    if exif:
        kept["exif"] = exif.tobytes()
    suffix = path.suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        result = result.convert("L" if result.mode in ("L", "LA", "I;16") else "RGB")
        kept["quality"] = 95
    write_atomically(path, lambda file: result.save(file, **kept))


def _as_mode(image: np.ndarray, source: Image.Image) -> Image.Image:
    """Return values (H, W, C) as greys or colours, of as many bits as the source has."""
    values = np.clip(image, 0, 1)
    if is_wide(source):
        return Image.fromarray(np.rint(values.mean(-1) * 65535).astype(np.uint16))
    if source.mode in GREY:
        values = values.mean(-1, keepdims=True)
    pixels = np.rint(255 * values).astype(np.uint8)
    result = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    alpha = np.asarray(source.convert("RGBA"))[..., 3]
    partly = np.where(alpha > KNOWN_ALPHA, alpha, 255)
    if result.size == source.size and (partly < 255).any():
        result.putalpha(Image.fromarray(partly))
    return result


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
