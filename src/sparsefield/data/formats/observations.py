"""Observations from a user's file: an image, a .npz archive or a table of points."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zipfile import BadZipFile

from sparsefield.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from sparsefield.data.observation import Observation
    from sparsefield.inference.model import Model

# Names of the coordinate columns, in the order of the array's axes.
AXES = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}


class Masking(NamedTuple):
    """How an image without transparent pixels is observed.

    Args:
        density: Observed fraction, in (0, 1].
        seed: Seed of the mask, which is that of item 0 of the validation split.
    """

    density: float
    seed: int


def read_observation(
    path: Path, model: "Model", masking: Masking
) -> "tuple[Observation, tuple[int, ...] | None]":
    """Return the observations in a file, and its grid if it is an image.

    Args:
        path: Image, .npz with coords (M, P) and values (M, C), or .csv with a header.
        model: Model that will see them: it sets dimensions and channels.
        masking: Which pixels of an image without transparency are observed.

    Raises:
        InputError: The file is missing, damaged or does not fit the model.
    """
    from sparsefield.data.observation import Observation

    if not path.is_file():
        raise InputError(f"no file at {path}")
    if path.suffix == ".npz":
        coords, values = _read_archive(path)
    elif path.suffix == ".csv":
        coords, values = _read_table(path, len(model.spec.shape))
    else:
        return _read_image(path, model.spec.normalizer.channels, masking)
    outside = int((abs(coords) > 1).any(axis=-1).sum())
    if outside:
        raise InputError(
            f"{path}: {outside} of {len(coords)} points lie outside [-1, 1]; "
            "rescale each axis so that the field spans -1 to 1"
        )
    return Observation(coords, values), None


def _read_archive(path: Path) -> "tuple[np.ndarray, np.ndarray]":
    import numpy as np

    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(
                f"{path} holds a single array; a .npz with coords and values is needed"
            )
        with archive:
            return archive["coords"], archive["values"]
    except KeyError as error:
        raise InputError(f"{path} lacks the array {error}; it needs coords and values") from error
    except (OSError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} is not a readable .npz archive: {error}") from error
    except InputError:
        raise
    except ValueError as error:  # numpy's own text recommends pickle
        raise InputError(f"{path} is not a readable .npz archive of numbers") from error


def _read_table(path: Path, dims: int) -> "tuple[np.ndarray, np.ndarray]":
    """Read columns named after the axes as coordinates, and the others as channels."""
    import numpy as np

    axes = AXES.get(dims, tuple(f"x{axis}" for axis in range(dims)))
    try:
        header, *rows = csv.reader(path.read_text().splitlines())
    except ValueError as error:
        raise InputError(f"{path} is empty or no text: {error}") from error
    names = [name.strip() for name in header]
    missing = [axis for axis in axes if axis not in names]
    if missing or len(names) == len(axes):
        raise InputError(
            f"{path} needs a header with {', '.join(axes)} and one name per channel; it has "
            f"{', '.join(names)}"
        )
    try:
        table = np.array(rows, dtype=np.float64).reshape(len(rows), len(names))
    except ValueError as error:
        raise InputError(f"{path} is not a table of numbers: {error}") from error
    channels = [name for name in names if name not in axes]
    coords, values = (table[:, [names.index(n) for n in part]] for part in (axes, channels))
    return coords, values


def _read_image(
    path: Path, channels: int, masking: Masking
) -> "tuple[Observation, tuple[int, ...]]":
    """Observe the pixels that are opaque, or some at random if all are."""
    import numpy as np
    from PIL import Image

    from sparsefield.data.formats.images import decode_image
    from sparsefield.data.grids import cell_centres
    from sparsefield.data.masks import observed_indices
    from sparsefield.data.observation import Observation

    if channels not in (1, 3):
        raise InputError(f"{path} is an image, and the model has {channels} channels")
    pixels = decode_image(path, str(path))
    with Image.open(path) as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    if channels == 1:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))
    shape = alpha.shape
    if (alpha == 255).all():
        seen = observed_indices(alpha.size, masking.density, masking.seed, "validation", 0)
    else:
        seen = np.flatnonzero(alpha > 127)
        if not seen.size:
            raise InputError(f"{path}: all pixels are transparent, so nothing is known")
    values = pixels.reshape(alpha.size, channels)[seen].astype(np.float32) / 255
    return Observation(cell_centres(shape)[seen], values), shape
