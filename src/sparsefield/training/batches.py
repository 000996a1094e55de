"""Training batches: a function of the data, the seed and the step, so that any step can resume."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.masks import known_first, observed_count, permutation
from sparsefield.data.observation import Observation
from sparsefield.data.scattered import ScatteredDataset
from sparsefield.flow.noise import build_noise
from sparsefield.training.config import DataConfig, FlowConfig, TrainConfig

# Latest time u of training. Beyond it the data is visible in x_t and the loss a quotient of
# roundings; at t = 1, which float32 could round to, it has no finite weight.
LAST_TIME = 0.999


@dataclass(frozen=True)
class Batch:
    """One step's input: everything the objective needs, normalised.

    Attributes:
        x_0: Source noise (B, L, C).
        x_1: Data (B, L, C).
        u: Times (B,) before the flow's shift.
        coords: Queries (B, L, P).
        obs: Observations.
        cell: Side of the queries' cells (B,), in sides of the observations'.
        known: Queries whose data are known (B, L); None where all are.
    """

    x_0: Tensor
    x_1: Tensor
    u: Tensor
    coords: Tensor
    obs: Observation
    cell: Tensor
    known: Tensor | None = None

    def rows(self, rows: range) -> "Batch":
        """Return some consecutive rows, or itself if these are all."""
        if len(rows) == len(self.u):
            return self
        part = slice(rows.start, rows.stop)
        tensors = {k: v[part] for k, v in vars(self).items() if isinstance(v, Tensor)}
        return Batch(**tensors, obs=self.obs.sets(part))


class GridPoints(NamedTuple):
    """Values (B, L, C) at points (B, L, P), on a grid of this shape if they lie on one.

    Where some are missing, they are 0, and `known` (B, L) says which are not.
    """

    coords: Tensor
    values: Tensor
    shape: tuple[int, ...]
    known: Tensor | None = None


class Symmetry(NamedTuple):
    """A symmetry of the cube for each item: axes are swapped, then mirrored.

    Attributes:
        mirrored: Which axes are turned round (B, P).
        priority: Numbers (B, P) by whose order axes with as many cells are swapped; None swaps
            none.
    """

    mirrored: Tensor
    priority: Tensor | None

    def __call__(self, coords: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Move points (B, L, P) of a grid of this shape."""
        if self.priority is not None and len(shape) == coords.shape[-1]:
            sizes = torch.tensor(shape, dtype=torch.float32)
            source = (2 * sizes + self.priority).argsort(dim=1)
            axes = source.gather(1, sizes.argsort(stable=True).argsort().expand_as(source))
            coords = coords.gather(2, axes[:, None].expand_as(coords))
        return torch.where(self.mirrored[:, None], -coords, coords)


