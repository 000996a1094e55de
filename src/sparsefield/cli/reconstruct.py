"""sparsefield reconstruct: from an image or a table of points to the whole field."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.cli.progress import count_fields, duration
from sparsefield.core.errors import InputError
from sparsefield.core.words import counted

if TYPE_CHECKING:
    import numpy as np

    from sparsefield.data.observation import Observation
    from sparsefield.data.query import Grid, Points
    from sparsefield.evaluation.check import Check
    from sparsefield.inference.field import Field
    from sparsefield.inference.loading import AnyModel, AnyPosterior


def command(
    input: Annotated[Positional[tuple[Path, ...]], arg(metavar="INPUT ...")],
    out: Annotated[Path, arg(metavar="FILE")],
    model: Annotated[str, arg(metavar="NAME|PATH")] = "auto",
    coords: Annotated[tuple[str, ...] | None, arg(metavar="NAME ...")] = None,
    value: Annotated[tuple[str, ...] | None, arg(metavar="NAME ...")] = None,
    noise: Annotated[float | tuple[str, ...] | None, arg(metavar="SIGMA|NAME ...")] = None,
    time: Annotated[tuple[str, ...] | None, arg(metavar="NAME|MOMENT")] = None,
    time_scale: Annotated[float | Literal["fit"] | None, arg(metavar="LENGTH|fit")] = None,
    density: Annotated[float | None, arg(metavar="D")] = None,
    mask: Annotated[Path | None, arg(metavar="FILE")] = None,
    mask_colour: Annotated[str | None, arg(metavar="COLOUR")] = None,
    size: Annotated[tuple[int, ...] | None, arg(metavar="N ...")] = None,
    spacing: Annotated[tuple[float, ...] | None, arg(metavar="STEP ...")] = None,
    like: Annotated[Path | None, arg(metavar="FILE")] = None,
    at: Annotated[Path | None, arg(metavar="FILE")] = None,
    samples: options.Samples = 0,
    sampler: options.SamplerName = options.DEFAULT_SAMPLER,
    steps: options.Steps = 10,
    seed: options.Seed = 0,
    chunk: options.Chunk = None,
    device: options.Device = "auto",
    recalibrate: bool = False,
    nfe: Annotated[int | None, arg(metavar="N")] = None,
    own_cells: bool = False,
    check: bool = False,
    group: Annotated[str | None, arg(metavar="NAME")] = None,
) -> int:
    """Reconstruct the whole field from an image or from scattered points.

    INPUT is one of:

    {inputs}

    FILE is one of:

    {outputs}

    Args:
        input: What was observed. It is never overwritten.
        out: Where the field goes; the folder, for several inputs. An image made from an image
            keeps its greys, bits, colour profile and metadata. Quantiles are written at those of
            the levels 0.05, 0.25, 0.5, 0.75 and 0.95 that the number of samples allows.
        model: A bundled model, a run folder or a checkpoint. auto is `photographs` for
            images and `universal` for everything else.
        coords: Columns, arrays or dimensions with the coordinates, in the order of the grid's
            axes, where they have other names than those above.
        value: Columns, arrays or variables with the channels, where not all others are meant.
        noise: Standard deviation of the measurement error in the units of the values (pixels are
            in [0, 1]), or the columns or arrays that hold it: one, or one for each channel.
            Without it a flow reproduces what was observed, except with --own-cells, and
            `universal` estimates the error.
        time: Column or dimension with times, or two with date and time of day, which becomes an
            axis of the field; or the moment wanted of a NetCDF file, as 2019-03-18T12:00.
        time_scale: Lengths, kilometres on the Earth, that count as much as one unit of time, an
            hour in a table; by default so many that times are spread as widely as places. fit
            takes the scale that predicts held-out measurements best, and says which it is; with
            --group whole groups are held out.
        density: Fraction, in (0, 1], of the pixels of an image that counts as observed, chosen at
            random: for an image without transparent pixels.
        mask: Image of the same size that is white or transparent where pixels are missing.
        mask_colour: Missing pixels have this colour, as red or #ff0000: in the mask if there is
            one, else in the image.
        size: Cells along each axis of the result; by default those observed, or as many as the
            model says.
        spacing: In place of the size, the distance of neighbours along each axis in its unit, or
            one number for all: the multiples of it within the domain.
        like: In place of the size, a NetCDF file whose grid is wanted; the domain grows to it.
        at: In place of the size, a table or an archive with the points that are wanted.
        nfe: Evaluations of the network to spend, in place of samples and steps: 1 for the mean,
            up to 20 for one sample, more for samples and their mean, which an image then shows.
        own_cells: Give each cell of a finer grid its own mean instead of that over a cell as large
            as those observed (native=True in Python). The result is sharper; only some models
            have learnt it.
        recalibrate: Scale the standard deviation of the samples until it is as large as the errors
            at held-out observations.
        check: Afterwards, hold a tenth of the measurements back, predict them by the model and by
            the baselines from the rest, and say which is better and by how much.
        group: Check on whole groups: the column of a table that says which rows belong together,
            such as a track or a station. Each group is predicted from the others.
    """
    targets = _targets(input, out)

    from sparsefield.core.devices import choose_device
    from sparsefield.inference.loading import load

    ask = _Request(samples, sampler, steps, nfe, recalibrate, seed)
    ask.check()
    where = _Where(size, spacing, like, at, own_cells)
    where.check()
    read = _Reading(coords, value, noise, time, time_scale, density, seed, mask, mask_colour)
    first = read(input[0])
    loaded = load(_model(model, input[0], first), choose_device(device))
    ask.check_fit(loaded)
    for path, target in zip(input, targets, strict=True):
        obs = loaded.locate(_fit(first if path == input[0] else read(path), loaded))
        if read.fits:
            obs = _fit_time(loaded, obs, path, group, seed)
        obs, wanted = where.of(obs, loaded)
        cells = counted(len(wanted), "point") if wanted.shape is None else _by(wanted.shape)
        _check_memory(cells, wanted, obs.channels, samples)
        with count_fields("points", len(wanted)) as progress:
            posterior = loaded.condition(obs, chunk=chunk, progress=progress)
            field = ask.answer(posterior, wanted)
        _write(field, path, target, nfe is not None)
        done = f"nfe {field.nfe}, {duration(field.seconds)}"
        print(f"{target}: {cells} from {counted(obs.count, 'point')}, {done}")
        if recalibrate:
            print(f"standard deviation of the samples scaled by {field.inflation:.3f}")
        if check or group is not None:
            print(_check(loaded, obs, path, group, seed))
    return 0


def _check(
    model: "AnyModel", obs: "Observation", path: Path, group: str | None, seed: int
) -> "Check":
    """Compare the model with the baselines on measurements that are held back."""
    from sparsefield.evaluation.check import check_model

    return check_model(model, obs, groups=_groups(path, group, obs), seed=seed)


def _fit_time(
    model: "AnyModel", obs: "Observation", path: Path, group: str | None, seed: int
) -> "Observation":
    """Return observations with the time scale that predicts held-out ones best, and say it."""
    from sparsefield.evaluation.time_scale import fit_time_scale

    obs, found = fit_time_scale(model, obs, groups=_groups(path, group, obs), seed=seed)
    print(found)
    return obs


def _groups(path: Path, group: str | None, obs: "Observation") -> "np.ndarray | None":
    from sparsefield.data.formats.groups import read_groups

    return None if group is None else read_groups(path, group, obs)


def _targets(inputs: tuple[Path, ...], out: Path) -> list[Path]:
    """Return where each result goes, if all can be read and written; before any work."""
    from sparsefield.core.paths import refuse_overwriting
    from sparsefield.data.formats import need_handler
    from sparsefield.data.formats.guard import regular_file

    if not inputs:
        raise InputError("name a file with what was observed")
    targets = [out] if len(inputs) == 1 else [out / path.name for path in inputs]
    if len(set(targets)) < len(targets):
        raise InputError(f"two inputs have one name, and would be one file in {out}")
    for path, target in zip(inputs, targets, strict=True):
        if not (_is_image(path) and _is_image(target)):
            handler = need_handler(target, "field")
            if handler.folders and target.exists():
                raise InputError(f"{target} exists; a folder is not replaced, remove it first")
        if not need_handler(path, "observation").folders:
            regular_file(path)
    refuse_overwriting(targets, list(inputs))
    return targets


def _is_image(path: Path) -> bool:
    from sparsefield.data.formats import IMAGE_SUFFIXES

    return path.suffix.lower() in IMAGE_SUFFIXES


def _write(field: "Field", source: Path, target: Path, estimated: bool) -> None:
    """Write a field; as an image like its source, where both are images of one size."""
    from sparsefield.data.formats import write_field
    from sparsefield.data.formats.images import image_size, save_like

    shown = {"estimate": field.on_grid(field.estimate)} if estimated else {}
    arrays = field.arrays() | shown
    if _is_image(source) and _is_image(target) and image_size(source) == field.shape:
        save_like(target, arrays.get("estimate", arrays["mean"]), source)
    else:
        write_field(target, arrays)


class _Reading(NamedTuple):
    """How what was observed is to be read, as the options say it."""

    coords: tuple[str, ...] | None
    value: tuple[str, ...] | None
    noise: float | tuple[str, ...] | None
    time: tuple[str, ...] | None
    time_scale: float | str | None
    density: float | None
    seed: int
    mask: Path | None
    mask_colour: str | None

    @property
    def fits(self) -> bool:
        """Whether the time scale is to be fitted."""
        return self.time_scale == "fit"

    def __call__(self, path: Path) -> "Observation":
        """Read a file."""
        from sparsefield.data.formats.images import read_image
        from sparsefield.data.formats.reading import read

        if self.mask is None and self.mask_colour is None:
            return read(
                path,
                coords=self.coords,
                value=self.value,
                noise=self.noise,
                time=self.time,
                time_scale=None if isinstance(self.time_scale, str) else self.time_scale,
                density=self.density,
                seed=self.seed,
            )
        if not _is_image(path):
            raise InputError(f"{path}: a mask belongs to an image")
        if isinstance(self.noise, tuple):
            raise InputError(f"{path}: the noise of an image is a number, not '{self.noise[0]}'")
        return read_image(path, mask=self.mask, mask_colour=self.mask_colour, noise=self.noise)


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

    def check_fit(self, model: "AnyModel") -> None:
        """Refuse options of flows for a model that is none."""
        from sparsefield.inference.model import Model

        if not isinstance(model, Model) and (self.nfe is not None or self.recalibrate):
            raise InputError(
                f"--nfe and --recalibrate are for flows; '{model.name}' states a calibrated "
                "standard deviation in one evaluation"
            )

    def answer(self, posterior: "AnyPosterior", at: "Grid | Points") -> "Field":
        """Return the mean, or samples as well."""
        from sparsefield.inference.posterior import Posterior, split_budget
        from sparsefield.samplers import build_sampler

        if not isinstance(posterior, Posterior):
            n = self.samples
            return posterior.sample(at, n, seed=self.seed) if n else posterior.mean(at)
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


def _fit(obs: "Observation", model: "AnyModel") -> "Observation":
    """Return pixels with the channels of the model; other observations as they are."""
    from sparsefield.data.colour import match_channels

    if obs.grid is None or obs.frame is not None or model.channels is None:
        return obs
    return match_channels(obs, model.channels, model.name)


def _model(name: str, path: Path, obs: "Observation") -> str:
    """Return the model that is meant: of images and arrays of colours, or of any field."""
    if name != "auto":
        return name
    colours = obs.grid is not None and obs.channels == 3 and obs.frame is None
    chosen = "photographs" if _is_image(path) or colours else "universal"
    if not _is_image(path):
        print(f"model: {chosen}")
    return chosen


class _Where(NamedTuple):
    """Where the field is wanted, as the options say it."""

    size: tuple[int, ...] | None
    spacing: tuple[float, ...] | None
    like: Path | None
    at: Path | None
    native: bool

    def check(self) -> None:
        """Refuse options that exclude each other, before any work."""
        given = [f"--{name}" for name in self._fields[:4] if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"give one of {' and '.join(given)}: each says where")
        if self.native and given not in ([], ["--size"]):
            raise InputError(f"--own-cells is about the cells of a grid, not {given[0]}")

    def of(self, obs: "Observation", model: "AnyModel") -> tuple["Observation", "Grid | Points"]:
        """Return observations whose domain holds where the field is wanted, and where that is."""
        from sparsefield.data.formats.places import read_grid, read_points
        from sparsefield.data.query import Grid, check_query

        if self.like is not None:
            if obs.frame is None:
                raise InputError(
                    f"{self.like}: observations in [-1, 1] lie on no grid of the world"
                )
            grid = read_grid(self.like, obs.frame)
            if model.frame is not None:
                return obs, check_query(grid, obs.frame)
            obs = obs.within(obs.frame.covering(grid.corners))
            return obs, check_query(grid, obs.frame)
        if self.at is not None:
            return obs, check_query(read_points(self.at, obs.frame, obs.dims), obs.frame)
        if self.spacing is not None:
            return obs, check_query(Grid.spaced(*self.spacing), obs.frame)
        return obs, check_query(Grid(*self._shape(obs, model), native=self.native), obs.frame)

    def _shape(self, obs: "Observation", model: "AnyModel") -> tuple[int, ...]:
        usual = model.grid_for(obs)
        if self.size is not None and len(self.size) != len(usual):
            raise InputError(f"--size takes {len(usual)} numbers here, not {len(self.size)}")
        return self.size or usual


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _check_memory(cells: str, wanted: "Grid | Points", channels: int, samples: int) -> None:
    from sparsefield.core.memory import check_memory, reconstruction_bytes

    points = len(wanted)
    needed = reconstruction_bytes(points, wanted.dims, channels, samples)
    kind = f" with {counted(samples, 'sample')}" if samples else ""
    check_memory(needed, f"a field of {cells} = {counted(points, 'point')}{kind}")
