"""Paired differences: methods against each other, item by item.

Scores of two methods on the same item share its difficulty, which cancels in their difference: its
interval is far narrower than those of the two means.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sparsefield.evaluation.scorers import Scores
from sparsefield.metrics.statistics import Estimate, holm, p_values, percentiles, resampled_means

LEVEL = 0.95
CORRECTION = "Holm, over the comparisons of each score"
# Energies, of which claims are made in per cent.
RATIOS = ("speckle", "sample_speckle", "speckle_average")


@dataclass(frozen=True)
class Difference:
    """The mean difference of a score from the reference's.

    Attributes:
        value: Mean difference.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        p: p-value, corrected for the number of comparisons.
        significant: Whether that is below 5 %.
        ratio: Of energies, the ratio of the two means.
    """

    value: float
    low: float
    high: float
    p: float
    significant: bool
    ratio: Estimate | None = None


@dataclass(frozen=True)
class Differences:
    """A method's differences from the reference.

    Attributes:
        scores: By the name of the score, those that both have.
    """

    scores: dict[str, Difference] = field(metadata={"inline": True})
    significant: bool = False

    def get(self, score: str) -> Difference | None:
        """Return the difference of a score, None where one of the two lacks it."""
        return self.scores.get(score)


def paired_differences(methods: Mapping[str, Scores], reference: str) -> dict[str, Differences]:
    """Compare every method with the reference, item by item.

    Args:
        methods: Scores (N,) of the same items, by the names of method and score.
        reference: The method that the others are compared with.

    Returns:
        Differences of each of the others, p-values corrected over the methods (Holm);
        `significant` is that of PSNR.
    """
    others = {name: scores for name, scores in methods.items() if name != reference}
    found: dict[str, dict[str, Difference]] = {name: {} for name in others}
    for score, base in methods[reference].items():
        rivals = {name: scores[score] for name, scores in others.items() if score in scores}
        for name, difference in _compare_score(score, base, rivals).items():
            found[name][score] = difference
    return {
        name: Differences(scores, "psnr" in scores and scores["psnr"].significant)
        for name, scores in found.items()
    }


def _compare_score(
    score: str, base: np.ndarray, rivals: Mapping[str, np.ndarray]
) -> dict[str, Difference]:
    """Compare rivals with the reference's values of a score; undefined differences are left out.

    Samples exist for the first items only, so that the shorter of two scores counts.
    """
    count = min([len(base), *map(len, rivals.values())])
    pairs = {name: _subtract(values[:count], base[:count]) for name, values in rivals.items()}
    pairs = {name: values for name, values in pairs.items() if _has_mean(values)}
    if not pairs:
        return {}
    columns = np.stack([*pairs.values(), base[:count]], axis=1)
    means = resampled_means(columns)
    corrected = holm(p_values(means[:, :-1], count))
    energy = score in RATIOS and base[:count].mean() > 0
    return {
        name: Difference(
            float(values.mean()),
            *percentiles(means[:, column], count, LEVEL),
            p=float(corrected[column]),
            significant=bool(corrected[column] < 1 - LEVEL),
            ratio=_ratio(values, base[:count], means[:, column], means[:, -1]) if energy else None,
        )
        for column, (name, values) in enumerate(pairs.items())
    }


def _ratio(
    differences: np.ndarray, base: np.ndarray, resampled: np.ndarray, resampled_base: np.ndarray
) -> Estimate:
    """Return the ratio of two means from differences (N,) and base (N,), and from resamples."""
    value = float(1 + differences.mean() / base.mean())
    return Estimate(value, *percentiles(1 + resampled / resampled_base, len(base), LEVEL))


def _subtract(values: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return differences in which two perfect scores, infinite both, are equal."""
    with np.errstate(invalid="ignore"):
        return np.where(values == base, 0.0, values - base)


def _has_mean(values: np.ndarray) -> bool:
    """Tell whether no value is missing, and not both infinities occur."""
    with np.errstate(invalid="ignore"):
        return not np.isnan(values.sum())


def contrast(
    differences: Mapping[str, Differences], rival: str, score: str = "psnr", unit: str = "dB"
) -> list[str]:
    """Say which methods are significantly above a rival, which below, and which neither."""
    groups: dict[str, list[str]] = {
        f"Significantly above {rival}": [],
        f"Significantly below {rival}": [],
        f"Not told apart from {rival}": [],
    }
    above, below, neither = groups.values()
    known = {n: d for n, entry in differences.items() if (d := entry.get(score)) is not None}
    for name, difference in sorted(known.items(), key=lambda item: -item[1].value):
        group = neither
        if difference.significant:
            group = above if difference.value > 0 else below
        group.append(f"{name} ({signed(difference)} {unit})")
    return [f"{words}: {', '.join(names)}." for words, names in groups.items() if names]


def signed(difference: Difference, digits: int = 2) -> str:
    """Write a difference with its sign and its interval."""
    found = Estimate(difference.value, difference.low, difference.high)
    return found.text(f"+.{digits}f")
