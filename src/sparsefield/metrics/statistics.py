"""What a mean over items is worth, and whether two of them differ."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

# Resampled items of several resamples together; changes time and memory, nothing else.
ITEMS_AT_ONCE, FEW_ITEMS = 100_000, 16_384


def bootstrap_interval(
    values: np.ndarray | Tensor,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    statistic: Callable[[np.ndarray], float] = np.mean,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean, or another statistic, over items.

    Args:
        values: Values of the items, shape (N, ...).
        level: Confidence, in (0, 1).
        resamples: Number of resamples of the items, at least 1.
        seed: Seed of the resampling, at least 0.
        statistic: Maps the values of some items, shape (N, ...), to a number.

    Returns:
        Lower and upper end of the interval; both NaN if there is one item only, which says nothing
        of others.
    """
    sample = np.asarray(values, dtype=np.float64)
    if statistic is np.mean and sample.ndim == 1:
        return percentiles(_means(sample, resamples, seed), len(sample), level)
    rng = np.random.default_rng(seed)
    means = [
        statistic(sample[rng.integers(len(sample), size=len(sample))]) for _ in range(resamples)
    ]
    return percentiles(np.array(means), len(sample), level)


def _means(sample: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return bootstrap means (R,) of values (N,), many at a time where N is small."""
    rng, count = np.random.default_rng(seed), len(sample)
    rows = max(1, FEW_ITEMS // count)
    starts = range(0, resamples, rows)
    sizes = [(min(rows, resamples - start), count) for start in starts]
    return np.concatenate([sample[rng.integers(count, size=size)].mean(axis=1) for size in sizes])


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval.

    Attributes:
        value: The number.
        low: Lower end of the interval, NaN if it is unknown.
        high: Upper end of the interval, NaN if it is unknown.
    """

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends of the interval."""
        return self.low, self.high

    def text(self, form: str) -> str:
        """Write the number and its interval, if that is known, in a format like ".2f"."""
        ends = "" if math.isnan(self.low) else f" [{self.low:{form}}, {self.high:{form}}]"
        return f"{self.value:{form}}{ends}"


def estimate(values: np.ndarray, statistic: Callable[[np.ndarray], float] = np.mean) -> Estimate:
    """Return a statistic over items and its 95 % bootstrap interval.

    Args:
        values: Values of the items, shape (N, ...).
        statistic: Maps the values of some items to a number.
    """
    return Estimate(float(statistic(values)), *bootstrap_interval(values, statistic=statistic))


def resampled_means(values: np.ndarray, resamples: int = 5000, seed: int = 0) -> np.ndarray:
    """Return bootstrap means (R, K) of scores (N, K); all K columns share the resampled items."""
    rng = np.random.default_rng(seed)
    count, exact = len(values), values.astype(np.float64)
    rows = math.ceil(ITEMS_AT_ONCE / count)
    parts = [
        exact[rng.integers(count, size=(min(rows, resamples - start), count))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(parts)


def p_values(means: np.ndarray, count: int) -> np.ndarray:
    """Return two-sided bootstrap p-values (K,) of means being 0, from resampled means (R, K).

    `count` items that all point one way have a p-value of `2^(1 - count)` by the sign test: few
    items never prove anything, however alike they are.
    """
    tail = np.minimum((means <= 0).sum(axis=0), (means >= 0).sum(axis=0))
    return np.clip(2 * (tail + 1) / (len(means) + 1), 2.0 ** (1 - count), 1.0)


def holm(values: np.ndarray) -> np.ndarray:
    """Correct the p-values (K,) of a family of comparisons.

    The chance of any false discovery in the family is at most the level that the corrected values
    are held against, whatever their dependence.

    References:
        A Simple Sequentially Rejective Multiple Test Procedure (Holm, 1979).
    """
    order = np.argsort(values)
    scaled = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(scaled)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


def percentiles(means: np.ndarray, items: int, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of the percentile interval of resampled means (R,).

    Resamples of one item are all alike, which would be an interval of no width: it has none, NaN.

    Args:
        means: Means of the resamples.
        items: Independent items, or blocks of them, that were resampled.
        level: Confidence, in (0, 1).
    """
    if items < 2:
        return math.nan, math.nan
    # Ends at resampled means rather than between them: a perfect PSNR is infinite.
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return float(low), float(high)
