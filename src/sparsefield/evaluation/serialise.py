"""Typed results as JSON: one function that writes them, and its inverse.

The metadata of a dataclass's field say how it is written:

- `inline`: among the keys of what holds it; `suffix` tells keys of a mapping from others there.
- `key`: under another key than its name.
- `also`: under a second key too, that of one release before.
- `none`: what stands there where it is None; by default nothing does.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from sparsefield.evaluation.differences import Difference
from sparsefield.metrics.statistics import Estimate

T = TypeVar("T")
INLINE = {"inline": True}
BASELINES = {"also": "floors"}
# How deep objects are broken into lines, and how many of them a list may take.
DEPTH, LINES = 4, 200


def flatten(value: Any) -> Any:
    """Return a result as what strict JSON holds.

    A dataclass becomes an object of its fields. An `Estimate` becomes NAME and NAME_ci, a
    `Difference` also NAME_p, NAME_significant and, of energies, NAME_ratio and NAME_ratio_ci.
    Numbers that are not finite are null.
    """
    if isinstance(value, Mapping):
        return _merge(_entries(str(name), part) for name, part in value.items())
    if is_dataclass(value):
        return _merge(_field_entries(part, getattr(value, part.name)) for part in fields(value))
    if isinstance(value, np.ndarray | np.generic):
        return flatten(value.tolist())
    if isinstance(value, list | tuple):
        return [flatten(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _field_entries(part: "Field[Any]", value: Any) -> dict[str, Any]:
    how = part.metadata
    key = how.get("key", part.name)
    if value is None:
        return {key: how["none"]} if "none" in how else {}
    if how.get("inline"):
        return flatten(value)
    entries = _entries(key, value)
    return entries | ({how["also"]: entries[key]} if "also" in how else {})


def _entries(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Estimate):
        return {name: flatten(value.value), f"{name}_ci": flatten(value.interval)}
    if isinstance(value, Difference):
        entries = _entries(name, Estimate(value.value, value.low, value.high))
        entries |= {f"{name}_p": value.p, f"{name}_significant": value.significant}
        return entries | ({} if value.ratio is None else _entries(f"{name}_ratio", value.ratio))
    return {name: flatten(value)}


def _merge(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


def unflatten(kind: type[T], data: Any) -> T:
    """Return the result that `flatten` wrote; null is NaN where a number belongs.

    Args:
        kind: Dataclass of the result.
        data: What its JSON file holds, of this release or of the one before.
    """
    return _read(kind, data)


def _read(kind: Any, data: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        kind = next(each for each in arguments if each is not NoneType)
        return None if data is None or data == {} else _read(kind, data)
    if origin is dict:
        return _read_mapping(arguments[0], arguments[1], data)
    if origin is list:
        return [_read(arguments[0], part) for part in data]
    if origin is np.ndarray or kind is np.ndarray:
        return np.array(data, dtype=float)
    if is_dataclass(kind):
        return _read_fields(kind, data)
    return math.nan if kind is float and data is None else data


def _read_fields(kind: Any, data: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    return kind(**{part.name: _read_field(part, hints[part.name], data) for part in fields(kind)})


def _read_mapping(key: Any, kind: Any, data: Mapping[str, Any]) -> dict[Any, Any]:
    if kind is Estimate or kind is Difference:
        mark = "_ci" if kind is Estimate else "_p"
        return {name: _read_named(kind, name, data) for name in data if f"{name}{mark}" in data}
    return {key(name): _read(kind, part) for name, part in data.items()}


def _read_field(part: "Field[Any]", kind: Any, data: Mapping[str, Any]) -> Any:
    how = part.metadata
    if how.get("inline"):
        suffix = how.get("suffix", "")
        inside = {name: value for name, value in data.items() if name.endswith(suffix)}
        return _read(kind, inside if suffix else data)
    key = how.get("key", part.name)
    if kind is Estimate:
        return _read_named(kind, key, data)
    found = data.get(key, data.get(how.get("also", key)))
    if found is None and part.default is not MISSING:
        return part.default
    return _read(kind, found)


def _read_named(kind: Any, name: str, data: Mapping[str, Any]) -> Any:
    numbers = (data[name], *data[f"{name}_ci"])
    value, low, high = (math.nan if x is None else float(x) for x in numbers)
    if kind is Estimate:
        return Estimate(value, low, high)
    ratio = f"{name}_ratio"
    return Difference(
        value,
        low,
        high,
        p=data[f"{name}_p"],
        significant=data[f"{name}_significant"],
        ratio=_read_named(Estimate, ratio, data) if ratio in data else None,
    )


def tidy(value: Any, depth: int = 0) -> str:
    """Write objects and lists as JSON, a line for each method or row, without endless lines."""
    pad = " " * (depth + 1)
    if isinstance(value, dict) and depth < DEPTH and _height(value) > 2:
        lines = [f"{json.dumps(name)}: {tidy(part, depth + 1)}" for name, part in value.items()]
        return _bracket("{", lines, "}", pad)
    if isinstance(value, list) and depth < DEPTH and _height(value) > 1 and len(value) <= LINES:
        return _bracket("[", [json.dumps(part, allow_nan=False) for part in value], "]", pad)
    return json.dumps(value, allow_nan=False)


def _bracket(begin: str, lines: list[str], end: str, pad: str) -> str:
    return f"{begin}\n" + ",\n".join(pad + line for line in lines) + f"\n{pad[:-1]}{end}"


def _height(value: Any) -> int:
    """Return how deeply objects and lists are nested."""
    if not isinstance(value, dict | list):
        return 0
    parts = value.values() if isinstance(value, dict) else value
    return 1 + max(map(_height, parts), default=0)
