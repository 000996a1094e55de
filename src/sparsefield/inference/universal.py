"""The universal interpolator with the face of every model: condition it, and ask anywhere."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.memory import check_memory, reconstruction_bytes
from sparsefield.core.words import counted
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid, Points, check_query
from sparsefield.inference.conditioned import Progress, silent
from sparsefield.inference.copula import Waves, white
from sparsefield.inference.field import Field, Provenance
from sparsefield.inference.interpolation import ASKED, Interpolated, interpolate
from sparsefield.inference.measurements import Measurements, View
from sparsefield.models.universal import PARTS, UniversalInterpolator
from sparsefield.nn.mixture import Mixture
from sparsefield.samplers import Sampler

# Cells along each axis of the grid on which a field is wanted unless told otherwise.
CELLS = {1: 256, 2: 64, 3: 24}
# Places extend in directions in which they reach this share of their greatest extent.
FLAT = 1e-4
SHAPES = ("at one place", "on one line", "in one plane")


@dataclass(frozen=True, repr=False)
class Interpolator:
    """A loaded interpolator of scalar fields, ready for any observations in any unit.

    Attributes:
        name: Name or path it was loaded by.
        network: The network, in evaluation mode.
        card: Facts for a reader: steps, settings.
    """

    name: str
    network: UniversalInterpolator
    card: dict[str, object]

    def __repr__(self) -> str:
        """Say what it is, in one line."""
        return f"Interpolator('{self.name}', 1-D to 3-D, {self.parameters / 1e6:.2g} M weights)"

    @property
    def device(self) -> torch.device:
        """Device of the weights; experts and network run on the CPU."""
        return next(self.network.parameters()).device

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.network.parameters())

    @property
    def channels(self) -> int | None:
        """Channels that it takes; None for any number, one by one."""
        return None

    @property
    def frame(self) -> None:
        """None: it knows no region of its own."""
        return None

    def locate(self, obs: Observation) -> Observation:
        """Return the observations; they may lie anywhere."""
        return obs

    def grid_for(self, obs: Observation) -> tuple[int, ...]:
        """Return the grid on which a field is wanted unless told otherwise."""
        return obs.grid or (CELLS.get(obs.dims, 8),) * obs.dims

    def condition(
        self, obs: Observation, *, chunk: int | None = None, progress: Progress = silent
    ) -> "InterpolatorPosterior":
        """Return what is known of a field given observations of it.

        Their error is stated by `obs.noise`. If that is None, the error is unknown and is
        estimated: the result smooths what looks like noise, and predicts a new measurement, its
        error included. State a tiny error, such as 1e-9, to have exact observations reproduced.

        Args:
            obs: Observations of one field: coords (M, P), values (M, C), M from 3, P from 1 to 3.
            chunk: Points that are computed at a time at most, at least 1; memory is bounded
                without it.
            progress: Called after each part with the number of points in it.

        Raises:
            InputError: These are a batch, there are too few observations, they have too many
                dimensions, or the chunk is below 1.
        """
        return InterpolatorPosterior(self, obs, chunk=chunk, progress=progress)


class InterpolatorPosterior:
    """What observations say about a field by `Interpolator`; see `Interpolator.condition`.

    Results are functions of the coordinates. Mean, standard deviation and quantiles come from one
    evaluation and describe a new value at each point. That is a new measurement, its error
    included, where errors are unknown, and the value without an error where they are stated.
    `Field.field_std` is the standard deviation of the noise-free field. Several channels are
    treated one by one.

    Attributes:
        name: Name of the model.
        obs: The observations.
    """

    def __init__(
        self,
        model: Interpolator,
        obs: Observation,
        *,
        chunk: int | None = None,
        progress: Progress = silent,
    ) -> None:
        if obs.coords.ndim != 2:
            raise InputError("a posterior is given the observations of one field, coords (M, P)")
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk must be at least 1, not {chunk}")
        self.name, self.obs = model.name, obs
        self._model, self._chunk, self._progress = model, chunk, progress
        places = _positions(obs)
        self._channels = [
            Measurements(places, _double(obs.values[obs.valid][:, c]), _noise(obs, c))
            for c in range(obs.channels)
        ]

    def __repr__(self) -> str:
        """Say what is known of what, in one line."""
        return f"InterpolatorPosterior('{self.name}' given {counted(self.obs.count, 'point')})"

    @property
    def grid(self) -> tuple[int, ...]:
        """Grid on which the field is wanted unless told otherwise."""
        return self._model.grid_for(self.obs)

    def mean(self, at: Grid | Points | None = None, *, seed: int = 0) -> Field:
        """Return the mean with its standard deviation and quantiles, by one evaluation.

        Args:
            at: Where; by default on the grid that was observed, or else on one of 256 cells in
                1-D, 64 x 64 in 2-D and 24 x 24 x 24 in 3-D.
            seed: Not used; nothing is random here.

        Raises:
            InputError: The query does not fit the observations or would take too much memory.
        """
        return self._answer(self._query(at))

    def sample(
        self,
        at: Grid | Points | None = None,
        n: int = 1,
        *,
        sampler: Sampler | None = None,
        seed: int = 0,
    ) -> Field:
        """Return what `mean` does, and n joint samples of new values with the same quantiles.

        The samples are correlated as the posterior of the likeliest expert is, see `Waves`.

        Args:
            at: Where; None as in `mean`.
            n: Samples S, at least 1.
            sampler: None; there is no flow to integrate.
            seed: Seed of the samples, at least 0. Given the observations, a sample depends on it,
                on the sample's number and on the position alone.

        Raises:
            InputError: The query does not fit or would take too much memory, n or the seed is out
                of range, or there is a sampler.
        """
        if sampler is not None:
            raise InputError(f"model '{self.name}' integrates no flow; leave the sampler out")
        if n < 1 or seed < 0:
            raise InputError(f"samples must be at least 1 and seed at least 0, not {n} and {seed}")
        return self._answer(self._query(at, n), n, seed)

    def _answer(self, at: Grid | Points, n: int = 0, seed: int = 0) -> Field:
        start = time.perf_counter()
        query = _positions(self.obs, at)
        found, samples = [], []
        for channel, measured in enumerate(self._channels):
            said = interpolate(
                self._model.network, measured, query, chunk=self._chunk, progress=self._progress
            )
            found.append(said)
            if n:
                samples.append(draw(measured, said, query, samples=n, key=(seed, channel)))
        kind = self.obs.values.dtype
        marginal = Mixture(
            *(torch.stack(x, 1) for x in zip(*(f.value for f in found), strict=True))
        )
        made = Provenance(self.name, 1, time.perf_counter() - start, None, seed if n else None)
        drawn = torch.stack(samples, -1).to(kind) if n else None
        field = Field(marginal.mean.to(kind), at, self.obs, samples=drawn, made=made)
        return field.stating(marginal, torch.stack([f.field_std for f in found], 1).to(kind))

    def _query(self, at: Grid | Points | None, samples: int = 0) -> Grid | Points:
        """Return a query that fits, before anything of its size is allocated."""
        at = check_query(Grid(*self.grid) if at is None else at, self.obs.frame)
        if at.native:
            raise InputError(
                f"model '{self.name}' knows values at points, not means over cells; leave native "
                "out"
            )
        if at.dims != self.obs.dims:
            raise InputError(
                f"the observations have {self.obs.dims} dimensions; {at} has {at.dims}"
            )
        needed = reconstruction_bytes(len(at), at.dims, self.obs.channels, samples)
        needed += len(at) * self.obs.channels * 8 * 6 * PARTS
        more = f" with {counted(samples, 'sample')}" if samples else ""
        check_memory(needed, f"a field at {at}, {counted(len(at), 'point')}{more},")
        if isinstance(at, Grid):
            self._check_spanned(at)
        return at

    @cached_property
    def _flat(self) -> np.ndarray:
        """Unit vectors (K, P) of the directions, in [-1, 1], in which the places do not extend."""
        offsets = self._places - self._places.mean(0)
        squares, axes = np.linalg.eigh(offsets.T @ offsets)
        return axes.T[squares <= FLAT**2 * squares[-1]]

    @property
    def _places(self) -> np.ndarray:
        return _double(self.obs.coords[self.obs.valid])

    def _check_spanned(self, grid: Grid) -> None:
        """Refuse a map of what no measurement tells of; a line along itself is fine."""
        if not len(self._flat):
            return
        places = self._places
        away = np.abs((_double(grid.coords) - places.mean(0)) @ self._flat.T).max()
        if away > 2 * FLAT:
            raise InputError(
                f"all {len(places)} observations lie "
                f"{SHAPES[self.obs.dims - len(self._flat)]}, which says nothing of {grid} beside "
                "it; ask at points along it (--at FILE, sf.Points) or measure beside it"
            )


def draw(
    measured: Measurements,
    said: Interpolated,
    query: np.ndarray,
    *,
    samples: int,
    key: tuple[int, ...],
) -> Tensor:
    """Return joint samples (S, L) of new values with the marginals that were predicted.

    Args:
        measured: Measurements.
        said: What `interpolate` returned at the queries.
        query: Positions (L, P).
        samples: Samples S.
        key: Numbers that choose the randomness.
    """
    waves = Waves(measured.covariance, len(measured.values), samples, key=key)
    drawn = torch.empty(samples, len(query), dtype=torch.float64)
    for view in _blocks(measured, query):
        numbers, places = view.asked, query[view.asked]
        seen = measured.seen_from(view.leaf)
        field = waves(measured.context(seen), seen, places)
        own = ((said.field_std[numbers] / said.value.std[numbers]) ** 2).clamp(0, 1).numpy()
        normal = np.sqrt(own) * field + np.sqrt(1 - own) * white(places, samples, key)
        part = Mixture(*(x[numbers] for x in said.value))
        drawn[:, numbers] = part.from_normal(torch.from_numpy(normal))
    return drawn


def _blocks(measured: Measurements, query: np.ndarray) -> Iterator[View]:
    """Yield queries by the leaf of the nearest measurement, not too many at a time."""
    for view in measured.views(query, blended=False):
        yield from view.split(ASKED)


def _positions(obs: Observation, at: Grid | Points | None = None) -> np.ndarray:
    """Return positions whose Euclidean distance is that of the places, float64."""
    if at is None:
        return _double(obs.positions()[obs.valid])
    if obs.frame is None:
        return _double(at.coords)
    return obs.frame.positions(obs.frame.to_unit(at.physical))


def _noise(obs: Observation, channel: int) -> np.ndarray | None:
    return None if obs.noise is None else _double(obs.noise[obs.valid][:, channel])


def _double(part: Tensor) -> np.ndarray:
    return part.detach().double().cpu().numpy()
