"""Fields as columns: a row for each point."""

from collections.abc import Mapping

import numpy as np

from sparsefield.data.formats.moments import name_moments


def flat_columns(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a field as columns (L,) by name: coordinates, then all that is known of each channel.

    Times with a date are text. Several channels have their names in front: `u_mean`, `v_mean`.

    Args:
        arrays: What `Field.arrays` returns.
    """
    mean = arrays["mean"]
    channels = mean.shape[-1]
    labels = [str(name) for name in arrays.get("channels", ())] or [
        str(c) for c in range(channels)
    ]
    columns = _coordinates(arrays, mean)
    for channel, label in enumerate(labels):
        front = f"{label}_" if channels > 1 else ""
        for name, values in _statistics(arrays):
            columns[f"{front}{name}"] = values[..., channel].reshape(-1)
    return columns


def _coordinates(arrays: Mapping[str, np.ndarray], mean: np.ndarray) -> dict[str, np.ndarray]:
    if "coords" not in arrays:
        return dict(
            zip("ijk", np.indices(mean.shape[:-1]).reshape(mean.ndim - 1, -1), strict=False)
        )
    points = arrays["coords"].reshape(-1, arrays["coords"].shape[-1])
    dims = points.shape[1]
    plain = ("z", "y", "x")[-dims:] if dims <= 3 else [f"axis_{axis}" for axis in range(dims)]
    names = [str(name) for name in arrays.get("names", plain)]
    units = [str(unit) for unit in arrays.get("units", [""] * dims)]
    columns = {}
    for name, unit, values in zip(names, units, points.T, strict=True):
        texts = name_moments(values, unit) if " since " in unit else None
        columns[name] = values if texts is None else np.array(texts)
    return columns


def _statistics(arrays: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Return what is known of each point: mean, std, quantiles and samples (..., C) by name."""
    found = [(name, arrays[name]) for name in ("mean", "std") if name in arrays]
    for level, values in zip(arrays.get("levels", ()), arrays.get("quantiles", ()), strict=True):
        found.append((f"q{100 * float(level):02.3g}", values))
    found += [
        (f"sample{number}", values) for number, values in enumerate(arrays.get("samples", ()))
    ]
    return found
