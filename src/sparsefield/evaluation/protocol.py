"""The protocol behind every figure: frozen masks and noise per item, scores per item."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sparsefield import metrics
from sparsefield.core.errors import InputError
from sparsefield.data.cells import CellGrids
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.masks import observed_indices
from sparsefield.data.observation import Observation
from sparsefield.evaluation.calibration import calibrate_draws, distance_in_cells
from sparsefield.flow.noise import field_keys
from sparsefield.inference.model import Model, draw_samples, posterior_mean

Scores = dict[str, np.ndarray]


@dataclass(frozen=True)
class Protocol:
    """Which points of which fields are observed.

    Attributes:
        density: Observed fraction, in (0, 1].
        seed: Seed of masks and noise, at least 0.
        split: Split whose masks are used: train, validation or test.
        batch_size: Fields per evaluation; changes speed and nothing else.
    """

    density: float = 0.2
    seed: int = 0
    split: str = "validation"
    batch_size: int = 50


@dataclass(frozen=True)
class Task:
    """A batch of fields with what is observed of them, in physical units.

    Attributes:
        items: Indices of the fields.
        truth: Fields (B, L, C).
        coords: Grid points (B, L, P).
        obs: Observations (B, M, ...).
        missing: Which points are not observed (B, L).
        shape: Grid shape.
        observed: Shape of the grid whose cells are observed.
        seed: Seed of the source noise.
    """

    items: Sequence[int]
    truth: Tensor
    coords: Tensor
    obs: Observation
    missing: Tensor
    shape: tuple[int, ...]
    observed: tuple[int, ...]
    seed: int

    def noise(self, model: Model, draw: int, step: int = 0) -> Tensor:
        """Return the model's source noise (B, L, C) of a draw, by the number of the field."""
        keys = field_keys(self.seed, self.items, draw, step)
        return model.flow.noise(self.coords, self.truth.shape[-1], keys, self.observed)

    def mean(self, model: Model, chunk: int | None = None) -> Tensor:
        """Return the model's posterior mean (B, L, C), `chunk` points at a time."""
        grids, noise = CellGrids(self.observed, self.shape), self.noise(model, 0)
        return posterior_mean(model, self.obs, self.coords, noise, chunk, grids=grids)

    def sample(self, model: Model, draw: int, sampler: str, steps: int) -> tuple[Tensor, int]:
        """Return a draw (B, L, C) of the model, by its number, and its evaluations."""
        grids, noise = CellGrids(self.observed, self.shape), partial(self.noise, model, draw)
        return draw_samples(model, self.obs, self.coords, noise, sampler, steps, grids)


def tasks(fields: FieldDataset, protocol: Protocol, limit: int | None = None) -> Iterator[Task]:
    """Yield all fields, or the first `limit` of them, in batches, in order."""
    items = range(len(fields))[:limit]
    for start in range(0, len(items), protocol.batch_size):
        yield make_task(fields, protocol, items[start : start + protocol.batch_size])


def make_task(fields: FieldDataset, protocol: Protocol, items: Sequence[int]) -> Task:
    """Observe some fields as the protocol says; an item never depends on its batch."""
    truth = fields.batch(list(items))
    index = torch.from_numpy(
        np.stack(
            [
                observed_indices(
                    fields.points, protocol.density, protocol.seed, protocol.split, item
                )
                for item in items
            ]
        )
    )
    coords = fields.coords.expand(len(items), -1, -1)
    missing = torch.ones(truth.shape[:2], dtype=torch.bool).scatter(1, index, False)
    return Task(
        items=items,
        truth=truth,
        coords=coords,
        obs=Observation(_take(coords, index), _take(truth, index)),
        missing=missing,
        shape=fields.shape,
        observed=fields.shape,
        seed=protocol.seed,
    )


def check_fit(model: Model, fields: FieldDataset) -> None:
    """Check that a model knows fields of these dimensions and channels.

    Raises:
        InputError: It does not.
    """
    has = (len(fields.shape), fields.channels)
    needs = (len(model.spec.shape), model.spec.normalizer.channels)
    if has != needs:
        raise InputError(
            f"model '{model.name}' takes {needs[0]}-D fields of {needs[1]} channels; "
            f"{fields.name} has {has[0]}-D fields of {has[1]}"
        )


