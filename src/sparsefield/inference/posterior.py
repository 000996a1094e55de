"""What observations say about a field: its mean, and samples, wherever they are wanted."""

import copy
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.memory import check_memory, reconstruction_bytes
from sparsefield.core.words import counted
from sparsefield.data.cells import CellGrids
from sparsefield.data.conversion import SAME_POINT
from sparsefield.data.measurement import true_values
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid, Points, check_query
from sparsefield.flow.flow import Flow
from sparsefield.flow.noise import field_keys
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.conditioned import Conditioned, Located, Progress, silent
from sparsefield.inference.field import Field, Provenance
from sparsefield.inference.recalibration import inflate, inflation_factor
from sparsefield.samplers import Exponential, NoiseFields, Sampler, build_sampler

# Points of a mean that are computed at a time where memory is to be bounded.
CHUNK = 65_536

# Values may leave the range of a model by this much, as rounding does.
SAME_VALUE = 1e-4

# Evaluations of each sample within a budget, where it allows several.
BUDGET_STEPS = 10

# What recalibration holds out and samples unless told otherwise.
FOLDS, FOLD_SAMPLES = 5, 8


class Inflation(NamedTuple):
    """A scaling of the samples' deviations from the mean.

    Attributes:
        factor: By how much they are scaled, above 0.
        nfe: Evaluations of the network that it took to find the factor.
    """

    factor: float = 1.0
    nfe: int = 0


