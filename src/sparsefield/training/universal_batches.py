"""Batches for the universal interpolator: items of the prior, with what the experts say."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefield.data import contexts
from sparsefield.data.contexts import Context
from sparsefield.data.prior.items import Item, Prior
from sparsefield.models.universal import Features, make_features
from sparsefield.nn.experts import Problem, ask_experts

FEWEST = 3
SIZES = (8, 16, 32, 64, 128)  # most observations of the items of a batch
SHARES = (0.2, 0.25, 0.25, 0.2, 0.1)  # of the batches
DENSE = 0.4  # of those of the last size: more observations, of which a place sees groups
DENSE_COUNTS = (160, 1500)
TOKENS = 2048  # about, in a batch


class Batch(NamedTuple):
    """Features and truths of some items, padded to the same number of observations.

    Attributes:
        features: What the network reads.
        target: New measurements at the queries (B, Q), standardised.
        clean: The field there (B, Q), standardised; NaN where unknown.
    """

    features: Features
    target: Tensor
    clean: Tensor


class UniversalBatches:
    """An endless sequence of batches, each a function of the seed and its number alone.

    Args:
        prior: Where items come from.
        seed: Randomness.
        queries: Queries Q of an item.
    """

    def __init__(self, prior: Prior, seed: int, queries: int = 64) -> None:
        self.prior, self.seed, self.queries = prior, seed, queries

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step."""
        return collate(self.items(step))

    def items(self, step: int) -> list[Item]:
        """Return items that all have one dimension and about as many observations."""
        rng = np.random.default_rng((self.seed, step))
        most = int(rng.choice(SIZES, p=SHARES))
        size = int(np.clip(TOKENS // (most + self.queries), 8, 24))
        axes = self.prior.draw_axes(rng)
        if most == SIZES[-1] and rng.random() < DENSE:
            counts = _log_integers(rng, *DENSE_COUNTS, size)
            return [self.prior.draw(rng, n, self.queries // 2, axes, local=True) for n in counts]
        counts = _log_integers(rng, FEWEST if most == SIZES[0] else most // 2, most, size)
        return [self.prior.draw(rng, n, self.queries, axes) for n in counts]


def _log_integers(rng: np.random.Generator, low: int, high: int, size: int) -> list[int]:
    """Return integers from low to high whose logarithms are about uniform."""
    return np.exp(rng.uniform(np.log(low), np.log(high + 1), size)).astype(int).tolist()


class Task(NamedTuple):
    """What is seen of one item from where its queries are, standardised.

    Attributes:
        seen: Context; its noise is relative.
        query: Positions to predict (Q, P).
        stated: Root mean square of the stated noise; NaN if none is.
        centre: Mean of the values.
        scale: Standard deviation of the values.
    """

    seen: Context
    query: np.ndarray
    stated: float
    centre: float
    scale: float


def standardise(seen: Context, query: np.ndarray, stated: bool) -> Task:
    """Put a context in units of its own values.

    Args:
        seen: Context with noise variances, all 1 for single observations if none is stated.
        query: Positions to predict (Q, P).
        stated: Whether the noise is stated.
    """
    single = seen.count == 1
    values, noise = seen.values[single], seen.noise[single]
    centre = float(values.mean())
    scale = max(float(values.std()), 1e-12 * float(np.abs(values).max()), 1e-150)
    power = float(noise.mean())
    seen = seen._replace(values=(seen.values - centre) / scale, noise=seen.noise / power)
    return Task(seen, query, power**0.5 / scale if stated else np.nan, centre, scale)


def view(item: Item) -> Task:
    """Return what is seen of an item from the middle of its queries, or all if that is little."""
    noise = np.ones(len(item.values)) if item.noise is None else item.noise**2
    if len(item.values) <= contexts.TOKENS:
        seen = contexts.whole_context(item.coords, item.values, noise)
    else:
        centre = np.median(item.query, axis=0)
        seen = contexts.local_context(cKDTree(item.coords), item.values, noise, centre)
    return standardise(seen, item.query, item.noise is not None)


def make_problem(tasks: Sequence[Task]) -> Problem:
    """Pad tasks of one dimension and of as many queries to the same number of observations."""
    most = max(len(task.seen.values) for task in tasks)

    def stack(arrays: list[np.ndarray], fill: float) -> Tensor:
        """Pad arrays (N, ...) to (B, N, ...)."""
        padded = np.full((len(arrays), most, *arrays[0].shape[1:]), fill)
        for row, array in zip(padded, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(padded)

    seen = [task.seen for task in tasks]
    return Problem(
        coords=stack([x.coords for x in seen], 0.0),
        values=stack([x.values for x in seen], 0.0),
        valid=stack([x.count for x in seen], 0.0) > 0,
        noise=stack([x.noise for x in seen], 1.0),
        radius=stack([x.radius for x in seen], 0.0),
        query=torch.from_numpy(np.stack([task.query for task in tasks])),
        query_noise=torch.tensor([float(np.isnan(t.stated)) for t in tasks], dtype=torch.float64),
    )


def features_of(tasks: Sequence[Task]) -> Features:
    """Return what the network reads of tasks of one dimension and of as many queries."""
    problem = make_problem(tasks)
    stated = torch.tensor([task.stated for task in tasks], dtype=torch.float64)
    return make_features(problem, ask_experts(problem), stated)


def collate(items: Sequence[Item]) -> Batch:
    """Standardise items of one dimension, pad them, and ask the experts."""
    tasks = [view(item) for item in items]
    centre = np.array([[task.centre] for task in tasks])
    scale = np.array([[task.scale] for task in tasks])

    def standard(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy((np.stack(arrays) - centre) / scale).float()

    target, clean = [i.target for i in items], [i.clean for i in items]
    return Batch(features_of(tasks), standard(target), standard(clean))
