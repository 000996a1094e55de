"""Typed results: what was measured, and scores over all items."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from sparsefield.core.files import write_text
from sparsefield.core.version import code_version
from sparsefield.data.dataset import FieldDataset
from sparsefield.evaluation.calibration import (
    POOLED,
    TABLES,
    Calibration,
    calibration_tables,
    pool,
    reached_levels,
)
from sparsefield.evaluation.predictors import SamplingConfig
from sparsefield.evaluation.scorers import Scores
from sparsefield.evaluation.serialise import INLINE, flatten, tidy
from sparsefield.evaluation.task import Protocol
from sparsefield.metrics.statistics import Estimate, estimate


@dataclass(frozen=True)
class Head:
    """What every report says of how it was measured.

    Attributes:
        data: Name of the data set.
        n: Number of items.
        density: Observed fraction.
        split: Split whose masks were used.
        seed: Seed of masks and noise.
        device: Where models ran.
        commit: Version of the code.
        model: Name of the model, where there is one.
    """

    data: str
    n: int
    density: float
    split: str
    seed: int
    device: str
    commit: str
    model: str | None = None


def head(
    data: FieldDataset, protocol: Protocol, device: object = "cpu", *, model: str | None = None
) -> Head:
    """Return the head of a report on a data set."""
    where = (protocol.density, protocol.split, protocol.seed, str(device))
    return Head(data.name, len(data), *where, code_version(), model)


@dataclass(frozen=True)
class Sampling:
    """How the scored samples were made; a Gaussian forecast has `n` alone.

    Attributes:
        n: Number of items.
        samples: Samples per item.
        sampler: Name and settings of the sampler.
        steps: Its steps.
        nfe: Network evaluations per sample.
    """

    n: int
    samples: int | None = field(default=None, metadata={"key": "draws"})
    sampler: str | None = None
    steps: int | None = None
    nfe: int | None = None


def sampling(config: SamplingConfig, items: int, nfe: int) -> Sampling:
    """Return how samples of `items` items were made, with `nfe` evaluations per item."""
    spent = nfe // config.samples
    return Sampling(config.count(items), config.samples, config.sampler, config.steps, spent)


@dataclass(frozen=True)
class Summary:
    """Scores over all items.

    Attributes:
        estimates: Each score with its 95 % bootstrap interval: its mean over items, or the pooled
            ratio. What does not exist, as the PSNR on missing points when none is, is left out.
        levels: As `NAME_level`, what each coverage is for calibrated samples.
        sampling: How samples were made.
        calibration: Tables, where there are unobserved points.
        seconds: Time that it took, where that is part of the result.
        notes: What was done to items that the method cannot take as they are, and to how many of
            them; None if to none.
    """

    estimates: dict[str, Estimate] = field(metadata=INLINE)
    levels: dict[str, float] = field(default_factory=dict, metadata=INLINE | {"suffix": "_level"})
    sampling: Sampling | None = field(default=None, metadata=INLINE)
    calibration: Calibration | None = None
    seconds: float | None = None
    notes: dict[str, int] | None = None

    def __contains__(self, score: str) -> bool:
        """Tell whether there is a score of this name."""
        return score in self.estimates

    def __getitem__(self, score: str) -> Estimate:
        """Return a score."""
        return self.estimates[score]

    def get(self, score: str) -> Estimate | None:
        """Return a score, None if there is none of this name."""
        return self.estimates.get(score)


def summarise(
    scores: Scores,
    sampling: Sampling | None = None,
    seconds: float | None = None,
    *,
    notes: Mapping[str, int] | None = None,
) -> Summary:
    """Return each score over all items with its interval."""
    estimates = {
        name: found
        for name, values in scores.items()
        if name not in TABLES and (found := _estimate(name, values)) is not None
    }
    tables = calibration_tables(scores)
    levels = reached_levels(scores) if tables else {}
    return Summary(estimates, levels, sampling, tables, seconds, dict(notes or {}) or None)


def _estimate(name: str, values: np.ndarray) -> Estimate | None:
    if np.isnan(values).any():
        return None
    found = estimate(values, partial(pool, name) if name in POOLED else np.mean)
    return None if math.isnan(found.value) else found


def write_report(path: Path, report: object) -> None:
    """Write a result as strict JSON, see `flatten` and `tidy`.

    Args:
        path: The file.
        report: A dataclass, or objects, lists and numbers.

    Raises:
        InputError: The file cannot be written.
    """
    write_text(path, tidy(flatten(report)) + "\n")