class Posterior:
    """What a model knows of a field given observations of it; see `Model.condition`.

    The mean of a model that claims `query_invariant` is a function of the coordinates: grids agree
    at shared points, unless one asks for its native resolution. Exact observations are reproduced
    exactly. Only an autoencoder reproduces them approximately, because its code does not hold all
    of them.

    Args:
        flow: The flow, in evaluation mode.
        spec: Its description.
        obs: Observations of one field in physical units. Where they have noise, the model is given
            what the true values at the measured points may be, see `true_values`.
        name: What error messages call the model.
        chunk: See `Model.condition`.
        progress: See `Model.condition`.

    Attributes:
        name: Name of the model.
        obs: The observations, one row a place.
        inflation: How `recalibrated` scales samples.
    """

    def __init__(
        self,
        flow: Flow,
        spec: ModelSpec,
        obs: Observation,
        *,
        name: str = "model",
        chunk: int | None = None,
        progress: Progress = silent,
    ) -> None:
        self.name, self.inflation = name, Inflation()
        self._flow, self._spec, self._progress = flow, spec, progress
        self._check_observations(obs)
        check_chunk(chunk, flow, name)
        self._chunk = chunk or (CHUNK if flow.backbone.claims.query_invariant else None)
        self.obs = obs.merged()
        if self.obs.noise is None:
            self._check_range()
        self._given = self._condition([self._possible(0, 0)[0]])

    def __repr__(self) -> str:
        """Say what is known of what, in one line."""
        inflated = f", inflated by {self.inflation.factor:.3g}" if self.inflation.nfe else ""
        return f"Posterior('{self.name}' given {counted(self.obs.count, 'point')}{inflated})"

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Grid whose cells were observed.

        Where the observations do not say, it is that of training, or a finer one for more
        observations than it has cells.
        """
        return self.obs.grid or self._spec.observed_grid(self.obs.count)

    def mean(self, at: Grid | Points | None = None, *, seed: int = 0) -> Field:
        """Return the posterior mean, whose expected squared error is least, by one evaluation.

        Args:
            at: Where; by default on the grid that was observed, or else on that of training.
            seed: Seed of the noise that a network starts from, at least 0. The mean of a model
                whose claims include `query_invariant` does not depend on it.

        Raises:
            InputError: The query does not fit the model, or would take too much memory, or the
                seed is negative.
        """
        start, at = time.perf_counter(), self._query(at)
        _check_counts(1, seed)
        points = at.coords[None]
        noise = self._noise(points, seed, [0])(0)
        mean = self._given.mean(
            points, noise, self._cells(at), chunk=self._chunk, progress=self._progress
        )
        made = Provenance(self.name, 1, time.perf_counter() - start)
        return Field(mean[0], at, self.obs, made=made)

    def sample(
        self,
        at: Grid | Points | None = None,
        n: int = 1,
        *,
        sampler: Sampler | None = None,
        seed: int = 0,
    ) -> Field:
        """Return the posterior mean and n samples, each a whole plausible field.

        Args:
            at: Where; by default on the grid that was observed, or else on that of training.
            n: Samples S, at least 1. Their standard deviation takes two, a 90 % interval 19.
            sampler: Integrates the flow; `samplers.Exponential(10, grid="late")` by default.
            seed: Seed of the samples, at least 0. The noise that a sample starts from depends on
                it, on the sample's number and on the coordinates alone. Where a model lets points
                depend on each other, its samples do so too.

        Raises:
            InputError: The query does not fit the model or would take too much memory, n or the
                seed is out of range, or `sampler` is no sampler.
        """
        start, at = time.perf_counter(), self._query(at, n)
        _check_counts(n, seed)
        sampler = check_sampler(sampler)
        located = self._given.at(at.coords[None], self._cells(at))
        mean = self._mean_of(located, seed)
        samples, each = self._samples_of(located, mean, n, sampler, seed)
        factor, spent = self.inflation
        if spent:
            samples = self._spec.normalizer.clip(inflate(samples, mean, factor))
        nfe, seconds = 1 + n * each + spent, time.perf_counter() - start
        made = Provenance(self.name, nfe, seconds, repr(sampler), seed, factor)
        std = samples.std(0) if n > 1 else None
        return Field(mean, at, self.obs, std=std, samples=samples, made=made)

    def within(self, at: Grid | Points | None, nfe: int, *, seed: int = 0) -> Field:
        """Return the field that an NFE budget, a number of network evaluations, allows.

        One evaluation gives the posterior mean, whose expected squared error is least. Up to 20
        give one sample beside it. More give several samples of at least ten evaluations each.
        Their mean, the `estimate` of the result, approaches the posterior mean. Their standard
        deviation says how sure it is.

        Args:
            at: Where; None as in `mean`.
            nfe: Evaluations to spend, at least 1.
            seed: Seed of the samples, at least 0.

        Raises:
            InputError: There is no evaluation, or what `sample` raises.
        """
        samples, sampler = split_budget(nfe)
        if not samples:
            return self.mean(at, seed=seed)
        return self.sample(at, samples, sampler=sampler, seed=seed)

    def recalibrated(
        self,
        at: Grid | Points | None = None,
        *,
        folds: int = FOLDS,
        samples: int = FOLD_SAMPLES,
        sampler: Sampler | None = None,
        seed: int = 0,
    ) -> "Posterior":
        """Return the posterior with samples scaled so that they vary as much as their mean errs.

        Every observation is predicted from those of the other folds, see `inflation_factor`; no
        truth is needed. Samples are made on the whole field, because a model may let a point
        depend on those beside it. It takes `folds` times the evaluations of `samples` samples.

        Args:
            at: Where the field will be wanted; None as in `mean`.
            folds: Parts of the observations that are held out in turn, from 2 to M.
            samples: Samples per fold, at least 2.
            sampler: As in `sample`.
            seed: Seed of folds and samples, at least 0.

        Raises:
            InputError: There are too few observations or samples, the samples do not vary, the
                stated noise is larger than all errors, a number is out of range, or the grid asks
                for its native resolution: only observed cells can be compared.
        """
        if samples < 2 or seed < 0:
            raise InputError(
                f"recalibration needs samples >= 2 and seed >= 0, not {samples} and {seed}"
            )
        at, sampler = self._query(at, samples), check_sampler(sampler)
        if at.native:
            raise InputError(
                "recalibration compares with observed cells; a native grid asks for others"
            )
        hold_out = _HeldOut(self, at.coords, samples, sampler, seed)
        values = self._spec.normalizer.apply(self.obs.values[self.obs.valid])
        factor = inflation_factor(hold_out, values, folds, seed, hold_out.noise)
        other = copy.copy(self)
        other.inflation = Inflation(factor, hold_out.nfe)
        return other

    def given(self, obs: Observation) -> "Posterior":
        """Return the posterior of the same model given other observations.

        Raises:
            InputError: They do not fit the model.
        """
        return Posterior(self._flow, self._spec, obs, name=self.name, chunk=self._chunk)

    def _mean_of(self, located: Located, seed: int) -> Tensor:
        """Return the mean (L, C) at points for which the query is prepared."""
        noise = self._noise(located.coords, seed, [0])(0)
        mean = self._given.to_physical(located.mean(noise), located.coords, located.grids)
        self._progress(mean.shape[1])
        return mean[0]

    def _samples_of(
        self, located: Located, mean: Tensor, n: int, sampler: Sampler, seed: int
    ) -> tuple[Tensor, int]:
        """Return samples (S, L, C) around a mean (L, C) and the evaluations that each took."""
        possible = self._possible(n, seed)[1:] if self.obs.noise is not None else None
        base = self._given.where_sampled(located)
        parts, most = [], 0
        for group in _in_groups(n, base.coords.shape[1]):
            points = base.coords.expand(len(group), -1, -1)
            noise = self._noise(points, seed, group)
            if possible is None:
                part, nfe = base.sample(noise, sampler, len(group))
            else:
                given = self._condition([possible[sample] for sample in group])
                part, nfe = given.at(points, base.grids).sample(noise, sampler)
            parts.append(part)
            most = max(most, nfe)
        return self._given.carry(torch.cat(parts), base, located, mean[None]), most

    def _condition(self, exact: Sequence[Observation]) -> Conditioned:
        placed = [obs.on_grid(self.grid) for obs in exact]
        return Conditioned(self._flow, self._spec.normalizer, Observation.stack(placed))

    def _possible(self, n: int, seed: int) -> list[Observation]:
        """Return the expected true values at the measured points, and n samples of them."""
        if self.obs.noise is None:
            return [self.obs]
        clip = self._spec.normalizer.clip
        possible = true_values(self.obs, samples=n, seed=seed)
        return [Observation(each.coords, clip(each.values)) for each in possible]

    def _noise(self, points: Tensor, seed: int, samples: Sequence[int]) -> NoiseFields:
        """Return the source noise (S, L, C) of some samples at points (S, L, P)."""

        def fields(step: int) -> Tensor:
            keys = np.concatenate([field_keys(seed, [0], sample, step) for sample in samples])
            return self._flow.noise(points, self.obs.channels, keys, self.grid)

        return fields

    def _query(self, at: Grid | Points | None, samples: int = 0) -> Grid | Points:
        """Return a query that fits, before anything of its size is allocated."""
        default = Grid(*(self.obs.grid or self._spec.shape))
        at = check_query(default if at is None else at, self.obs.frame)
        if at.dims != self.obs.dims:
            raise InputError(
                f"model '{self.name}' works in {self.obs.dims} dimensions; {at} has {at.dims}"
            )
        needed = reconstruction_bytes(len(at), at.dims, self.obs.channels, max(samples, 0))
        more = f" with {counted(samples, 'sample')}" if samples else ""
        check_memory(needed, f"a field at {at}, {counted(len(at), 'point')}{more},")
        self._cells(at)
        return at

    def _cells(self, at: Grid | Points) -> CellGrids | None:
        """Return the observed grid and that asked for, if the model is to tell them apart."""
        if not isinstance(at, Grid) or not at.native:
            return None
        if not self._flow.backbone.claims.resolution_aware:
            raise InputError(
                f"model '{self.name}' knows no cells but those observed; a native grid takes a "
                "model trained with model.cells=true"
            )
        if len({m / n for m, n in zip(self.grid, at.shape, strict=True)}) > 1:
            raise InputError(
                f"a native grid refines the observed one, {list(self.grid)}, by the same factor "
                f"along all axes; {list(at.shape)} does not"
            )
        return CellGrids(self.grid, at.shape)

    def _check_observations(self, obs: Observation) -> None:
        dims, channels = len(self._spec.shape), self._spec.normalizer.channels
        if obs.coords.ndim != 2:
            raise InputError("a posterior is given the observations of one field, coords (M, P)")
        if obs.dims != dims:
            raise InputError(
                f"model '{self.name}' works in {dims} dimensions; observations have {obs.dims}"
            )
        if obs.channels != channels:
            raise InputError(
                f"model '{self.name}' has {counted(channels, 'channel')}; observations have "
                f"{obs.channels}"
            )

    def _check_range(self) -> None:
        normalizer, seen = self._spec.normalizer, self.obs.values[self.obs.valid]
        low = float("-inf") if normalizer.low is None else normalizer.low
        high = float("inf") if normalizer.high is None else normalizer.high
        if seen.min() < low - SAME_VALUE or seen.max() > high + SAME_VALUE:
            raise InputError(
                f"model '{self.name}' takes values in [{low:g}, {high:g}]; observations reach "
                f"from {seen.min():g} to {seen.max():g}"
            )


class _HeldOut:
    """Predicts observations from others, and counts the evaluations that it takes."""

    def __init__(
        self, posterior: Posterior, points: Tensor, samples: int, sampler: Sampler, seed: int
    ) -> None:
        obs = posterior.obs
        self.posterior, self.samples, self.sampler, self.seed = posterior, samples, sampler, seed
        self.places, self.values = obs.coords[obs.valid].float(), obs.values[obs.valid]
        self.sigma = None if obs.noise is None else obs.noise[obs.valid]
        self.points, self.rows = _with_places(points, self.places)
        self.scale = posterior._spec.normalizer
        self.nfe = 0

    @property
    def noise(self) -> Tensor | float:
        """Standard deviation of the measurement error, in normalised units."""
        if self.sigma is None:
            return 0.0
        return self.sigma.double() / self.sigma.new_tensor(self.scale.scale).double()

    def __call__(self, held: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised mean (M, C) and samples (S, M, C) given those that are not held."""
        sigma = None if self.sigma is None else self.sigma[~held]
        places, values = self.places[~held], self.values[~held]
        others = Observation(places, values, noise=sigma, grid=self.posterior.grid)
        field = self.posterior.given(others).sample(
            Points(self.points), self.samples, sampler=self.sampler, seed=self.seed
        )
        assert field.samples is not None
        self.nfe += field.nfe
        apply = self.scale.apply
        return apply(field.mean[self.rows]), apply(field.samples[:, self.rows])


