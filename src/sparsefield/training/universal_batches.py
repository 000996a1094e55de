"""Batches for the universal interpolator: items of the prior, with what the experts say."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsefield.data.prior.items import Item, Prior
from sparsefield.models.universal import Features, make_features
from sparsefield.nn.experts import Problem, ask_experts

FEWEST = 3
SIZES = (8, 16, 32, 64, 128)
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
        most = int(rng.choice(SIZES))
        items = int(np.clip(TOKENS // (most + self.queries), 8, 24))
        axes = self.prior.draw_axes(rng)
        low = FEWEST if most == SIZES[0] else most // 2
        counts = np.exp(rng.uniform(np.log(low), np.log(most + 1), items)).astype(int)
        return [self.prior.draw(rng, count, self.queries, axes) for count in counts]


def collate(items: Sequence[Item]) -> Batch:
    """Standardise items of one dimension, pad them, and ask the experts."""
    most = max(len(item.values) for item in items)
    centres = np.array([item.values.mean() for item in items])
    scales = np.array([item.values.std() for item in items])

    def stack(arrays: list[np.ndarray], fill: float = 0.0) -> Tensor:
        """Pad arrays (N, ...) to (B, N, ...)."""
        padded = np.full((len(arrays), most, *arrays[0].shape[1:]), fill)
        for row, array in zip(padded, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(padded)

    sizes = [item.noise for item in items]
    powers = [1.0 if s is None else float((s**2).mean()) for s in sizes]
    stated = [np.nan if s is None else p**0.5 for s, p in zip(sizes, powers, strict=True)]
    problem = Problem(
        coords=stack([item.coords for item in items]),
        values=stack(
            [(i.values - c) / s for i, c, s in zip(items, centres, scales, strict=True)]
        ),
        valid=stack([np.ones(len(item.values)) for item in items]) > 0,
        noise=stack(
            [
                np.ones(len(item.values)) if s is None else s**2 / p
                for item, s, p in zip(items, sizes, powers, strict=True)
            ],
            1.0,
        ),
        query=torch.from_numpy(np.stack([item.query for item in items])),
        query_noise=torch.tensor([float(s is None) for s in sizes], dtype=torch.float64),
    )
    features = make_features(problem, ask_experts(problem), torch.tensor(stated / scales))

    def scale(arrays: list[np.ndarray]) -> Tensor:
        scaled = (np.stack(arrays) - centres[:, None]) / scales[:, None]
        return torch.from_numpy(scaled).float()

    return Batch(features, scale([i.target for i in items]), scale([i.clean for i in items]))
