"""What predicts: the posterior mean of a model, its samples, a classical baseline."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsefield.baselines.points import BaselineWarning
from sparsefield.baselines.registry import reconstruct_baseline
from sparsefield.core.errors import InputError
from sparsefield.data.normalize import Normalizer
from sparsefield.evaluation.task import Task
from sparsefield.flow.noise import field_keys
from sparsefield.inference.model import Model, draw_samples, posterior_mean
from sparsefield.samplers import DEFAULT_SAMPLER, NoiseFields, build_sampler


class Forecast(NamedTuple):
    """Independent normal distributions: means and standard deviations (B, L, C)."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Prediction:
    """What a method says about a task.

    Attributes:
        mean: Predicted fields (B, L, C) within the range of values.
        samples: Posterior samples (S, B, L, C).
        forecast: A Gaussian forecast as it stands, also where it leaves the range of values.
        nfe: Network evaluations per item that `samples` took, or `mean` where there are none.
        notes: What was done to items that the method cannot take as they are, one for each.
    """

    mean: Tensor
    samples: Tensor | None = None
    forecast: Forecast | None = None
    nfe: int = 0
    notes: tuple[str, ...] = ()


Predictor = Callable[[Task], Prediction]


@dataclass(frozen=True)
class SamplingConfig:
    """How posterior samples are made.

    Attributes:
        samples: Samples S per item; none if 0.
        sampler: Key of SAMPLERS, with settings as `build_sampler` takes them.
        steps: Steps of the sampler.
        limit: Sample this many items, the first ones; all if None.
    """

    samples: int = 0
    sampler: str = DEFAULT_SAMPLER
    steps: int = 10
    limit: int | None = None

    def count(self, items: int) -> int:
        """Return the number of items, out of `items`, that are sampled."""
        return len(range(items)[: self.limit]) if self.samples else 0

    def check(self) -> None:
        """Refuse before the work what could not be scored after it.

        Raises:
            InputError: There is a single sample, no such sampler, or nothing to sample.
        """
        if self.samples == 1 or self.samples < 0:
            raise InputError(
                "a standard deviation needs at least 2 samples; "
                f"--samples {self.samples} gives none"
            )
        if self.samples:
            build_sampler(self.sampler, self.steps)
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--samples-limit must be at least 1, not {self.limit}")


@dataclass(frozen=True)
class ModelMean:
    """The posterior mean of a model, by one evaluation.

    Attributes:
        model: The model.
        chunk: Points computed at a time, see `posterior_mean`.
    """

    model: Model
    chunk: int | None = None

    def __call__(self, task: Task) -> Prediction:
        """Predict a task."""
        noise = start_noise(self.model, task, 0)
        mean = posterior_mean(
            self.model, task.obs, task.coords, noise, self.chunk, grids=task.grids
        )
        return Prediction(mean, nfe=1)


@dataclass(frozen=True)
class ModelSamples:
    """Posterior samples of a model; its posterior mean beside them does not count as work.

    Attributes:
        model: The model.
        config: Number of samples, sampler and steps.
        with_mean: Predict the posterior mean, not the mean of the samples.
    """

    model: Model
    config: SamplingConfig
    with_mean: bool = True

    def __call__(self, task: Task) -> Prediction:
        """Predict a task."""
        mean = ModelMean(self.model)(task).mean if self.with_mean else None
        drawn = [self.sample(task, number) for number in range(self.config.samples)]
        samples = torch.stack([values for values, _ in drawn])
        nfe = sum(spent for _, spent in drawn)
        return Prediction(samples.mean(0) if mean is None else mean, samples, nfe=nfe)

    def sample(self, task: Task, number: int) -> tuple[Tensor, int]:
        """Return a sample (B, L, C), which its number determines, and its evaluations."""
        sampler, steps = self.config.sampler, self.config.steps

        def noise(coords: Tensor) -> NoiseFields:
            return partial(start_noise, self.model, task, number, coords=coords)

        return draw_samples(self.model, task.obs, task.coords, noise, sampler, steps, task.grids)


def start_noise(
    model: Model, task: Task, number: int, step: int = 0, *, coords: Tensor | None = None
) -> Tensor:
    """Return the source noise (B, L, C) of a numbered sample; an item's depends on no other.

    Args:
        model: The model.
        task: The task.
        number: Number of the sample.
        step: Number of the field of noise.
        coords: Points (B, L, P); those of the task by default.
    """
    keys = field_keys(task.seed, task.items, number, step)
    points = task.coords if coords is None else coords
    return model.flow.noise(points, task.truth.shape[-1], keys, task.observed)


@dataclass(frozen=True)
class Baseline:
    """A classical interpolation, item by item.

    Attributes:
        name: Key of BASELINES.
        normalizer: Knows the range of values that predictions are clipped to.
    """

    name: str
    normalizer: Normalizer

    def __call__(self, task: Task) -> Prediction:
        """Predict a task."""
        seen = [task.obs.item(index) for index in range(len(task.obs.coords))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BaselineWarning)  # the notes say the same
            found = [
                reconstruct_baseline(
                    self.name,
                    obs.coords.numpy(),
                    obs.values.numpy(),
                    at.numpy(),
                    noise=None if obs.noise is None else obs.noise.numpy(),
                )
                for obs, at in zip(seen, task.coords, strict=True)
            ]
        mean = _stack([each.mean for each in found])
        stds = [each.std for each in found if each.std is not None]
        forecast = Forecast(mean, _stack(stds)) if stds else None
        notes = tuple(each.note for each in found if each.note)
        return Prediction(self.normalizer.clip(mean), forecast=forecast, notes=notes)


def _stack(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).float()


def truth(task: Task) -> Prediction:
    """Predict the truth itself."""
    return Prediction(task.truth)