def split_budget(nfe: int) -> tuple[int, Sampler]:
    """Return the samples, and a sampler, that take at most so many evaluations with the mean.

    Args:
        nfe: Evaluations, at least 1.

    Raises:
        InputError: There is none.
    """
    if nfe < 1:
        raise InputError(f"a reconstruction takes at least 1 evaluation, not {nfe}")
    if nfe == 1:
        return 0, default_sampler()
    samples = max(1, (nfe - 1) // BUDGET_STEPS)
    return samples, default_sampler((nfe - 1) // samples)


def default_sampler(steps: int = 10) -> Sampler:
    """Return the sampler whose samples of ten evaluations are calibrated."""
    return Exponential(steps, grid="late")


def check_sampler(sampler: Any) -> Sampler:
    """Return a sampler, the default one if it is None.

    Raises:
        InputError: It is something else.
    """
    if sampler is None:
        return default_sampler()
    if isinstance(sampler, Sampler):
        return sampler
    hint = f"; '{sampler}' is {build_sampler(sampler)!r}" if isinstance(sampler, str) else ""
    raise InputError(
        f"sampler must be one of sf.samplers, such as sf.samplers.Heun(20), not "
        f"{type(sampler).__name__}{hint}"
    )


def check_chunk(chunk: int | None, flow: Flow, name: str) -> None:
    """Check that a model can be asked for a mean in parts of so many points.

    Raises:
        InputError: It cannot.
    """
    if chunk is not None and not flow.backbone.claims.query_invariant:
        raise InputError(
            f"model '{name}' lets points depend on each other; its mean cannot be computed in "
            "chunks"
        )
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk must be at least 1, not {chunk}")


def _check_counts(n: int, seed: int) -> None:
    if n < 1 or seed < 0:
        raise InputError(f"samples must be at least 1 and seed at least 0, not {n} and {seed}")


def _in_groups(samples: int, points: int) -> list[range]:
    """Return the samples to make at a time, so that memory is bounded: one, or CHUNK points."""
    size = max(1, CHUNK // points)
    return [range(first, min(first + size, samples)) for first in range(0, samples, size)]


def _with_places(points: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return points (L, P) with the places (M, P) that they lack, and where places are (M,)."""
    distance, nearest = cKDTree(points).query(places)
    new = distance > SAME_POINT
    rows = np.where(new, len(points) + np.cumsum(new) - 1, nearest)
    return torch.cat([points, places[torch.from_numpy(new)]]), torch.from_numpy(rows)
