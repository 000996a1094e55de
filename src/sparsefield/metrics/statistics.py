"""What a mean over items is worth."""

from collections.abc import Callable

import numpy as np
from torch import Tensor


def bootstrap_interval(
    values: np.ndarray | Tensor,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    statistic: Callable[[np.ndarray], float] = np.mean,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean, or another statistic, over items.

    Args:
        values: values of the items, shape (N, ...).
        level: confidence, in (0, 1).
        resamples: number of resamples of the items.
        seed: seed of the resampling.
        statistic: maps the values of some items to a number.

    Returns:
        Lower and upper end of the interval.
    """
    sample = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = [
        statistic(sample[rng.integers(len(sample), size=len(sample))]) for _ in range(resamples)
    ]
    # Ends at resampled means rather than between them: a perfect PSNR is infinite.
    ends = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return float(ends[0]), float(ends[1])
