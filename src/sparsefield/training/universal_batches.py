"""Batches for the universal interpolator: items of the prior, with what the experts say."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsefield.data import contexts
from sparsefield.data.prior.items import Item, Prior
from sparsefield.inference.tasks import Task, features_of, standardise
from sparsefield.models.universal import Features

FEWEST = 3
SIZES = (8, 16, 32, 64, 128, 256)  # most observations of the items of a batch
SHARES = (0.12, 0.16, 0.22, 0.26, 0.18, 0.06)  # of the batches
DENSE_SIZE, DENSE = 128, 0.4  # of those of this size: more, of which a place sees the near ones
DENSE_COUNTS = (contexts.WHOLE + 1, 1500)
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
        if most == DENSE_SIZE and rng.random() < DENSE:
            counts = _log_integers(rng, *DENSE_COUNTS, size)
            return [self.prior.draw(rng, n, self.queries // 2, axes, local=True) for n in counts]
        counts = _log_integers(rng, FEWEST if most == SIZES[0] else most // 2, most, size)
        return [self.prior.draw(rng, n, self.queries, axes) for n in counts]


def _log_integers(rng: np.random.Generator, low: int, high: int, size: int) -> list[int]:
    """Return integers from low to high whose logarithms are about uniform."""
    return np.exp(rng.uniform(np.log(low), np.log(high + 1), size)).astype(int).tolist()


def view(item: Item) -> Task:
    """Return what is seen of an item from the middle of its queries, or all if that is little."""
    noise = np.ones(len(item.values)) if item.noise is None else item.noise**2
    if len(item.values) <= contexts.WHOLE:
        seen = contexts.Context(item.coords, item.values, noise)
    else:
        centre = np.median(item.query, axis=0)
        seen = contexts.local_context(cKDTree(item.coords), item.values, noise, centre)
    return standardise(seen, item.query, item.noise is not None)


def collate(items: Sequence[Item]) -> Batch:
    """Standardise items of one dimension, pad them, and ask the experts."""
    tasks = [view(item) for item in items]
    centre = np.array([[task.centre] for task in tasks])
    scale = np.array([[task.scale] for task in tasks])

    def standard(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy((np.stack(arrays) - centre) / scale).float()

    target, clean = [i.target for i in items], [i.clean for i in items]
    return Batch(features_of(tasks), standard(target), standard(clean))
