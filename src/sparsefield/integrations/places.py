"""Where the values of a DataArray lie, as positions whose distances mean something."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.frame import EARTH_KM, Frame, axis_kind

GLOBE = Frame(("longitude", "latitude"), (-180, -90), (180, 90))
# Names of what is no place, beside those of times.
STEPS = ("month", "season", "dayofyear", "hour", "step")
MOST_AXES = 3


class Places(NamedTuple):
    """Positions of the values along some dimensions of an array.

    Attributes:
        dims: The dimensions, in the array's order.
        shape: Their sizes.
        positions: Positions (L, P) of values in C order; unit vectors for longitude and latitude.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    positions: np.ndarray


def find_places(array: Any, coords: Sequence[str] | None = None) -> Places:
    """Return where the values of an array lie.

    Args:
        array: A DataArray, or a Dataset of coordinates.
        coords: Names of the coordinates that give a place, one to three. By default longitude and
            latitude if there are both, and else every dimension but time.

    Raises:
        InputError: There is no such coordinate, it holds no finite numbers, or distances along
            several of them have no common unit.
    """
    names = _usual(array) if coords is None else tuple(coords)
    _check_names(array, names)
    given = {name: array[name] for name in names}
    dims = tuple(d for d in array.dims if any(d in each.dims for each in given.values()))
    shape = tuple(array.sizes[d] for d in dims)
    columns = {name: _numbers(name, _spread(each, dims, shape)) for name, each in given.items()}
    return Places(dims, shape, _positions(given, columns))


def kind(name: str, coordinate: Any) -> str:
    """Return what a coordinate is: longitude, latitude, time or other."""
    standard = coordinate.attrs.get("standard_name")
    if standard in ("longitude", "latitude", "time"):
        return str(standard)
    if coordinate.dtype.kind in "mM" or str(name).lower() in STEPS:
        return "time"
    return axis_kind(str(name), str(coordinate.attrs.get("units", "")))


def _usual(array: Any) -> tuple[str, ...]:
    kinds = {name: kind(name, array[name]) for name in (*array.dims, *array.coords)}
    found = {what: name for name, what in reversed(kinds.items()) if array[name].dims}
    if {"longitude", "latitude"} <= found.keys():
        return found["latitude"], found["longitude"]
    space = tuple(name for name in array.dims if kinds[name] != "time")
    return space or tuple(array.dims)


def _check_names(array: Any, names: Sequence[str]) -> None:
    known = [*array.dims, *(name for name in array.coords if name not in array.dims)]
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(f"there is no coordinate '{missing[0]}'; there are {', '.join(known)}")
    if not 1 <= len(names) <= MOST_AXES:
        raise InputError(
            f"a field lies along 1 to {MOST_AXES} coordinates, not {len(names)} "
            f"({', '.join(map(str, names))}); name them with coords="
        )


def _spread(coordinate: Any, dims: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Return a coordinate at every value (L,)."""
    own = [d for d in dims if d in coordinate.dims]
    values = coordinate.transpose(*own).values
    full = values.reshape([n if d in own else 1 for d, n in zip(dims, shape, strict=True)])
    return np.broadcast_to(full, shape).reshape(-1)


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    """Return a coordinate as finite numbers; times in days."""
    if values.dtype.kind == "M":
        values = values - values.min()
    if values.dtype.kind == "m":
        values = values / np.timedelta64(1, "D")
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise InputError(f"coordinate '{name}' holds other things than finite numbers")
    return values.astype(np.float64)


def _positions(given: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> np.ndarray:
    kinds = {kind(name, each): name for name, each in given.items()}
    if "longitude" in kinds and "latitude" in kinds:
        if len(given) > 2:
            raise InputError(
                "longitude and latitude are a sphere by themselves: leave the others out of "
                "coords=, and each of their values is treated by itself"
            )
        return unit_vectors(columns[kinds["longitude"]], columns[kinds["latitude"]])
    _check_units(given, kinds)
    return np.column_stack(list(columns.values()))


def unit_vectors(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return unit vectors (L, 3) of places on the sphere, in degrees (L,).

    Raises:
        InputError: A latitude is out of range.
    """
    return GLOBE.positions(GLOBE.to_unit(np.column_stack([longitude, latitude]))) / EARTH_KM


def _check_units(given: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    units = {name: each.attrs.get("units") for name, each in given.items()}
    stated = {unit for unit in units.values() if unit is not None}
    if len(stated) > 1 or ("time" in kinds and len(given) > 1):
        said = ", ".join(f"{name} [{unit or '?'}]" for name, unit in units.items())
        raise InputError(
            f"distances along {said} have no common unit; name those of one unit with coords="
        )
