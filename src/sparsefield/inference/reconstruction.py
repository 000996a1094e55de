"""From observations to a whole field: what everything above the flow calls."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.data.cells import CellGrids
from sparsefield.data.conversion import SAME_POINT, inside, real_tensor
from sparsefield.data.grids import cell_centres
from sparsefield.data.measurement import true_values
from sparsefield.data.observation import Observation
from sparsefield.flow.noise import field_keys
from sparsefield.inference.model import (
    CHUNK,
    Model,
    draw_samples,
    load,
    posterior_mean,
)
from sparsefield.inference.recalibration import scale_spread, spread_factor
from sparsefield.samplers import DEFAULT_SAMPLER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Model", "Reconstruction", "fit_spread", "load", "reconstruct", "spend"]

# Values may leave the range of a model by this much, as rounding does.
SAME_VALUE = 1e-4

# Quantiles that are computed unless told otherwise: a 90 % interval, quartiles, the median.
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)

# Evaluations of a sample for `spend`.
DIAL_STEPS = 10

# What recalibration holds out and draws unless told otherwise.
FOLDS, FOLD_SAMPLES = 5, 8


@dataclass(frozen=True, repr=False)
class Reconstruction:
    """A reconstructed field in physical units.

    Attributes:
        mean: Posterior mean (L, C).
        std: Standard deviation of the draws (L, C), or None without draws.
        samples: Draws (S, L, C), or None.
        coords: Coordinates (L, P) in [-1, 1].
        shape: Grid shape, or None for free points.
        nfe: Evaluations of the network per field, all draws together.
        seconds: Wall-clock time.
        obs: The observations (M, P), (M, C).
        spread: Factor by which recalibration scaled the draws' deviations from the mean.
    """

    mean: Tensor
    std: Tensor | None
    samples: Tensor | None
    coords: Tensor
    shape: tuple[int, ...] | None
    nfe: int
    seconds: float
    obs: Observation
    spread: float = 1.0

    def __repr__(self) -> str:
        """Say what was reconstructed, without the numbers."""
        where = "free points" if self.shape is None else " x ".join(map(str, self.shape))
        draws = 0 if self.samples is None else len(self.samples)
        return (
            f"Reconstruction({where}, {self.mean.shape[-1]} channels, {draws} samples, "
            f"from {self.obs.count} points, nfe={self.nfe}, seconds={self.seconds:.2f})"
        )

    @property
    def estimate(self) -> Tensor:
        """The field (L, C) that the evaluations were spent on.

        The posterior mean without draws, the draw where there is one, else the mean of the draws.
        """
        return self.mean if self.samples is None else self.samples.mean(0)

    def quantiles(self, levels: Sequence[float] = LEVELS) -> Tensor:
        """Return quantiles (Q, L, C) of the draws at every point.

        Level q is the draw of rank `q (S + 1)`, between neighbouring ranks by linear interpolation
        and the outermost draw beyond them: calibrated draws leave a share q of truths below it.
        Levels below `1 / (S + 1)` or above `S / (S + 1)` take more draws: a 90 % interval 19.

        Args:
            levels: Q numbers between 0 and 1.

        Raises:
            InputError: There are no draws, or a level is out of range.

        Reference: Hyndman and Fan, Sample quantiles in statistical packages (1996), definition 6.
        """
        if self.samples is None:
            raise InputError("quantiles are those of draws; ask for samples")
        if not all(0 <= level <= 1 for level in levels):
            raise InputError(f"quantiles take levels from 0 to 1, not {list(levels)}")
        found = np.quantile(self.samples.double().numpy(), list(levels), 0, method="weibull")
        return torch.from_numpy(found).float()

    def on_grid(self, values: Tensor) -> np.ndarray:
        """Lay values (..., L, C) of this reconstruction out as an array (..., *shape, C).

        Raises:
            InputError: The points were not given as a grid.
        """
        if self.shape is None:
            raise InputError("these points form no grid; pass shape= to reconstruct")
        return values.reshape(*values.shape[:-2], *self.shape, values.shape[-1]).numpy()

    def plot(self) -> "Figure":
        """Draw observations, mean, one draw and standard deviation; returns the figure."""
        from sparsefield.figures.field import plot_field

        sample = None if self.samples is None else self.samples[0]
        return plot_field(self.obs, self.shape, self.mean, sample=sample, std=self.std)


def reconstruct(
    model: Model,
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
    progress: Callable[[int], None] = lambda count: None,
    nfe: int | None = None,
    own_cells: bool = False,
) -> Reconstruction:
    """Reconstruct the whole field from scattered observations.

    The result is a function of the coordinates: grids agree at shared points. What it holds at a
    point is the mean over a cell like those observed, around that point; see `own_cells`.

    Args:
        model: What `load` returned.
        obs: Observations in physical units, coords (M, P) in [-1, 1] and values (M, C).
        shape: Grid to reconstruct on; the training grid if neither `shape` nor `coords` is given.
        coords: Free points (L, P) in [-1, 1], instead of a grid.
        samples: Draws S from the posterior; their spread is the uncertainty.
        sampler: Key of SAMPLERS, with settings as `build_sampler` takes them.
        steps: Steps of the sampler.
        seed: Seed of the draws, at least 0.
        chunk: Points of the mean that are computed at a time, all if None: less memory, the same
            result. For models whose claims include `query_invariant`.
        noise: Standard deviation of the measurement error in the units of the values, one number
            or one per channel; 0 for exact observations. See `true_values`.
        grid: Grid whose cells were observed. By default that of training, or a finer one for more
            observations than it has cells.
        recalibrate: Scale the draws' deviations from the mean by `fit_spread`, at the price of
            FOLDS more reconstructions with FOLD_SAMPLES draws each.
        progress: Called with the number of points of the mean done after each chunk.
        nfe: Evaluations of the network to spend, in place of samples, sampler and steps; see
            `spend`.
        own_cells: Give each cell of `shape`, finer or coarser by the same factor along all axes,
            the mean over itself: sharper on a finer grid. For models that `reads_cells`.

    Returns:
        The field in physical units. Exact observations are reproduced exactly, except by an
        autoencoder, which reproduces them as well as its code does. With `own_cells` they are
        values of other cells: on a grid an integer number of times finer, those at centres of
        observed cells are the means of the cells that each consists of.

    Raises:
        InputError: Observations or points do not fit the model.
    """
    start = time.perf_counter()
    if coords is None:
        shape = tuple(shape or model.spec.shape)
        points = cell_centres(shape)
    elif shape is None:
        points = inside(real_tensor(coords, "coords").float())
    else:
        raise InputError("give either shape= or coords=, not both")
    _check_fit(model, obs, points)
    if not np.any(np.asarray(noise)):
        obs = obs.merged()
    if nfe is not None:
        if samples:
            raise InputError("nfe chooses the samples; give one of the two")
        samples, sampler, steps = spend(nfe)
    if samples < 0 or seed < 0:
        raise InputError(f"samples and seed must be at least 0, not {samples} and {seed}")
    if recalibrate and not samples:
        raise InputError("recalibration scales draws; ask for samples")
    if recalibrate and own_cells:
        raise InputError("recalibration compares with observed cells; own_cells asks for others")
    expected, *drawn = _exact(model, obs, noise, samples, seed)
    queries = points[None]
    observed = tuple(grid or model.spec.observed_grid(obs.count))
    if len(observed) != points.shape[1]:
        raise InputError(f"grid needs {points.shape[1]} numbers of cells, not {len(observed)}")
    grids = _own_cells(model, observed, shape) if own_cells else None

    def source(draws: Sequence[int], step: int) -> Tensor:
        keys = np.concatenate([field_keys(seed, [0], draw, step) for draw in draws])
        return model.flow.noise(queries.expand(len(keys), -1, -1), obs.channels, keys, observed)

    alone = source([0], 0)
    mean = posterior_mean(model, expected.batched(), queries, alone, chunk, progress, grids)
    draws, spread, spent = None, 1.0, 1
    if samples > 0:
        parts, each = [], 0
        for group in _in_groups(samples, len(points)):
            every = queries.expand(len(group), -1, -1)
            seen = Observation.stack([drawn[draw] for draw in group])
            part, price = draw_samples(
                model, seen, every, partial(source, group), sampler, steps, grids
            )
            parts.append(part)
            each = max(each, price)
        draws = torch.cat(parts)
        spent += samples * each
        if recalibrate:
            how: dict[str, Any] = {"sampler": sampler, "steps": steps, "seed": seed}
            spread = fit_spread(model, obs, points, **how, noise=noise, grid=observed)
            draws = model.spec.normalizer.clip(scale_spread(draws, mean, spread))
            spent += FOLDS * (1 + FOLD_SAMPLES * each)
    return Reconstruction(
        mean=mean[0],
        std=None if draws is None or samples < 2 else draws.std(0),
        samples=draws,
        coords=points,
        shape=None if shape is None else tuple(shape),
        nfe=spent,
        seconds=time.perf_counter() - start,
        obs=obs,
        spread=spread,
    )


def spend(nfe: int) -> tuple[int, str, int]:
    """Return samples, sampler and steps that take at most so many evaluations.

    One evaluation gives the posterior mean, whose squared error is least. With up to 20 one sample
    is drawn; few steps end between mean and sample. From then on there are samples of at least 10
    each, whose mean comes back to the posterior's and whose spread says how sure it is.

    Args:
        nfe: Evaluations, at least 1.

    Raises:
        InputError: There is none.
    """
    if nfe < 1:
        raise InputError(f"a reconstruction takes at least 1 evaluation, not {nfe}")
    if nfe == 1:
        return 0, DEFAULT_SAMPLER, 1
    samples = max(1, (nfe - 1) // DIAL_STEPS)
    return samples, DEFAULT_SAMPLER, (nfe - 1) // samples


def _own_cells(
    model: Model, observed: tuple[int, ...], shape: tuple[int, ...] | None
) -> CellGrids:
    """Return the observed grid and that asked for, if the model can tell their cells apart."""
    if shape is None:
        raise InputError("own_cells is about the cells of a grid; give shape=")
    if not model.reads_cells:
        raise InputError(
            f"model '{model.name}' knows no cells but those observed; own_cells takes a model "
            "trained with model.cells=true"
        )
    if len({m / n for m, n in zip(observed, shape, strict=True)}) > 1:
        raise InputError(
            f"own_cells needs a grid that refines the observed one, {list(observed)}, by the same "
            f"factor along all axes; {list(shape)} does not"
        )
    return CellGrids(observed, shape)


def _in_groups(samples: int, points: int) -> list[range]:
    """Return the draws to make at a time, so that memory is bounded: one, or CHUNK points."""
    size = max(1, CHUNK // points)
    return [range(first, min(first + size, samples)) for first in range(0, samples, size)]


def _exact(
    model: Model, obs: Observation, noise: float | Sequence[float], samples: int, seed: int
) -> list[Observation]:
    """Return what a model that takes observations as exact is given: for the mean, for each draw.

    Raises:
        InputError: Exact observations lie outside of the model's range, or the noise does not fit.
    """
    if not np.any(np.asarray(noise)):
        _check_range(model, obs)
        return [obs] * (1 + samples)
    clip = model.spec.normalizer.clip
    possible = true_values(obs, noise, samples, seed)
    return [Observation(each.coords, clip(each.values)) for each in possible]


def _check_fit(model: Model, obs: Observation, points: Tensor) -> None:
    dims = len(model.spec.shape)
    if obs.coords.ndim != 2:
        raise InputError("reconstruct takes the observations of one field, coords (M, P)")
    if obs.dims != dims or points.ndim != 2 or points.shape[1] != dims:
        raise InputError(
            f"model '{model.name}' works in {dims} dimensions; observations have {obs.dims} and "
            f"the points have shape {tuple(points.shape)}"
        )
    if not len(points):
        raise InputError("there are no points to reconstruct; coords is empty")
    if not points.isfinite().all():
        raise InputError("coords hold NaN or infinite numbers; drop those points")
    channels = model.spec.normalizer.channels
    if obs.channels != channels:
        raise InputError(
            f"model '{model.name}' has {channels} channels; observations have {obs.channels}"
        )


def _check_range(model: Model, obs: Observation) -> None:
    normalizer, seen = model.spec.normalizer, obs.values[obs.valid]
    low = float("-inf") if normalizer.low is None else normalizer.low
    high = float("inf") if normalizer.high is None else normalizer.high
    if seen.min() < low - SAME_VALUE or seen.max() > high + SAME_VALUE:
        raise InputError(
            f"model '{model.name}' takes values in [{low:g}, {high:g}]; observations reach from "
            f"{seen.min():g} to {seen.max():g}"
        )


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
    """Return the factor by which draws should deviate from the mean more than they do.

    Every observation is predicted from those of the other folds, see `spread_factor`; no truth is
    needed. Draws are made on the whole field, as a model may let points depend on those beside
    them.

    Args:
        model: What `load` returned.
        obs: Observations in physical units, coords (M, P) in [-1, 1] and values (M, C).
        coords: Points (L, P) that are to be reconstructed; the training grid by default.
        folds: Parts of the observations that are held out in turn, from 2 to M.
        samples: Draws per fold, at least 2.
        sampler: Key of SAMPLERS.
        steps: Steps of the sampler.
        seed: Seed of folds and draws, at least 0.
        noise: Standard deviation of the measurement error, see `reconstruct`.
        grid: Grid whose cells were observed, see `reconstruct`.

    Returns:
        f > 0: above 1 the draws are too sure.

    Raises:
        InputError: There are too few observations or samples, the draws do not vary, or what
            `reconstruct` raises.
    """
    if samples < 2 or seed < 0:
        raise InputError(f"fit_spread needs samples >= 2 and seed >= 0, not {samples} and {seed}")
    given = (
        cell_centres(model.spec.shape) if coords is None else real_tensor(coords, "coords").float()
    )
    _check_fit(model, obs, given)
    normalizer = model.spec.normalizer
    places, values = obs.coords[obs.valid].float(), obs.values[obs.valid]
    points, rows = _with_places(given, places)

    def predict(held: Tensor) -> tuple[Tensor, Tensor]:
        others = Observation(places[~held], values[~held])
        how: dict[str, Any] = {"sampler": sampler, "steps": steps, "noise": noise, "grid": grid}
        field = reconstruct(model, others, coords=points, samples=samples, seed=seed, **how)
        assert field.samples is not None
        return normalizer.apply(field.mean[rows]), normalizer.apply(field.samples[:, rows])

    sigma = torch.as_tensor(noise, dtype=torch.float64) / torch.tensor(normalizer.scale)
    return spread_factor(predict, normalizer.apply(values), folds, seed, sigma)


def _with_places(points: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return points (L, P) with the places (M, P) that they lack, and where places are (M,)."""
    distance, nearest = cKDTree(points).query(places)
    new = distance > SAME_POINT
    rows = np.where(new, len(points) + np.cumsum(new) - 1, nearest)
    return torch.cat([points, places[torch.from_numpy(new)]]), torch.from_numpy(rows)
