"""Calls of earlier versions, accepted with a warning for one release."""

import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid, Points
from sparsefield.inference.conditioned import Progress, silent
from sparsefield.inference.field import Field
from sparsefield.inference.model import Model, load
from sparsefield.inference.posterior import FOLD_SAMPLES, FOLDS, Posterior, split_budget
from sparsefield.samplers import DEFAULT_SAMPLER, build_sampler

# Where each argument of `reconstruct` went.
NEW_PLACES = {
    "shape": "at=sf.Grid(*shape)",
    "coords": "at=sf.Points(coords)",
    "sampler": "sampler=sf.samplers.Heun(20), an object",
    "steps": "sampler=sf.samplers.Heun(steps)",
    "chunk": "model.condition(obs, chunk=...)",
    "noise": "sf.Observation(coords, values, noise=...)",
    "grid": "sf.Observation(coords, values, grid=...)",
    "recalibrate": "model.condition(obs).recalibrated().sample(at, n)",
    "progress": "model.condition(obs, progress=...)",
    "nfe": "model.condition(obs).within(at, nfe)",
    "own_cells": "at=sf.Grid(*shape, native=True)",
}


def accept_old_call(new: Callable[..., Field]) -> Callable[..., Field]:
    """Let `reconstruct` also take what it took before, with a warning that names the new call."""

    @wraps(new)
    def call(model: Any, obs: Observation, *args: Any, **settings: Any) -> Field:
        old = _old_arguments(args, settings)
        if not old:
            return new(model, obs, *args, **settings)
        places = "; ".join(f"{name} is now {NEW_PLACES[name]}" for name in old)
        warnings.warn(
            f"this call of reconstruct goes away: {places}", DeprecationWarning, stacklevel=2
        )
        return old_reconstruct(model, obs, *args, **settings)

    return call


def _old_arguments(args: tuple[Any, ...], settings: dict[str, Any]) -> list[str]:
    """Return the names of arguments that only the old call takes."""
    old = [name for name in NEW_PLACES if name in settings]
    if not isinstance(settings.get("sampler"), str) and "sampler" in old:
        old.remove("sampler")
    if args and not isinstance(args[0], Grid | Points | None):
        old.insert(0, "shape")
    if len(args) > 1 and not old:
        old.append("coords")
    return old


def old_reconstruct(
    model: Model | str | Path,
    obs: Observation,
    shape: Sequence[int] | None = None,
    coords: Tensor | np.ndarray | None = None,
    samples: int = 0,
    sampler: str = DEFAULT_SAMPLER,
    steps: int = 10,
    seed: int = 0,
    chunk: int | None = None,
    noise: float | Sequence[float] = 0.0,
    grid: Sequence[int] | None = None,
    recalibrate: bool = False,
    progress: Progress = silent,
    nfe: int | None = None,
    own_cells: bool = False,
) -> Field:
    """Do what `reconstruct` did: see NEW_PLACES for where its arguments went."""
    loaded = model if isinstance(model, Model) else load(model)
    if nfe is not None and samples:
        raise InputError("nfe chooses the samples; give one of the two")
    if samples < 0 or seed < 0:
        raise InputError(f"samples and seed must be at least 0, not {samples} and {seed}")
    if recalibrate and not samples and nfe is None:
        raise InputError("recalibration scales samples; ask for samples")
    at = _old_query(loaded, shape, coords, own_cells)
    chosen = build_sampler(sampler, steps) if samples else None
    if nfe is not None:
        samples, chosen = split_budget(nfe)
    posterior = _old_condition(loaded, obs, noise, grid, chunk=chunk, progress=progress)
    if not samples:
        return posterior.mean(at, seed=seed)
    if recalibrate:
        posterior = posterior.recalibrated(at, sampler=chosen, seed=seed)
    return posterior.sample(at, samples, sampler=chosen, seed=seed)


def fit_spread(
    model: Model,
    obs: Observation,
    coords: Tensor | np.ndarray | None = None,
    folds: int = FOLDS,
    samples: int = FOLD_SAMPLES,
    sampler: str = DEFAULT_SAMPLER,
    steps: int = 10,
    seed: int = 0,
    noise: float | Sequence[float] = 0.0,
    grid: Sequence[int] | None = None,
) -> float:
    """Return the factor by which samples should deviate from the mean more than they do."""
    at = Grid(*model.spec.shape) if coords is None else Points(coords)
    posterior = _old_condition(model, obs, noise, grid)
    chosen = build_sampler(sampler, steps)
    settings: dict[str, Any] = {"folds": folds, "samples": samples, "sampler": chosen}
    return posterior.recalibrated(at, **settings, seed=seed).inflation.factor


def _old_query(
    model: Model,
    shape: Sequence[int] | None,
    coords: Tensor | np.ndarray | None,
    own_cells: bool,
) -> Grid | Points:
    if shape is not None and coords is not None:
        raise InputError("give either shape= or coords=, not both")
    if coords is None:
        return Grid(*(shape or model.spec.shape), native=own_cells)
    if own_cells:
        raise InputError("own_cells is about the cells of a grid; give shape=")
    return Points(coords)


def _old_condition(
    model: Model,
    obs: Observation,
    noise: float | Sequence[float],
    grid: Sequence[int] | None,
    **settings: Any,
) -> Posterior:
    """Return the posterior given observations of a noise and a grid that were stated apart."""
    sigma: Any = np.asarray(noise, dtype=float)
    sigma = sigma[None] if sigma.ndim == 1 else sigma
    given = Observation(
        obs.coords,
        obs.values,
        sigma if sigma.any() else obs.noise,
        valid=obs.valid,
        grid=obs.grid if grid is None else grid,
    )
    return model.condition(given, **settings)
