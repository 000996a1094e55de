"""A loaded model: its posterior mean and its draws, in physical units."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefield.checkpoint import ModelSpec, load_checkpoint, resolve
from sparsefield.errors import InputError
from sparsefield.fields.grids import cell_centres
from sparsefield.fields.observation import Observation
from sparsefield.flow.flow import Flow
from sparsefield.models import MODELS
from sparsefield.samplers import NoiseFields, build_sampler

# Two points closer than this, in coordinate units, are one point.
SAME_POINT = 1e-5

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
        return self.spec.settings.get("cells") is True


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


@dataclass(frozen=True)
class OwnCells:
    """The grid whose cells were observed, and the one over whose cells means are asked for.

    Attributes:
        observed: Cells per axis of the grid that was observed.
        asked: Cells per axis of the grid that is asked for.
    """

    observed: tuple[int, ...]
    asked: tuple[int, ...]

    @property
    def side(self) -> float:
        """Side of a cell asked for, in sides of one observed, as a geometric mean."""
        sides = (n / m for n, m in zip(self.observed, self.asked, strict=True))
        return math.prod(sides) ** (1 / len(self.asked))

    @property
    def nested(self) -> bool:
        """Whether every observed cell consists of whole cells that are asked for."""
        return all(m % n == 0 for n, m in zip(self.observed, self.asked, strict=True))


@torch.no_grad()
def posterior_mean(
    model: Model,
    obs: Observation,
    coords: Tensor,
    noise: Tensor,
    chunk: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
    cells: OwnCells | None = None,
) -> Tensor:
    """Return E[field | observations] (B, L, C) in physical units by one evaluation.

    Args:
        model: The model.
        obs: Batched observations in physical units.
        coords: Points (B, L, P).
        noise: Source noise (B, L, C); the network starts from it, as in training.
        chunk: Points computed at a time, all if None.
        progress: Called with the number of points done after each chunk.
        cells: Where means over the cells of a grid, those at the points, are asked for; means over
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
    side = _sides(queries, cells)
    means = []
    for x, at in parts:
        means.append(model.flow.posterior_mean(x, at, normalised, side))
        progress(at.shape[1])
    return _to_user(model, torch.cat(means, dim=1), obs, coords, cells)


def draw_samples(
    model: Model,
    obs: Observation,
    coords: Tensor,
    noise: NoiseFields,
    sampler: str,
    steps: int,
    cells: OwnCells | None = None,
) -> tuple[Tensor, int]:
    """Return posterior samples (B, L, C) in physical units and the evaluations that each took.

    Args:
        model: The model.
        obs: Batched observations in physical units.
        coords: Points (B, L, P).
        noise: Returns independent fields of the flow's source noise (B, L, C) by their number.
        sampler: Key of SAMPLERS, with settings as `build_sampler` takes them.
        steps: Steps of the sampler.
        cells: As in `posterior_mean`.
    """
    normalised, queries = _to_model(model, obs, coords)

    def on_device(step: int) -> Tensor:
        return noise(step).to(model.device, torch.float32)

    side = _sides(queries, cells)
    result = build_sampler(sampler, steps)(model.flow, on_device, queries, normalised, side)
    return _to_user(model, result.values, obs, coords, cells), result.nfe


def _sides(queries: Tensor, cells: OwnCells | None) -> Tensor:
    return queries.new_full((len(queries),), 1.0 if cells is None else cells.side)


def _to_model(model: Model, obs: Observation, coords: Tensor) -> tuple[Observation, Tensor]:
    values = model.spec.normalizer.apply(obs.values)
    normalised = Observation(obs.coords, values, obs.valid).to(model.device, torch.float32)
    return normalised, coords.to(model.device, torch.float32)


def _to_user(
    model: Model, values: Tensor, obs: Observation, coords: Tensor, cells: OwnCells | None
) -> Tensor:
    """Return physical values within their range that keep what was observed.

    What an autoencoder decodes stays as it is: its field is observed everywhere. A mean over a
    cell that was observed is put in; of a model that tells cells of different sizes apart, means
    over finer cells are moved so that their own mean is the observed one.
    """
    normalizer = model.spec.normalizer
    physical = normalizer.invert(values.float().cpu())
    if MODELS[model.spec.model].claims.autoencoder:
        return normalizer.clip(physical)
    if not model.reads_cells or cells is None or cells.side == 1:
        return copy_observed(normalizer.clip(physical), coords, obs)
    return normalizer.clip(keep_means(physical, coords, obs, cells) if cells.nested else physical)


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


def keep_means(values: Tensor, coords: Tensor, obs: Observation, cells: OwnCells) -> Tensor:
    r"""Return values whose means over observed cells are those observed, exactly.

    All parts i of an observed cell move alike,
    :math:`u_i + (y - \frac{1}{n} \sum_{j=1}^n u_j)`: the nearest field, in squared error, with
    the observed mean y.

    Args:
        values: Means over finer cells (B, L, C).
        coords: Centres of those cells (B, L, P).
        obs: Observations; those that lie at the centre of an observed cell are its mean.
        cells: Both grids, the finer one nested in the observed one.
    """
    values, count = values.clone(), math.prod(cells.observed)
    for item in range(len(values)):
        part_of = _cell_indices(coords[item].cpu(), cells.observed)
        parts = torch.bincount(part_of, minlength=count)[:, None].clamp_min(1)
        sums = values.new_zeros(count, values.shape[-1]).index_add(0, part_of, values[item])
        missing = torch.zeros_like(sums)
        seen = obs.valid[item].cpu() & _at_centres(obs.coords[item].cpu(), cells.observed)
        at = _cell_indices(obs.coords[item].cpu()[seen], cells.observed)
        missing[at] = obs.values[item].to(values)[seen] - (sums / parts)[at]
        values[item] += missing[part_of]
    return values


def _at_centres(coords: Tensor, shape: Sequence[int]) -> Tensor:
    """Return which points (L, P) are centres of cells of a grid on [-1, 1]."""
    nearest = cell_centres(shape)[_cell_indices(coords, shape)]
    return (coords - nearest).abs().amax(-1) < SAME_POINT


def _cell_indices(coords: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the cell (L,), in C order, of a grid on [-1, 1] that points (L, P) lie in."""
    sides = torch.tensor(shape)
    along = ((coords + 1) / 2 * sides).floor().long().clamp_min(0).minimum(sides - 1)
    strides = sides.flip(0).cumprod(0).flip(0) // sides
    return (along * strides).sum(-1)
