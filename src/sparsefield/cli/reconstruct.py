"""sparsefield reconstruct: from an image or a table of points to the whole field."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.cli.progress import count_fields, duration
from sparsefield.core.errors import InputError

if TYPE_CHECKING:
    from sparsefield.data.observation import Observation
    from sparsefield.data.query import Grid
    from sparsefield.inference.field import Field
    from sparsefield.inference.model import Model
    from sparsefield.inference.posterior import Posterior


def command(
    input: Annotated[Positional[Path], arg(metavar="INPUT")],
    out: Annotated[Path, arg(metavar="FILE")],
    model: options.ModelName = "default",
    coords: Annotated[tuple[str, ...] | None, arg(metavar="NAME ...")] = None,
    value: Annotated[tuple[str, ...] | None, arg(metavar="NAME ...")] = None,
    noise: Annotated[float | str | None, arg(metavar="SIGMA|NAME")] = None,
    density: Annotated[float | None, arg(metavar="D")] = None,
    size: options.Size = None,
    samples: options.Samples = 0,
    sampler: options.SamplerName = options.DEFAULT_SAMPLER,
    steps: options.Steps = 10,
    seed: options.Seed = 0,
    chunk: options.Chunk = None,
    device: options.Device = "auto",
    recalibrate: bool = False,
    nfe: Annotated[int | None, arg(metavar="N")] = None,
    own_cells: bool = False,
) -> int:
    """Reconstruct the whole field from an image or from scattered points.

    INPUT is one of:

    {inputs}

    FILE is one of:

    {outputs}

    Args:
        input: What was observed. It is never overwritten.
        out: Where the field goes. There are quantiles at those of the levels 0.05, 0.25, 0.5,
            0.75 and 0.95 that so many samples tell.
        coords: Columns or arrays with the coordinates, in the order of the grid's axes, where
            they have other names than those above.
        value: Columns or arrays with the channels, where not all others are meant.
        noise: Standard deviation of the measurement error in the units of the values (pixels are
            in [0, 1]), or the column or array that holds it; without it what was observed is
            reproduced exactly, but for --own-cells.
        density: Fraction, in (0, 1], of the pixels of an image that counts as observed, chosen at
            random: for an image without transparent pixels.
        size: Grid of the result; by default the image's, or the one the model was trained on.
        nfe: Evaluations of the network to spend, in place of samples and steps: 1 for the mean,
            up to 20 for one sample, more for samples and their mean, which an image then shows.
        own_cells: Give each cell of a finer grid its own mean instead of that over a cell as large
            as those observed: sharper, for models that have learnt it.
        recalibrate: Scale the standard deviation of the samples to the errors at held-out
            observations.
    """
    from sparsefield.data.formats import need_handler, write_field
    from sparsefield.data.formats.guard import regular_file

    need_handler(out, "field")
    need_handler(input, "observation")
    regular_file(input)

    from sparsefield.core.devices import choose_device
    from sparsefield.data.formats.reading import read
    from sparsefield.data.query import Grid
    from sparsefield.inference.model import load

    ask = _Request(samples, sampler, steps, nfe, recalibrate, seed)
    ask.check()
    obs = read(input, coords=coords, value=value, noise=noise, density=density, seed=seed)
    loaded = load(model, choose_device(device))
    obs = _fit(obs, loaded)
    shape = _shape(size, obs, loaded)
    _check_memory(shape, loaded, samples)
    with count_fields("points", math.prod(shape)) as progress:
        posterior = loaded.condition(obs, chunk=chunk, progress=progress)
        field = ask.answer(posterior, Grid(*shape, native=own_cells))
    shown = {} if nfe is None else {"estimate": field.on_grid(field.estimate)}
    write_field(out, field.arrays() | shown)
    cells = " x ".join(map(str, shape))
    print(f"{out}: {cells} from {obs.count} points, nfe {field.nfe}, {duration(field.seconds)}")
    if recalibrate:
        print(f"standard deviation of the samples scaled by {field.inflation:.3f}")
    return 0


class _Request(NamedTuple):
    """How the field is to be computed, as the options say it."""

    samples: int
    sampler: str
    steps: int
    nfe: int | None
    recalibrate: bool
    seed: int

    def check(self) -> None:
        """Refuse options that exclude each other, before any work."""
        if self.samples < 0 or self.seed < 0:
            raise InputError(
                f"samples and seed must be at least 0, not {self.samples} and {self.seed}"
            )
        if self.nfe is not None and self.samples:
            raise InputError("--nfe chooses the samples; give one of --nfe and --samples")
        if self.recalibrate and not self.samples and self.nfe is None:
            raise InputError("recalibration scales samples; ask for samples")

    def answer(self, posterior: "Posterior", at: "Grid") -> "Field":
        """Return the mean, or samples as well."""
        from sparsefield.inference.posterior import split_budget
        from sparsefield.samplers import build_sampler

        samples = self.samples
        sampler = build_sampler(self.sampler, self.steps) if samples else None
        if self.nfe is not None:
            samples, sampler = split_budget(self.nfe)
        if not samples:
            return posterior.mean(at, seed=self.seed)
        if self.recalibrate:
            posterior = posterior.recalibrated(at, sampler=sampler, seed=self.seed)
        return posterior.sample(at, samples, sampler=sampler, seed=self.seed)


def _document() -> None:
    """Fill what the registry of formats knows into the help."""
    from sparsefield.data.formats import describe

    parts = {"inputs": "observation", "outputs": "field"}
    for name, task in parts.items():
        lines = "\n".join(f"    - {line};" for line in describe(task))  # type: ignore[arg-type]
        text = (command.__doc__ or "").replace(f"    {{{name}}}", lines.removesuffix(";") + ".")
        command.__doc__ = text


_document()


def _fit(obs: "Observation", model: "Model") -> "Observation":
    """Return pixels with the channels of the model; other observations as they are."""
    from sparsefield.data.colour import match_channels

    channels = model.spec.normalizer.channels
    return obs if obs.grid is None else match_channels(obs, channels, model.name)


def _shape(size: tuple[int, ...] | None, obs: "Observation", model: "Model") -> tuple[int, ...]:
    dims = len(model.spec.shape)
    if size is not None and len(size) != dims:
        raise InputError(f"--size takes {dims} numbers here, not {len(size)}")
    return size or obs.grid or model.spec.shape


def _check_memory(shape: tuple[int, ...], model: "Model", samples: int) -> None:
    from sparsefield.core.memory import check_memory, reconstruction_bytes

    points, channels = math.prod(shape), model.spec.normalizer.channels
    needed = reconstruction_bytes(points, len(shape), channels, samples)
    cells = " x ".join(map(str, shape))
    kind = f" with {samples} samples" if samples else ""
    check_memory(needed, f"a field of {cells} = {points:,} points{kind}")
