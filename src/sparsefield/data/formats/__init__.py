"""Kinds of files, and what reads and writes them: one file a format, one line here."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sparsefield.core.errors import InputError

Task = Literal["observation", "examples", "field"]

_PURPOSES = {
    "observation": "read {} as observations",
    "examples": "read {} as data",
    "field": "write {}",
}


class Handler(NamedTuple):
    """A function that reads or writes files of some suffixes.

    Attributes:
        function: Where it is, as "module:function"; imported when it is first needed.
        suffixes: Suffixes of the files in small letters, with the dot.
        summary: What the help says of it, after the suffixes.
        folders: Whether these are folders.
        requires: Packages of the extra geo that it needs.
    """

    function: str
    suffixes: tuple[str, ...]
    summary: str
    folders: bool = False
    requires: tuple[str, ...] = ()

    def load(self) -> Callable[..., Any]:
        """Return the function."""
        module, name = self.function.split(":")
        found: Callable[..., Any] = getattr(import_module(module), name)
        return found

    def lacks(self) -> str:
        """Return a package that it needs and that is not installed; nothing if all are there."""
        return next((package for package in self.requires if not find_spec(package)), "")


class Format(NamedTuple):
    """What can be done with one kind of file; None is what cannot.

    Attributes:
        observation: Reads measurements: `(path, Reading) -> Observation`.
        examples: Reads a data set: `(path, Request) -> Examples`.
        field: Writes a field: `(path, arrays)`, with arrays (..., *shape, C) by name.
    """

    observation: Handler | None = None
    examples: Handler | None = None
    field: Handler | None = None


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
TEXT_SUFFIXES = tuple(
    suffix + packed for packed in ("", ".gz", ".bz2", ".xz") for suffix in (".csv", ".tsv", ".txt")
)
_HERE = "sparsefield.data.formats"

FORMATS: dict[str, Format] = {
    "image": Format(
        observation=Handler(
            f"{_HERE}.images:read_observation",
            IMAGE_SUFFIXES,
            "pixels, scaled to [0, 1], of an image; transparent ones are unknown",
        ),
        examples=Handler(f"{_HERE}.folders:read_images", IMAGE_SUFFIXES, "an image or a folder"),
        field=Handler(
            "sparsefield.figures.maps:write_field",
            (".png",),
            "the mean as an image, or a map of what has units",
        ),
    ),
    "table": Format(
        observation=Handler(
            f"{_HERE}.tables:read_observation",
            TEXT_SUFFIXES,
            "a table with a header and one measurement a row: columns lat and lon, y and x (x "
            "alone in 1-D, z, y and x in 3-D) or those named, all others are channels",
        ),
        field=Handler(
            f"{_HERE}.tables:write_field", TEXT_SUFFIXES, "a table with a row for each point"
        ),
    ),
    "NetCDF": Format(
        observation=Handler(
            f"{_HERE}.netcdf:read_observation",
            (".nc", ".nc4", ".cdf", ".netcdf"),
            "a variable on a grid or at points; missing cells are unknown",
            requires=("xarray",),
        ),
        examples=Handler(
            f"{_HERE}.series:read_series",
            (".nc", ".nc4", ".cdf", ".netcdf"),
            "fields along time; variables on the same axes are channels",
        ),
        field=Handler(
            f"{_HERE}.netcdf:write_field",
            (".nc", ".nc4"),
            "all of it, with axes and units",
            requires=("xarray", "netCDF4"),
        ),
    ),
    "Zarr": Format(
        observation=Handler(
            f"{_HERE}.netcdf:read_zarr_observation",
            (".zarr",),
            "the same in a Zarr store",
            folders=True,
            requires=("xarray", "zarr"),
        ),
        field=Handler(
            f"{_HERE}.netcdf:write_zarr_field",
            (".zarr",),
            "the same, a folder",
            folders=True,
            requires=("xarray", "zarr"),
        ),
    ),
    "parquet": Format(
        observation=Handler(
            f"{_HERE}.parquet_tables:read_observation", (".parquet",), "a table, as in text"
        ),
        examples=Handler(
            f"{_HERE}.parquet:read_parquet",
            (".parquet",),
            "a file or folder in the Hugging Face layout (struct column 'image' or 'img')",
        ),
        field=Handler(f"{_HERE}.parquet_tables:write_field", (".parquet",), "a table, as in text"),
    ),
    "CIFAR-10": Format(
        examples=Handler(
            f"{_HERE}.cifar:read_cifar",
            (".tar.gz", ".tgz", ".tar"),
            "the official CIFAR-10 python archive or its folder",
        ),
    ),
    "numpy archive": Format(
        observation=Handler(
            f"{_HERE}.arrays:read_observation",
            (".npz",),
            "arrays coords (M, P), values (M, C) and, if any, noise; or one grid with NaN",
        ),
        examples=Handler(f"{_HERE}.arrays:read_npz", (".npz",), "an array of fields by split"),
        field=Handler(
            f"{_HERE}.arrays:write_field",
            (".npz",),
            "mean, std, samples, coords and quantiles at levels",
        ),
    ),
    "numpy array": Format(
        observation=Handler(
            f"{_HERE}.arrays:read_array_observation",
            (".npy",),
            "a grid (*shape) or (*shape, C) in which NaN is unknown",
        ),
        examples=Handler(f"{_HERE}.arrays:read_npy", (".npy",), "an array of fields"),
    ),
}


def handlers(task: Task) -> list[Handler]:
    """Return what can do a task, in the order of the registry."""
    found = (getattr(each, task) for each in FORMATS.values())
    return [handler for handler in found if handler is not None]


def suffixes(task: Task) -> list[str]:
    """Return the suffixes that a task knows."""
    return [suffix for handler in handlers(task) for suffix in handler.suffixes]


def describe(task: Task) -> list[str]:
    """Return one line for each kind of file that a task knows: suffixes, and what they are."""
    return [f"{', '.join(each.suffixes)}: {each.summary}" for each in handlers(task)]


def find_handler(path: Path, task: Task) -> Handler | None:
    """Return what does a task with a file, by its suffix in small or capital letters, if any."""
    name = path.name.lower()
    return next((each for each in handlers(task) if name.endswith(each.suffixes)), None)


def need_handler(path: Path, task: Task) -> Handler:
    """Return what does a task with a file.

    Raises:
        InputError: The suffix is not one that the task knows, or a package is missing.
    """
    handler = find_handler(path, task)
    if handler is None:
        *others, last = suffixes(task)
        known = f"{', '.join(others)} or {last}" if others else last
        raise InputError(f"cannot {_PURPOSES[task].format(path)}: the suffix must be {known}")
    if package := handler.lacks():
        raise InputError(f"{path} needs the package {package}: install sparsefield[geo]")
    return handler


def write_field(path: Path, arrays: dict[str, Any]) -> None:
    """Write a field in the format that the suffix of a path names.

    Args:
        path: The file.
        arrays: mean and, where there are, std, samples, coords and quantiles, each (..., *shape,
            C), levels, and estimate: what an image shows in place of the mean.

    Raises:
        InputError: No format has this suffix, or the file cannot be written.
    """
    need_handler(path, "field").load()(path, arrays)
