"""sparsefield place: where to measure next."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.core.errors import InputError
from sparsefield.core.words import counted

if TYPE_CHECKING:
    import numpy as np

    from sparsefield.data.observation import Observation
    from sparsefield.data.query import Grid, Points
    from sparsefield.inference.placement import Placement

_BOX = re.compile(r"([^=,]+)=([^:,]+):([^:,]+)")


def command(
    input: Annotated[Positional[Path], arg(metavar="INPUT")],
    out: Annotated[Path, arg(metavar="FILE.csv")],
    k: int = 5,
    model: options.ModelName = "universal",
    coords: Annotated[tuple[str, ...] | None, arg(metavar="NAME ...")] = None,
    value: Annotated[str | None, arg(metavar="NAME")] = None,
    noise: Annotated[float | str | None, arg(metavar="SIGMA|NAME")] = None,
    size: options.Size = None,
    candidates: Annotated[Path | None, arg(metavar="FILE")] = None,
    exclude: Annotated[tuple[str, ...], arg(metavar="BOX|FILE")] = (),
    samples: options.Samples = 300,
    seed: options.Seed = 0,
) -> int:
    """Choose the next places to measure: those that most reduce the field's expected variance.

    Each is chosen given those before it, from joint samples of the field given the measurements.
    FILE.csv lists the places, best first, with the expected standard deviation of the field, as a
    root mean square over the grid, once they are measured.

    Args:
        input: What was measured so far, as for 'sparsefield reconstruct'.
        out: Where the table of places goes.
        k: How many places, at least 1.
        coords: Columns or arrays with the coordinates, where they have other names than usual.
        value: Column or array with the values.
        noise: Standard deviation of the measurement error, or the column that holds it; a new
            measurement is taken to have the median one.
        size: Grid over which the variance is averaged, and whose cells are the candidates.
        candidates: Table of places to choose from, in place of the grid's cells.
        exclude: Where nothing can be measured: boxes such as lon=-5:0,lat=50:52, or .npy files of
            the grid's shape that are not 0 there.
    """
    if out.suffix.lower() != ".csv":
        raise InputError(f"{out}: places are written as a table; name a file that ends in .csv")
    if k < 1:
        raise InputError(f"--k takes at least 1 place, not {k}")

    from sparsefield.core.files import write_text
    from sparsefield.data.formats.reading import read
    from sparsefield.data.query import Grid, check_query
    from sparsefield.inference.loading import load
    from sparsefield.inference.placement import place

    obs = read(input, coords=coords, value=value, noise=noise, seed=seed)
    loaded = load(model)
    grid = check_query(Grid(*(size or loaded.grid_for(obs))), obs.frame)
    assert isinstance(grid, Grid)
    at, may, matters = _choice(grid, obs, candidates)
    for each in exclude:
        may &= ~_excluded(each, at, obs, grid)
    field = loaded.condition(obs).sample(at, samples, seed=seed)
    error = 0.0 if obs.noise is None else float(obs.noise[obs.valid].median())
    found = place(field, k, candidates=may, targets=matters, noise=error)
    write_text(out, _table(found, at, obs))
    unit = f" {obs.quantities[0].unit}" if obs.quantities and obs.quantities[0].unit else ""
    before, after = found.std[0], found.std[-1]
    print(
        f"{out}: {counted(k, 'place')} of {int(may.sum()):,}; expected standard deviation "
        f"{after:.4g}{unit}, now {before:.4g}{unit}"
    )
    return 0


def _choice(
    grid: "Grid", obs: "Observation", candidates: Path | None
) -> "tuple[Grid | Points, np.ndarray, np.ndarray]":
    """Return the points to sample, which may be chosen, and which matter."""
    import numpy as np

    from sparsefield.data.query import Points, check_query

    if candidates is None:
        return grid, np.ones(len(grid), bool), np.ones(len(grid), bool)
    from sparsefield.data.formats.places import read_points

    some = read_points(candidates, obs.frame, obs.dims).physical
    cells = grid.physical if obs.frame else grid.coords.numpy()
    at = check_query(Points(np.concatenate([cells, some])), obs.frame)
    matters = np.arange(len(at)) < len(grid)
    return at, ~matters, matters


def _excluded(text: str, at: "Grid | Points", obs: "Observation", grid: "Grid") -> "np.ndarray":
    """Return which points a box or a file excludes (L,)."""
    import numpy as np

    if Path(text).suffix.lower() == ".npy":
        mask = _mask(Path(text), grid)
        return np.concatenate([mask, np.zeros(len(at) - len(mask), bool)])
    points, inside = at.physical, np.ones(len(at), bool)
    for part in text.split(","):
        found = _BOX.fullmatch(part.strip())
        names = _names(obs)
        try:
            name, low, high = (each.strip() for each in found.groups())  # type: ignore[union-attr]
            column = points[:, names.index(name)]
            inside &= (column >= float(low)) & (column <= float(high))
        except (AttributeError, ValueError) as error:
            example = ",".join(f"{axis}=LOW:HIGH" for axis in names)
            raise InputError(f"--exclude takes {example} or a .npy file, not '{text}'") from error
    return inside


def _mask(path: Path, grid: "Grid") -> "np.ndarray":
    import numpy as np

    try:
        mask = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is not a readable .npy file") from error
    if mask.shape != grid.shape:
        raise InputError(f"{path} has the shape {mask.shape}, and the grid {grid.shape}")
    return np.asarray(mask, bool).reshape(-1)


def _names(obs: "Observation") -> tuple[str, ...]:
    return obs.frame.names if obs.frame else ("z", "y", "x")[-obs.dims :]


def _table(found: "Placement", at: "Grid | Points", obs: "Observation") -> str:
    """Return the places as a table, best first."""
    lines = [",".join(["rank", *_names(obs), "expected_std"])]
    for rank, (row, std) in enumerate(zip(found.rows, found.std[1:], strict=True), 1):
        lines.append(",".join([str(rank), *(f"{x:.8g}" for x in at.physical[row]), f"{std:.6g}"]))
    return "\n".join(lines) + "\n"
