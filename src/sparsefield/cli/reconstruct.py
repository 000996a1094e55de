"""sparsefield reconstruct: from an image or a table of points to the whole field."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.cli.progress import count_fields, duration
from sparsefield.core.errors import InputError

if TYPE_CHECKING:
    from sparsefield.inference.reconstruction import Reconstruction

SUFFIXES = (".png", ".npz")


def command(
    input: Annotated[Positional[Path], arg(metavar="INPUT")],
    out: Annotated[Path, arg(metavar="FILE")],
    model: options.ModelName = "default",
    size: options.Size = None,
    samples: options.Samples = 0,
    sampler: options.SamplerName = options.DEFAULT_SAMPLER,
    steps: options.Steps = 10,
    density: options.Density = 0.2,
    seed: options.Seed = 0,
    noise: Annotated[float, arg(metavar="SIGMA")] = 0.0,
    chunk: options.Chunk = None,
    device: options.Device = "auto",
    recalibrate: bool = False,
    nfe: Annotated[int | None, arg(metavar="N")] = None,
    own_cells: bool = False,
) -> int:
    """Reconstruct the whole field from an image or from scattered points.

    INPUT is one of:

    - an image with transparent pixels: those are the unknown ones;
    - an image without: a random part of its pixels, --density, counts as observed;
    - a .npz with coords (M, P) in [-1, 1] and values (M, C);
    - a .csv with a header: columns y and x in [-1, 1] (y down the rows, x along them; x alone in
      1-D, z, y and x in 3-D), all other columns are channels.

    Args:
        input: What was observed.
        out: .png for the mean, .npz for mean, std, samples, coords and quantiles on the grid, at
            those of the levels 0.05, 0.25, 0.5, 0.75 and 0.95 that so many samples tell.
        noise: Standard deviation of the measurement error in the units of the values (pixels are
            in [0, 1]); 0 reproduces what was observed exactly, but for --own-cells.
        size: Grid of the result; by default the image's, or the one the model was trained on.
        nfe: Evaluations of the network to spend, in place of samples and steps: 1 for the mean,
            up to 20 for one sample, more for samples and their mean, which a .png then shows.
        own_cells: Give each cell of a finer grid its own mean instead of that over a cell as large
            as those observed: sharper, for models that have learnt it.
        recalibrate: Scale the spread of the samples to the errors at held-out observations.
    """
    from sparsefield.core.devices import choose_device
    from sparsefield.data.formats.observations import Masking, read_observation
    from sparsefield.inference.model import bounded_chunk, load
    from sparsefield.inference.reconstruction import reconstruct

    if out.suffix not in SUFFIXES:
        raise InputError(f"cannot write {out}: the suffix must be {' or '.join(SUFFIXES)}")
    loaded = load(model, choose_device(device))
    obs, grid = read_observation(input, loaded, Masking(density, seed))
    if size is not None and len(size) != len(loaded.spec.shape):
        raise InputError(f"--size takes {len(loaded.spec.shape)} numbers here, not {len(size)}")
    shape = size or grid or loaded.spec.shape
    drawing: dict[str, Any] = {"samples": samples, "sampler": sampler, "steps": steps}
    drawing |= {"nfe": nfe, "seed": seed, "noise": noise, "recalibrate": recalibrate}
    drawing |= {"grid": grid, "own_cells": own_cells}
    drawing["chunk"] = bounded_chunk(loaded, obs.count) if chunk is None else chunk
    with count_fields("points", math.prod(shape)) as progress:
        field = reconstruct(loaded, obs, shape, **drawing, progress=progress)
    _write(field, out, dialled=nfe is not None)
    cells = " x ".join(map(str, shape))
    print(f"{out}: {cells} from {obs.count} points, nfe {field.nfe}, {duration(field.seconds)}")
    if recalibrate:
        print(f"spread of the samples scaled by {field.spread:.3f}")
    return 0


def _write(field: "Reconstruction", path: Path, dialled: bool) -> None:
    """Write the mean, or what a dial was set to, as an image, or all as a .npz archive."""
    import numpy as np

    from sparsefield.core.files import write_atomically
    from sparsefield.data.formats.images import save_image
    from sparsefield.inference.reconstruction import LEVELS

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        save_image(path, field.on_grid(field.estimate if dialled else field.mean))
        return
    draws = 0 if field.samples is None else len(field.samples)
    levels = [level for level in LEVELS if 1 <= level * (draws + 1) <= draws]
    parts = {
        "mean": field.mean,
        "std": field.std,
        "samples": field.samples,
        "coords": field.coords,
        "quantiles": field.quantiles(levels) if levels else None,
    }
    arrays: dict[str, Any] = {
        name: field.on_grid(part) for name, part in parts.items() if part is not None
    }
    if levels:
        arrays["levels"] = np.array(levels)

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(path, save)
