"""A flow given observations: what every prediction in physical units is made of."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefield.core.checks import check_finite
from sparsefield.data.cells import CellGrids, keep_means
from sparsefield.data.conversion import SAME_POINT
from sparsefield.data.grids import cell_centres
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.data.raster import cubic_at, is_grid
from sparsefield.flow.backbone import Query, repeat_item
from sparsefield.flow.flow import Flow
from sparsefield.samplers import NoiseFields, Sampler

Progress = Callable[[int], None]


def silent(count: int) -> None:
    """Take no note of progress."""


class Conditioned:
    """A flow given a batch of observations, which are encoded here, once for all queries.

    Args:
        flow: The flow, in evaluation mode.
        normalizer: Between physical and normalised values.
        obs: Batched observations in physical units, taken as exact.
    """

    def __init__(self, flow: Flow, normalizer: Normalizer, obs: Observation) -> None:
        self.flow, self.normalizer, self.obs = flow, normalizer, obs
        self.device = next(flow.parameters()).device
        given = Observation(
            obs.coords, normalizer.apply(obs.values), valid=obs.valid, grid=obs.grid
        )
        self.given = given.to(self.device, torch.float32)
        with torch.no_grad():
            self.encoded = flow.encode(self.given)

    def at(self, coords: Tensor, grids: CellGrids | None = None) -> "Located":
        """Return the flow at points (B, L, P) of each item.

        Args:
            coords: Points in [-1, 1].
            grids: The grid whose cells are at the points, if means over them are asked for; means
                over cells like those observed if None.
        """
        return Located(self, coords, grids)

    def mean(
        self,
        coords: Tensor,
        noise: Tensor,
        grids: CellGrids | None = None,
        *,
        chunk: int | None = None,
        progress: Progress = silent,
    ) -> Tensor:
        """Return E[field | observations] (B, L, C) in physical units by one evaluation.

        Args:
            coords: Points (B, L, P).
            noise: Source noise (B, L, C); the network starts from it, as in training.
            grids: As in `at`.
            chunk: Points computed at a time, all if None.
            progress: Called after each chunk with the number of points in it.
        """
        size = chunk or coords.shape[1]
        means = []
        for part, x in zip(coords.split(size, 1), noise.split(size, 1), strict=True):
            means.append(self.at(part, grids).mean(x))
            progress(part.shape[1])
        return self.to_physical(torch.cat(means, dim=1), coords, grids)

    def to_physical(self, values: Tensor, coords: Tensor, grids: CellGrids | None) -> Tensor:
        """Return physical values within their range that are consistent with what was observed.

        What an autoencoder decodes stays as it is: its field is observed everywhere. A mean over
        a cell that was observed is put in; of a model that tells cells of different sizes apart,
        means over finer cells are moved so that their own mean is the observed one, see
        `keep_means`.

        Raises:
            InputError: A value is not finite.
        """
        claims, clip = self.flow.backbone.claims, self.normalizer.clip
        physical = self.normalizer.invert(values.float().cpu())
        check_finite("the values that the model predicts", physical, "its weights may be damaged")
        if claims.autoencoder:
            return clip(physical)
        if not claims.resolution_aware or grids is None or grids.observed == grids.asked:
            return copy_observed(clip(physical), coords, self.obs)
        if grids.nested:
            coords, obs = coords.expand(len(values), -1, -1), self.obs
            if len(obs.coords) != len(values):
                obs = repeat_item(obs, len(values))
            physical = keep_means(physical, coords, obs, grids, clip)
        return clip(physical)

    def where_sampled(self, located: "Located") -> "Located":
        """Return the flow where samples at these points are made: there, or on the grid."""
        grid = self.given.grid
        if not self.flow.backbone.claims.samples_on_grid or grid is None:
            return located
        if is_grid(located.coords, grid) and located.plain:
            return located
        return self.at(cell_centres(grid).expand(len(self.obs.coords), -1, -1))

    def carry(self, samples: Tensor, made: "Located", wanted: "Located", mean: Tensor) -> Tensor:
        """Return samples at other points than those where they were made.

        What they differ by from the mean is interpolated by cubic convolution and added to the
        mean there.

        Args:
            samples: Samples (S, L, C) on the grid, in physical units.
            made: Where they were made.
            wanted: Where they are wanted.
            mean: Mean (1, L', C) there, in physical units.
        """
        if made is wanted:
            return samples
        assert self.given.grid is not None, "samples are carried from a grid"
        start = torch.zeros(*made.coords.shape[:2], self.obs.channels)
        own = self.to_physical(made.mean(start), made.coords, None)
        residual = (samples - own).transpose(1, 2).unflatten(2, self.given.grid)
        carried = cubic_at(residual, wanted.coords.expand(len(samples), -1, -1))[0]
        values = self.normalizer.clip(mean + carried)
        return copy_observed(values, wanted.coords, self.obs) if wanted.plain else values


class Located:
    """A conditioned flow at fixed points; what the points add is computed here, once.

    Args:
        given: The flow given observations.
        coords: Points (B, L, P).
        grids: See `Conditioned.at`.
    """

    def __init__(self, given: Conditioned, coords: Tensor, grids: CellGrids | None) -> None:
        self.given, self.coords, self.grids = given, coords, grids
        places = coords.to(given.device, torch.float32)
        side = places.new_full((len(places),), 1.0 if grids is None else grids.side)
        self.query = Query(places, given.given, side)
        with torch.no_grad():
            self.prepared = given.flow.prepare(self.query, given.encoded)

    @property
    def plain(self) -> bool:
        """Whether means over cells like those observed are asked for."""
        return self.grids is None or self.grids.observed == self.grids.asked

    @torch.no_grad()
    def mean(self, noise: Tensor) -> Tensor:
        """Return the posterior mean (B, L, C), normalised, from source noise (B, L, C)."""
        start = noise.to(self.given.device)
        return self.given.flow.posterior_mean(start, self.query, self.prepared)

    def sample(
        self, noise: NoiseFields, sampler: Sampler, count: int | None = None
    ) -> tuple[Tensor, int]:
        """Return posterior samples in physical units and the evaluations that each took.

        Args:
            noise: Returns independent fields of source noise by their number.
            sampler: Integrates the flow.
            count: Samples S of the one item, (S, L, C). If None, one of each item, (B, L, C).
        """
        query, prepared = self._repeated(count)

        def on_device(step: int) -> Tensor:
            return noise(step).to(self.given.device, torch.float32)

        result = sampler(self.given.flow, on_device, query, prepared=prepared)
        return self.given.to_physical(result.values, self.coords, self.grids), result.nfe

    def _repeated(self, count: int | None) -> tuple[Query, Any]:
        if count is None:
            return self.query, self.prepared
        query, prepared = repeat_item((self.query, self.prepared), count)
        return query, prepared


def copy_observed(values: Tensor, coords: Tensor, obs: Observation) -> Tensor:
    """Return values with the exact one wherever one was observed.

    Args:
        values: Values (B, L, C).
        coords: Their points (B, L, P), or (1, L, P) for all.
        obs: Observations (B, M, ...), or (1, M, ...) for all.
    """
    values = values.clone()
    shared = len(obs.coords) == len(coords) == 1
    for item in range(len(obs.coords)):
        seen, rows = obs.valid[item], slice(None) if shared else slice(item, item + 1)
        distance, nearest = cKDTree(obs.coords[item][seen].cpu()).query(
            coords[item].cpu(), distance_upper_bound=SAME_POINT
        )
        at = torch.from_numpy(np.isfinite(distance))
        observed = obs.values[item][seen].to(values)
        values[rows, at] = observed[torch.from_numpy(nearest)[at]]
    return values
