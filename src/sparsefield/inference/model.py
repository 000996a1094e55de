"""A loaded model: condition it on observations, and ask for the field anywhere."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.words import counted
from sparsefield.data.cells import CellGrids
from sparsefield.data.frame import Frame
from sparsefield.data.observation import Observation
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import ModelSpec, load_checkpoint, resolve
from sparsefield.inference.conditioned import Conditioned, Progress, silent
from sparsefield.inference.posterior import CHUNK, Posterior, check_chunk
from sparsefield.samplers import NoiseFields, build_sampler

__all__ = [
    "CHUNK",
    "Model",
    "bounded_chunk",
    "draw_samples",
    "load",
    "posterior_mean",
]


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        """Say what it is, in one line."""
        grid = " x ".join(map(str, self.spec.shape))
        return (
            f"Model('{self.name}', {self.spec.model}, {len(self.spec.shape)}-D, "
            f"{counted(self.spec.normalizer.channels, 'channel')}, trained on {grid}, "
            f"{self.parameters / 1e6:.2g} M weights, {self.device})"
        )

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.flow.parameters()).device

    @property
    def parameters(self) -> int:
        """Number of trainable weights."""
        return sum(weight.numel() for weight in self.flow.parameters())

    @property
    def channels(self) -> int | None:
        """Channels that observations must have; None for any number."""
        return self.spec.normalizer.channels

    def grid_for(self, obs: Observation) -> tuple[int, ...]:
        """Return the grid on which a field is wanted unless told otherwise."""
        return obs.grid or self.spec.shape

    @property
    def frame(self) -> Frame | None:
        """Domain of a model that knows one region alone; None of all others."""
        return self.spec.frame

    def locate(self, obs: Observation) -> Observation:
        """Return observations with a frame in that of the model, if it has one.

        Raises:
            InputError: They have other axes, lie outside of it, or state another unit.
        """
        if self.frame is None or obs.frame is None:
            return obs
        unit = str(self.spec.card.get("unit", ""))
        for quantity in obs.quantities:
            if unit and quantity.unit and quantity.unit.casefold() != unit.casefold():
                raise InputError(
                    f"model '{self.name}' takes values in {unit}; {quantity.name} is in "
                    f"{quantity.unit}: convert it"
                )
        try:
            return obs.within(self.frame)
        except InputError as error:
            raise InputError(f"model '{self.name}': {error}") from error

    @property
    def resolution_aware(self) -> bool:
        """Whether it tells means over finer or coarser cells from those over observed ones."""
        return self.flow.backbone.claims.resolution_aware

    def condition(
        self, obs: Observation, *, chunk: int | None = None, progress: Progress = silent
    ) -> Posterior:
        """Return what this model knows of a field given observations of it.

        They are checked, normalised and encoded here, once for all that is asked of the result.

        Args:
            obs: Observations of one field in physical units, coords (M, P) and values (M, C).
            chunk: Points of the mean that are computed at a time, at least 1. By default as many
                as keep memory bounded, or all where the model lets points depend on each other.
            progress: Called after each chunk with the number of points in it.

        Raises:
            InputError: The observations or the chunk do not fit the model.
        """
        obs = self.locate(obs)
        return Posterior(self.flow, self.spec, obs, name=self.name, chunk=chunk, progress=progress)


def load(name: str | Path = "default", device: str | torch.device = "cpu") -> Model:
    """Load a bundled flow by name, or a trained one by run folder or file.

    Args:
        name: Name of a bundled flow, or a path.
        device: Where it is to compute.

    Raises:
        InputError: There is no such model, or the file is damaged.
    """
    flow, spec = load_checkpoint(resolve(name))
    return Model(str(name), flow.to(device), spec)


def bounded_chunk(model: Model, observations: int = 0) -> int | None:
    """Return the points of a mean to compute at a time, so that memory is bounded; None for all.

    Only models whose claims include `query_invariant` can be asked in parts.
    """
    return CHUNK if model.flow.backbone.claims.query_invariant else None


def posterior_mean(
    model: Model,
    obs: Observation,
    coords: Tensor,
    noise: Tensor,
    chunk: int | None = None,
    progress: Progress = silent,
    grids: CellGrids | None = None,
) -> Tensor:
    """Return E[field | observations] (B, L, C) in physical units by one evaluation.

    Args:
        model: The model.
        obs: Batched observations in physical units.
        coords: Points (B, L, P).
        noise: Source noise (B, L, C); the network starts from it, as in training.
        chunk: Points computed at a time, all if None.
        progress: Called after each chunk with the number of points in it.
        grids: The grid whose cells are at the points, if means over them are asked for; means over
            cells like those observed if None.

    Raises:
        InputError: Points in chunks would see each other in another way than all at once.
    """
    check_chunk(chunk, model.flow, model.name)
    given = Conditioned(model.flow, model.spec.normalizer, obs)
    return given.mean(coords, noise, grids, chunk=chunk, progress=progress)


def draw_samples(
    model: Model,
    obs: Observation,
    coords: Tensor,
    noise: Callable[[Tensor], NoiseFields],
    sampler: str,
    steps: int,
    grids: CellGrids | None = None,
) -> tuple[Tensor, int]:
    """Return posterior samples (B, L, C) in physical units and the evaluations that each took.

    Args:
        model: The model.
        obs: Batched observations in physical units.
        coords: Points (B, L, P).
        noise: Returns, for points (B, L, P), what returns independent fields of the flow's source
            noise (B, L, C) there by their number.
        sampler: Key of SAMPLERS, with settings as `build_sampler` takes them.
        steps: Steps of the sampler.
        grids: As in `posterior_mean`.
    """
    given = Conditioned(model.flow, model.spec.normalizer, obs)
    located = given.at(coords, grids)
    made = given.where_sampled(located)
    samples, nfe = made.sample(noise(made.coords), build_sampler(sampler, steps))
    if made is located:
        return samples, nfe
    start = torch.zeros(*coords.shape[:2], obs.channels)
    mean = given.to_physical(located.mean(start), coords, grids)
    return given.carry(samples, made, located, mean), nfe
