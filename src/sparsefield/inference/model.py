"""A loaded model: its posterior mean and its draws, in physical units."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.data.cells import CellGrids, keep_means
from sparsefield.data.conversion import SAME_POINT
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Query
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import ModelSpec, load_checkpoint, resolve
from sparsefield.samplers import NoiseFields, build_sampler

# Points that are computed at a time where memory is to be bounded, or as many as are observed if
# those are more.
CHUNK = 65_536


@dataclass(frozen=True)
class Model:
    """A loaded flow with what is needed to use it in physical units.

    Attributes:
        name: Name or path it was loaded by.
        flow: The flow, in evaluation mode.
        spec: Its description.
    """

    name: str
    flow: Flow
    spec: ModelSpec

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.flow.parameters()).device

    @property
    def parameters(self) -> int:
        """Number of trainable weights."""
        return sum(weight.numel() for weight in self.flow.parameters())

    @property
    def reads_cells(self) -> bool:
        """Whether it tells means over finer or coarser cells from those over observed ones."""
        return self.flow.backbone.claims.resolution_aware


def load(name: str | Path = "default", device: str | torch.device = "cpu") -> Model:
    """Load a bundled model by name, or a trained one by run folder or file.

    Raises:
        InputError: There is no such model, or the file is damaged.
    """
    flow, spec = load_checkpoint(resolve(name))
    return Model(str(name), flow.to(device), spec)


def bounded_chunk(model: Model, observations: int) -> int | None:
    """Return the points of a mean to compute at a time, so that memory is bounded; None for all.

    Only models whose claims include `query_invariant` can be asked in parts. Each part encodes the
    observations anew, so it is no smaller than they are.
    """
    return max(CHUNK, observations) if model.flow.backbone.claims.query_invariant else None


@torch.no_grad()
def posterior_mean(
    model: Model,
    obs: Observation,
    coords: Tensor,
    noise: Tensor,
    chunk: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
    grids: CellGrids | None = None,
) -> Tensor:
    """Return E[field | observations] (B, L, C) in physical units by one evaluation.

    Args:
        model: The model.
        obs: Batched observations in physical units.
        coords: Points (B, L, P).
        noise: Source noise (B, L, C); the network starts from it, as in training.
        chunk: Points computed at a time, all if None.
        progress: Called with the number of points done after each chunk.
        grids: The grid whose cells are at the points, if means over them are asked for; means over
            cells like those observed if None.

    Raises:
        InputError: Points in chunks would see each other in another way than all at once.
    """
    if chunk is not None and not model.flow.backbone.claims.query_invariant:
        raise InputError(
            f"model '{model.name}' lets points depend on each other; its mean cannot be computed "
            "in chunks"
        )
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk must be at least 1, not {chunk}")
    normalised, queries = _to_model(model, obs, coords)
    size = chunk or queries.shape[1]
    parts = zip(noise.to(model.device).split(size, 1), queries.split(size, 1), strict=True)
    side = _sides(queries, grids)
    encoded = model.flow.encode(normalised)
    means = []
    for x, at in parts:
        query = Query(at, normalised, side)
        prepared = model.flow.prepare(query, encoded)
        means.append(model.flow.posterior_mean(x, query, prepared))
        progress(at.shape[1])
    return _to_user(model, torch.cat(means, dim=1), obs, coords, grids)


def draw_samples(
    model: Model,
    obs: Observation,
    coords: Tensor,
    noise: NoiseFields,
    sampler: str,
    steps: int,
    grids: CellGrids | None = None,
) -> tuple[Tensor, int]:
    """Return posterior samples (B, L, C) in physical units and the evaluations that each took.

    Args:
        model: The model.
        obs: Batched observations in physical units.
        coords: Points (B, L, P).
        noise: Returns independent fields of the flow's source noise (B, L, C) by their number.
        sampler: Key of SAMPLERS, with settings as `build_sampler` takes them.
        steps: Steps of the sampler.
        grids: As in `posterior_mean`.
    """
    normalised, queries = _to_model(model, obs, coords)

    def on_device(step: int) -> Tensor:
        return noise(step).to(model.device, torch.float32)

    query = Query(queries, normalised, _sides(queries, grids))
    result = build_sampler(sampler, steps)(model.flow, on_device, query)
    return _to_user(model, result.values, obs, coords, grids), result.nfe


def _sides(queries: Tensor, grids: CellGrids | None) -> Tensor:
    return queries.new_full((len(queries),), 1.0 if grids is None else grids.side)


def _to_model(model: Model, obs: Observation, coords: Tensor) -> tuple[Observation, Tensor]:
    values = model.spec.normalizer.apply(obs.values)
    normalised = Observation(obs.coords, values, valid=obs.valid).to(model.device, torch.float32)
    return normalised, coords.to(model.device, torch.float32)


def _to_user(
    model: Model, values: Tensor, obs: Observation, coords: Tensor, grids: CellGrids | None
) -> Tensor:
    """Return physical values within their range that keep what was observed.

    What an autoencoder decodes stays as it is: its field is observed everywhere. A mean over a
    cell that was observed is put in; of a model that tells cells of different sizes apart, means
    over finer cells are moved so that their own mean is the observed one, see `keep_means`.
    """
    normalizer = model.spec.normalizer
    physical = normalizer.invert(values.float().cpu())
    if model.flow.backbone.claims.autoencoder:
        return normalizer.clip(physical)
    if not model.reads_cells or grids is None or grids.observed == grids.asked:
        return copy_observed(normalizer.clip(physical), coords, obs)
    if grids.nested:
        physical = keep_means(physical, coords, obs, grids, normalizer.clip)
    return normalizer.clip(physical)


def copy_observed(values: Tensor, coords: Tensor, obs: Observation) -> Tensor:
    """Return values (B, L, C) at coords (B, L, P) with exact values wherever one was observed."""
    values = values.clone()
    for item in range(len(values)):
        seen = obs.valid[item]
        distance, nearest = cKDTree(obs.coords[item][seen].cpu()).query(
            coords[item].cpu(), distance_upper_bound=SAME_POINT
        )
        at = torch.from_numpy(np.isfinite(distance))
        observed = obs.values[item][seen].to(values)
        values[item, at] = observed[torch.from_numpy(nearest)[at]]
    return values