def score(prediction: Tensor, task: Task, data_range: float = 1.0) -> Scores:
    """Score predictions (B, L, C) of a task.

    Returns:
        Scores per field (B,): psnr, psnr_missing, mse, mae, on grids ssim, on images speckle.
    """
    scores = {
        "psnr": metrics.psnr(prediction, task.truth, data_range=data_range),
        "psnr_missing": metrics.psnr(prediction, task.truth, task.missing, data_range),
        "mse": metrics.mse(prediction, task.truth),
        "mae": metrics.mae(prediction, task.truth),
    }
    if min(task.shape) >= 7:
        grid = prediction.unflatten(1, task.shape)
        scores["ssim"] = metrics.ssim(grid, task.truth.unflatten(1, task.shape), data_range)
    if _has_speckle(task):
        scores["speckle"] = _speckle(prediction, task)
    return {name: value.numpy() for name, value in scores.items()}


def evaluate_mean(
    model: Model,
    fields: FieldDataset,
    protocol: Protocol,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[Scores, float]:
    """Score the posterior mean on every field.

    Args:
        model: Model to evaluate.
        fields: Fields with the true values.
        protocol: Masks and seeds.
        progress: Called with the number of fields done after each batch.

    Returns:
        Scores per field (N,), and the seconds that the model took.
    """
    parts, seconds = [], 0.0
    for task in tasks(fields, protocol):
        start = time.perf_counter()
        prediction = task.mean(model)
        seconds += time.perf_counter() - start
        parts.append(score(prediction, task, data_range(fields)))
        progress(len(task.items))
    return join(parts), seconds


def evaluate_samples(
    model: Model,
    fields: FieldDataset,
    protocol: Protocol,
    draws: int,
    sampler: str,
    steps: int,
    progress: Callable[[int], None] = lambda count: None,
    limit: int | None = None,
) -> tuple[Scores, float, int]:
    """Score posterior draws on every field.

    Args:
        model: Model to evaluate.
        fields: Fields with the true values.
        protocol: Masks and seeds.
        draws: Draws S per field, at least 2.
        sampler: Key of SAMPLERS.
        steps: Steps of the sampler.
        progress: Called with the number of fields done after each batch.
        limit: Draw for the first fields only, as many as this.

    Returns:
        Scores of the N fields: psnr and, on images, speckle of single draws (means over draws) and
        of their average (psnr_average, speckle_average), crps, energy_score, and those of
        `calibrate_draws`; seconds; network evaluations per draw.
    """
    parts, seconds, nfe = [], 0.0, 0
    for task in tasks(fields, protocol, limit):
        start = time.perf_counter()
        mean = task.mean(model)
        drawn = []
        for draw in range(draws):
            values, nfe = task.sample(model, draw, sampler, steps)
            drawn.append(values)
        seconds += time.perf_counter() - start
        parts.append(_score_draws(torch.stack(drawn), mean, task, data_range(fields)))
        progress(len(task.items))
    return join(parts), seconds, nfe


def _score_draws(draws: Tensor, mean: Tensor, task: Task, value_range: float) -> Scores:
    single = torch.stack([metrics.psnr(x, task.truth, data_range=value_range) for x in draws])
    scores = {
        "psnr": single.mean(0),
        "crps": metrics.crps_ensemble(draws, task.truth),
        "energy_score": metrics.energy_score(draws, task.truth),
        "psnr_average": metrics.psnr(draws.mean(0), task.truth, data_range=value_range),
    }
    if _has_speckle(task):
        scores["speckle_average"] = _speckle(draws.mean(0), task)
        scores["speckle"] = torch.stack([_speckle(draw, task) for draw in draws]).mean(0)
    distance = distance_in_cells(task.coords, task.obs, task.shape)
    scores |= calibrate_draws(draws, mean, task.truth, task.missing, distance)
    return {name: value.numpy() for name, value in scores.items()}


def _has_speckle(task: Task) -> bool:
    return len(task.shape) == 2 and min(task.shape) >= 3


def _speckle(prediction: Tensor, task: Task) -> Tensor:
    images = (values.unflatten(1, task.shape) for values in (prediction, task.truth))
    return metrics.speckle_energy(*images)


def data_range(fields: FieldDataset) -> float:
    """Return the range that PSNR refers to: 1 for images, else that of the data."""
    if fields.values.dtype == np.uint8:
        return 1.0
    return float(fields.values.max() - fields.values.min())


def join(parts: Sequence[Scores]) -> Scores:
    """Concatenate the scores of batches."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
