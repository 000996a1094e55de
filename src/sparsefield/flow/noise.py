"""Source noise, a function of who asks for it: independent of batches, workers and ranks."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def white_noise(points: int, channels: int, seed: int, *key: int) -> Tensor:
    """Draw standard normal noise (L, C) for one item from (seed, key...), all at least 0."""
    generator = np.random.default_rng([seed, *key])
    return torch.from_numpy(generator.standard_normal((points, channels), dtype=np.float32))


def white_noise_batch(
    points: int, channels: int, seed: int, items: Sequence[int], draw: int = 0
) -> Tensor:
    """Draw noise (B, L, C); that of an item depends on (seed, item, draw) and nothing else."""
    return torch.stack([white_noise(points, channels, seed, item, draw) for item in items])
