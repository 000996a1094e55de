"""NetCDF: fields with named axes, units and a record of how they were made."""

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from sparsefield.core.errors import InputError

# What each number of a field is, for people.
_MEANINGS = {
    "mean": "posterior mean",
    "std": "standard deviation of the posterior samples",
    "samples": "posterior samples",
    "quantiles": "quantiles of the posterior samples",
}
# Axes in front of those of the grid.
_LEADING = {"samples": "sample", "quantiles": "level"}


def need_xarray(what: str) -> Any:
    """Return xarray.

    Raises:
        InputError: It is not installed.
    """
    try:
        return import_module("xarray")
    except ImportError as error:
        raise InputError(f"{what} needs xarray: install sparsefield[geo]") from error


def to_dataset(arrays: Mapping[str, np.ndarray]) -> Any:
    """Return a field as an xarray Dataset.

    Axes with names have their physical coordinates and units, and one channel needs no axis.

    Args:
        arrays: What `Field.arrays` returns.

    Raises:
        InputError: xarray is not installed.
    """
    xarray = need_xarray("to_xarray")
    mean, framed = arrays["mean"], "names" in arrays
    axes = _axes(arrays)
    squeezed = framed and mean.shape[-1] == 1
    variables: dict[str, Any] = {}
    for name, meaning in _MEANINGS.items():
        if name not in arrays:
            continue
        values = arrays[name][..., 0] if squeezed else arrays[name]
        dims = [_LEADING[name]] if name in _LEADING else []
        dims += [*axes, *([] if squeezed else ["channel"])]
        variables[name] = (dims, values, _attributes(arrays, meaning))
    if not framed and "coords" in arrays:
        variables["coords"] = ([*axes, "dimension"], arrays["coords"])
    made = json.loads(str(arrays["made"])) if "made" in arrays else {}
    return xarray.Dataset(variables, _coordinates(arrays, axes), made)


def _axes(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names of the axes of the mean."""
    cells = arrays["mean"].ndim - 1
    if "coords" in arrays and arrays["coords"].shape[-1] != cells:
        return ["point"]
    if "names" in arrays:
        return [str(name) for name in arrays["names"]]
    return [f"axis_{axis}" for axis in range(cells)]


def _coordinates(arrays: Mapping[str, np.ndarray], axes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "levels" in arrays:
        found["level"] = arrays["levels"]
    if "channels" in arrays and (arrays["mean"].shape[-1] > 1 or "names" not in arrays):
        found["channel"] = [str(name) for name in arrays["channels"]]
    if "names" not in arrays:
        return found
    for axis, (name, unit) in enumerate(zip(arrays["names"], arrays["units"], strict=True)):
        free = axes == ["point"]
        values = arrays["coords"][..., axis]
        along = (
            values if free else np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])[0]
        )
        attributes = {"units": str(unit)} if unit else {}
        found[str(name)] = (axes if free else [str(name)], along, attributes)
    return found


def _attributes(arrays: Mapping[str, np.ndarray], meaning: str) -> dict[str, str]:
    """Return what the values are, and their unit if they all have the same."""
    names = [str(name) for name in arrays.get("channels", ())]
    units = {str(unit) for unit in arrays.get("channel_units", ())}
    of = f" of {names[0]}" if len(names) == 1 and names[0] else ""
    found = {"long_name": f"{meaning}{of}"}
    return found | ({"units": units.pop()} if len(units) == 1 and units != {""} else {})
