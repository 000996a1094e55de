"""What a posterior mean costs as the grid grows: seconds, memory, and the exponent of the time."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsefield.core.devices import choose_device
from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres
from sparsefield.data.masks import observed_indices
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.inference.checkpoint import ModelSpec, bundled_models, read_spec
from sparsefield.inference.model import Model, bounded_chunk, load, posterior_mean
from sparsefield.models import FITTED, find_model
from sparsefield.profiling.timing import Work, compare, environment
from sparsefield.training.config import load_config, preset_names

SIZES = (32, 64, 128, 256, 512)
CHANNELS = 3
# Cells per axis of the grid that is observed, and the observed fraction of them.
OBSERVED_SIDE, DENSITY = 32, 0.2
# The exponent is that of the largest sizes: at small ones, overheads flatten it.
FITTED_SIZES = 3
# An evaluation that is expected to take longer, in seconds, is not tried.
LONGEST = 60.0


def measure_sizes(
    names: Sequence[str],
    settings: Sequence[str],
    sizes: Sequence[int],
    device: str,
    rounds: tuple[int, float],
    announce: Callable[[str], None],
) -> dict[str, Any]:
    """Measure one posterior mean of every model at every size, a fifth of 32 x 32 cells observed.

    A model sits out a size whose time or memory, judged by the sizes before, is out of reach.

    Args:
        names: Bundled models, presets or TOML files; all bundled models and presets if empty.
        settings: Settings in place of the presets', as in `load_config`.
        sizes: Cells per axis of the grids.
        device: Where the models run.
        rounds: Repeats and patience, see `compare`.
        announce: Called with a description of what is measured next.

    Returns:
        The environment and `rows`, one per model: `sizes` holds what `compare` returned by size,
        `exponent` is b of `seconds ~ points^b` over the three largest sizes that were measured.

    Raises:
        InputError: A name or setting is unknown, or a size is below 1.
    """
    if min(sizes) < 1:
        raise InputError(f"sizes must be at least 1, not {min(sizes)}")
    place = choose_device(device)
    every = list(names) or _of_images()
    rows = {name: _describe(name, settings) for name in every}
    for size in sorted(set(sizes)):
        announce(f"posterior means at {size} x {size}")
        refused = {name: reason for name in every if (reason := _refuse(rows[name], size))}
        setups = {
            name: partial(prepare_mean, name, tuple(settings), size, place.type)
            for name in every
            if name not in refused
        }
        results = compare(setups, *rounds) | {n: {"refused": why} for n, why in refused.items()}
        for name, result in results.items():
            rows[name]["sizes"][str(size)] = result
    for row in rows.values():
        row["exponent"] = fit_exponent(_measured(row))
    head = {"benchmark": "size", **environment(place), "repeats": rounds[0]}
    head |= {"observed": OBSERVED_SIDE, "density": DENSITY, "settings": list(settings)}
    return head | {"rows": list(rows.values())}


def _of_images() -> list[str]:
    """Return the bundled models and presets that take colour images of any grid."""
    every = [*bundled_models(), *preset_names()]
    return [name for name in every if _spec(name, ()).model not in FITTED]


def fit_exponent(measured: Mapping[int, float]) -> float | None:
    """Fit b of `value ~ size^(2 b)` to the largest sizes measured; None for fewer than two."""
    chosen = sorted(measured)[-FITTED_SIZES:]
    if len(chosen) < 2:
        return None
    points = 2 * np.log(chosen)
    return float(np.polyfit(points, np.log([measured[size] for size in chosen]), 1)[0])


def prepare_mean(name: str, settings: Sequence[str], size: int, device: str) -> Work:
    """Return one posterior mean on a square grid, computed as `sparsefield reconstruct` does."""
    model = _load(name, settings, torch.device(device))
    seen = observed_indices(OBSERVED_SIDE**2, DENSITY, 0, "validation", 0)
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(1, len(seen), CHANNELS, generator=generator)
    obs = Observation(cell_centres((OBSERVED_SIDE,) * 2)[None, seen], values)
    coords = cell_centres((size, size))[None]
    noise = torch.randn(1, size**2, CHANNELS, generator=generator)
    chunk = bounded_chunk(model, len(seen))
    return partial(posterior_mean, model, obs, coords, noise, chunk)


def _spec(name: str, settings: Sequence[str]) -> ModelSpec:
    bundled = bundled_models()
    if name in bundled:
        return read_spec(bundled[name])
    config = load_config(name, settings)
    return config.spec(Normalizer.unit_range(CHANNELS), (OBSERVED_SIDE,) * 2)


def _load(name: str, settings: Sequence[str], device: torch.device) -> Model:
    """Return a bundled model, or a preset's with fresh weights."""
    if name in bundled_models():
        return load(name, device)
    spec = _spec(name, settings)
    return Model(name, spec.build().eval().requires_grad_(False).to(device), spec)


def _describe(name: str, settings: Sequence[str]) -> dict[str, Any]:
    spec = _spec(name, settings)
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in spec.build().parameters())
    claims = find_model(spec.model).claims
    return {
        "name": name,
        "model": spec.model,
        "parameters": parameters,
        "linear_cost": claims.linear_cost,
        "query_invariant": claims.query_invariant,
        "sizes": {},
    }


def _measured(row: Mapping[str, Any], key: str = "seconds") -> dict[int, float]:
    """Return what was measured of a model by size."""
    results = {int(size): result.get(key) for size, result in row["sizes"].items()}
    return {size: value for size, value in results.items() if value}


def _refuse(row: Mapping[str, Any], size: int) -> str:
    """Return why a model cannot be measured at a size, judged by smaller ones; empty if it can."""
    seconds, peaks = _measured(row), _measured(row, "peak_bytes")
    # What grows with the square of the points at large sizes may not yet do so at small ones.
    time = _extrapolate(seconds, size, 1.0 if row["linear_cost"] else 2.0)
    if time > LONGEST:
        return f"about {time:.0f} s at {size} x {size}, over {LONGEST:.0f} s"
    needed, free = _extrapolate(peaks, size, fit_exponent(peaks) or 1.0), _available_bytes()
    if free is not None and needed > free:
        return (
            f"about {needed / 2**30:.1f} GiB at {size} x {size}; {free / 2**30:.1f} GiB are free"
        )
    return ""


def _extrapolate(measured: Mapping[int, float], size: int, exponent: float) -> float:
    """Return what the largest size leads to expect; 0 where nothing was measured."""
    if not measured:
        return 0.0
    last = max(measured)
    return measured[last] * (size / last) ** (2 * max(1.0, exponent))


def _available_bytes() -> int | None:
    """Return the memory that processes can still get; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    free = (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return next(free, None)