class TrainingBatches:
    """Draw batches of fields, masks, times and noise; the same for a step however it is reached.

    Args:
        fields: Training fields.
        config: The run's settings.
        finer: Fields on a finer grid, for scales above 1.

    Raises:
        InputError: There are fewer fields than one batch takes, the window is too large, a scale
            does not divide the finer grid, or one above 1 meets missing values.
    """

    def __init__(
        self,
        fields: FieldDataset | ScatteredDataset,
        config: TrainConfig,
        finer: FieldDataset | None = None,
    ) -> None:
        if len(fields) < config.batch_size:
            raise InputError(
                f"{len(fields)} training fields are fewer than batch_size={config.batch_size}; "
                f"set batch_size={len(fields)} or less"
            )
        _check_gaps(fields, config.data)
        for scale in config.data.scales:
            if scale > 1 and (finer is None or any(n % scale for n in finer.shape)):
                raise InputError(
                    f"data.scales of {scale} needs data.fine, a grid that it divides evenly"
                )
        for shape in _asked_shapes(fields, finer, config.data):
            if config.data.window > min(shape):
                raise InputError(
                    f"data.window={config.data.window} does not fit into a grid of {shape}; "
                    f"set data.window={min(shape)}, or 0 for all points"
                )
        self.fields, self.finer = fields, finer
        flip = config.data.flip
        self.flip = fields.is_images if flip == "auto" else flip
        self.config = config
        self.noise = build_noise(config.flow.noise, config.flow.noise_length)
        self.steps_per_epoch = len(fields) // config.batch_size

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0 over the whole run."""
        generator = _generator(self.config.seed, 1, step)
        data, flow = self.config.data, self.config.flow
        scale = _draw_scale(data, generator)
        items, seen, asked = self._draw_fields(step, scale, generator)
        turn = _draw_symmetry(self.flip, len(items), seen.places([0]).shape[-1], generator)
        known = self._points(seen, turn)
        sought, cell = known, 1.0
        if asked is not seen:
            sought, cell = self._points(asked, turn), 1 / scale
            if not _draw_own_cells(data, generator):
                sought, cell = _moving_average(sought, scale), 1.0
        at_mean, u = _draw_times(flow, len(items), generator)
        order = self._point_orders(items, seen.points, generator, known.known)
        observed, targets, valid = _split(order, data, generator, known.known)
        if asked is not seen:
            targets = torch.arange(sought.coords.shape[1]).expand(len(items), -1)
        if at_mean:
            targets = _subset(targets, data.queries, generator)
        elif data.window:
            targets = _blocks(sought.shape, data.window, len(items), generator)
        coords = _take(sought.coords, targets)
        keys = torch.randint(2**63 - 1, (len(items),), generator=generator).numpy()
        return Batch(
            x_0=self.noise(coords, asked.channels, keys.astype(np.uint64), seen.shape),
            x_1=_take(sought.values, targets),
            u=u,
            coords=coords,
            obs=Observation(
                _take(known.coords, observed),
                _take(known.values, observed),
                valid=valid,
                grid=seen.grid,
            ),
            cell=torch.full((len(items),), cell),
            known=None if sought.known is None else sought.known.gather(1, targets),
        )

    def _draw_fields(
        self, step: int, scale: int, generator: torch.Generator
    ) -> tuple[np.ndarray, Any, Any]:
        """Return items, their fields as observed, and as asked for on a grid `scale` as fine."""
        if self.finer is None or scale == 1:
            items = self._items(step)
            fields = self.fields.subset(items)
            return items, fields, fields
        size = (self.config.batch_size,)
        items = torch.randint(len(self.finer), size, generator=generator).numpy()
        asked = self.finer.subset(items)
        return items, asked.resized([n // scale for n in asked.shape]), asked

    def _points(self, fields: FieldDataset | ScatteredDataset, turn: Symmetry) -> GridPoints:
        """Return the points of some fields, moved by a symmetry each, with normalised values.

        Values stay with their points, so that a field's fixed mask still hides the same ones.
        """
        coords = turn(fields.places(range(len(fields))), fields.shape)
        values = self.fields.normalizer.apply(fields.batch(range(len(fields))))
        if fields.known is not None:
            values = torch.where(fields.known[..., None], values, 0.0)
        return GridPoints(coords, values, fields.shape, fields.known)

    def _items(self, step: int) -> np.ndarray:
        epoch, within = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.config.seed, 0, epoch]).permutation(len(self.fields))
        size = self.config.batch_size
        return order[within * size : (within + 1) * size]

    def _point_orders(
        self,
        items: np.ndarray,
        points: int,
        generator: torch.Generator,
        known: Tensor | None,
    ) -> Tensor:
        """Return a random order (B, L) of each field's points; those without a value are last."""
        if self.config.data.masks == "fresh":
            order = torch.rand(len(items), points, generator=generator).argsort(dim=1)
        else:
            seed = self.config.seed
            orders = [permutation(points, seed, "train", int(item)) for item in items]
            order = torch.from_numpy(np.stack(orders))
        return order if known is None else known_first(order, known)


def _check_gaps(fields: FieldDataset | ScatteredDataset, data: DataConfig) -> None:
    """Refuse what takes whole grids where there are none.

    Raises:
        InputError: Scales above 1 average cells, and windows take blocks of them.
    """
    if fields.known is not None and max(data.scales) > 1:
        raise InputError(
            f"data.scales above 1 average cells, and {fields.name} has some without a value; set "
            "data.scales=[1]"
        )
    if isinstance(fields, ScatteredDataset) and data.window:
        raise InputError(f"data.window takes blocks of a grid, and {fields.name} has none")


