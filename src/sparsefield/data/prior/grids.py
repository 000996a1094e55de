"""Real fields: windows of photographs and of gridded climatologies, at any point of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.ndimage import map_coordinates

from sparsefield.data.prior.kinds import log_uniform, random_rotation

MISSING = -1e9  # and below: what the climatologies write on land


class Grids:
    """Windows of real grids, at a random place, turn and scale, linear between the cells.

    Args:
        grids: Arrays of two or three axes; NaN where there is no value.
    """

    def __init__(self, grids: Sequence[np.ndarray]) -> None:
        self.grids = grids

    def __call__(self, rng: Generator, points: np.ndarray) -> np.ndarray:
        """Return values (L,) at points (L, P): a field of P axes, or a cut through one of more."""
        axes = points.shape[1]
        rich = [grid for grid in self.grids if grid.ndim >= axes]
        if not rich:
            return np.full(len(points), np.nan)
        grid = rich[rng.integers(len(rich))]
        shape = np.array(grid.shape)
        turned = np.zeros((len(points), grid.ndim))
        turned[:, :axes] = points
        turned = turned @ random_rotation(rng, grid.ndim)
        span = np.ptp(turned, axis=0).max()
        reach = log_uniform(rng, 6, 0.7 * shape.max()) / max(float(span), 1e-9)
        place = (turned - turned.mean(0)) * np.minimum(reach, 0.98 * shape / max(span, 1e-9))
        low, high = -place.min(0), shape - 1 - place.max(0)
        place = place + rng.uniform(np.minimum(low, high), np.maximum(low, high))
        return map_coordinates(grid, place.T, order=1, cval=np.nan)


def read_climatologies(folder: Path, held_out: bool = False) -> list[np.ndarray]:
    """Return the grids of the COADS and Levitus climatologies.

    Args:
        folder: Where the two files lie.
        held_out: Return the humidity and the salinity, which training never sees, instead of
            the rest.
    """
    grids: list[np.ndarray] = []
    for name in ("SST", "AIRT", "WSPD", "UWND", "VWND", "SLP", "SPEH"):
        if (name == "SPEH") == held_out:
            grids += list(_read(folder / "coads_climatology.cdf", name))
    cube = _read(folder / "levitus_climatology.cdf", "SALT" if held_out else "TEMP")
    grids += [*cube[::2], cube, cube, cube]
    return grids


def read_photographs(path: Path, count: int, start: int = 0) -> list[np.ndarray]:
    """Return grey photographs of a parquet file with a column `image` of encoded bytes."""
    import io

    import pyarrow.parquet as pq
    from PIL import Image

    column = pq.read_table(path, columns=["image"])["image"].slice(start, count)
    images = (Image.open(io.BytesIO(row["bytes"])).convert("L") for row in column.to_pylist())
    return [np.asarray(image, dtype=np.float32) for image in images]


def _read(path: Path, name: str) -> np.ndarray:
    from scipy.io import netcdf_file

    with netcdf_file(path, mmap=False) as file:
        data = np.array(file.variables[name].data, dtype=np.float32)
    return np.where(data > MISSING, data, np.nan)