def _asked_shapes(
    fields: FieldDataset | ScatteredDataset, finer: FieldDataset | None, data: DataConfig
) -> Iterator[tuple[int, ...]]:
    """Yield the grids of all points that steps can ask for."""
    yield fields.shape
    for scale in data.scales:
        if finer is not None and scale > 1:
            lost = 0 if data.own_cells == 1 else scale - 1
            yield tuple(n - lost for n in finer.shape)


def _draw_symmetry(
    flip: bool | str, count: int, dims: int, generator: torch.Generator
) -> Symmetry:
    """Return what moves each of `count` items, see `DataConfig.flip`."""
    if flip == "all":
        mirrored = torch.rand(count, dims, generator=generator) < 0.5
        return Symmetry(mirrored, torch.rand(count, dims, generator=generator))
    last = bool(flip) & (torch.rand(count, 1, generator=generator) < 0.5)
    return Symmetry(torch.nn.functional.pad(last, (dims - 1, 0)), None)


def _draw_scale(data: DataConfig, generator: torch.Generator) -> int:
    if len(data.scales) == 1:
        return data.scales[0]
    return data.scales[int(torch.randint(len(data.scales), (), generator=generator))]


def _draw_own_cells(data: DataConfig, generator: torch.Generator) -> bool:
    return data.own_cells == 1 or bool(torch.rand((), generator=generator) < data.own_cells)


def _moving_average(points: GridPoints, side: int) -> GridPoints:
    """Return means over blocks of `side` cells per axis, at their centres, a cell apart."""
    coords, values = (x.unflatten(1, points.shape) for x in (points.coords, points.values))
    for axis in range(1, 1 + len(points.shape)):
        coords, values = (x.unfold(axis, side, 1).mean(-1) for x in (coords, values))
    return GridPoints(coords.flatten(1, -2), values.flatten(1, -2), tuple(coords.shape[1:-1]))


def _draw_times(flow: FlowConfig, count: int, generator: torch.Generator) -> tuple[bool, Tensor]:
    """Return whether the step is at t = 0, and times u (B,) before the flow's shift.

    Times are stratified over the batch, which lowers the variance of the loss.
    """
    if torch.rand((), generator=generator) < flow.mean_fraction:
        return True, torch.zeros(count)
    offset = torch.rand((), generator=generator)
    return False, LAST_TIME * ((torch.arange(count) / count + offset) % 1)


def _split(
    order: Tensor, data: DataConfig, generator: torch.Generator, known: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Split point orders (B, L) into observed points (B, M) and target points (B, Q).

    Where some points have no value, items have as many observed points as is their share of those
    that have one; the third result says which of the M rows are (B, M).
    """
    low, high = data.density
    density = low + (high - low) * float(torch.rand((), generator=generator))
    if known is not None:
        return _split_known(order, data, density, known)
    count = observed_count(order.shape[1], density)
    observed = order[:, :count]
    return observed, order[:, count : 2 * count] if data.target == "disjoint" else order, None


def _split_known(
    order: Tensor, data: DataConfig, density: float, known: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Split orders in which the points that are known (B, L) come first."""
    counts = torch.tensor([observed_count(int(n), density) for n in known.sum(1)])
    most = int(counts.max())
    valid = torch.arange(most) < counts[:, None]
    if data.target == "all":
        return order[:, :most], order, valid
    # Each item's targets follow its own observed points.
    after = (counts[:, None] + torch.arange(most)).clamp_max(order.shape[1] - 1)
    return order[:, :most], order.gather(1, after), valid


def _subset(targets: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` random points of the targets (B, Q), or all of them for 0."""
    if not 0 < count < targets.shape[1]:
        return targets
    return targets[:, torch.randperm(targets.shape[1], generator=generator)[:count]]


def _blocks(shape: tuple[int, ...], side: int, count: int, generator: torch.Generator) -> Tensor:
    """Return the points (B, side^P) of a random block of cells for each of `count` fields."""
    cells = torch.arange(math.prod(shape)).reshape(shape)
    for axis in range(len(shape)):
        cells = cells.unfold(axis, side, 1)
    places = cells.flatten(0, len(shape) - 1).flatten(1)
    return places[torch.randint(len(places), (count,), generator=generator)]


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def _generator(*key: int) -> torch.Generator:
    seed = np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))
