"""Models and baselines against each other: identical masks, identical noise, paired differences.

Scores of two contestants on the same field share its difficulty, which cancels in their
difference: its interval is far narrower than those of the two means.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsefield.baselines.interpolators import BASELINES, reconstruct_baseline
from sparsefield.core.errors import InputError, unknown_name
from sparsefield.data.dataset import FieldDataset
from sparsefield.evaluation.baseline_scores import evaluate_baselines
from sparsefield.evaluation.calibration import FORECAST
from sparsefield.evaluation.protocol import (
    Protocol,
    Scores,
    Task,
    evaluate_mean,
    evaluate_samples,
)
from sparsefield.evaluation.report import code_version, summarise
from sparsefield.inference.model import Model
from sparsefield.samplers import DEFAULT_SAMPLER

LEVEL = 0.95
RESAMPLES = 5000
FIELDS_AT_ONCE = 100_000
# Energies, of which claims are made in per cent.
RATIOS = ("speckle", "sample_speckle", "speckle_average")


@dataclass(frozen=True)
class Drawing:
    """How posterior draws are made.

    Attributes:
        draws: Draws S per field; none if 0.
        sampler: Key of SAMPLERS.
        steps: Steps of the sampler.
        limit: Draw for this many fields, the first ones; for all if None.
    """

    draws: int = 0
    sampler: str = DEFAULT_SAMPLER
    steps: int = 10
    limit: int | None = None

    def fields(self, count: int) -> int:
        """Return the number of fields, out of `count`, that draws are made for."""
        return len(range(count)[: self.limit]) if self.draws else 0


@dataclass
class Contestant:
    """A model or a baseline, and its scores on every field.

    Attributes:
        kind: "model" or "baseline".
        model: Backbone of the model, or name of the baseline.
        checkpoint: What the model was loaded from; empty for a baseline.
        parameters: Number of trainable weights.
        mean: Scores (N,) of the posterior mean, or of the baseline.
        samples: Scores of the draws on the fields that were drawn for; a baseline that is
            probabilistic has those of its forecasts.
        sampling: How the draws were made.
        seconds: Time that it took.
        nfe: Network evaluations per field, all draws together.
    """

    kind: str
    model: str
    checkpoint: str = ""
    parameters: int = 0
    mean: Scores = field(default_factory=dict)
    samples: Scores = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    nfe: int = 0

    def scores(self) -> Scores:
        """Return scores (N,) by name; those of draws that the mean has too as `sample_NAME`."""
        return self.mean | {
            f"sample_{name}" if name in self.mean else name: values
            for name, values in self.samples.items()
            if values.ndim == 1
        }

    def to_dict(self) -> dict[str, Any]:
        """Return means and 95 % intervals; what does not exist is left out."""
        row = {
            "kind": self.kind,
            "model": self.model,
            "checkpoint": self.checkpoint,
            "parameters": self.parameters,
            "mean": summarise(self.mean),
            "samples": self.sampling | summarise(self.samples),
        }
        kept = {name: value for name, value in row.items() if value}
        return kept | {"seconds": self.seconds, "nfe": self.nfe}


@dataclass
class Comparison:
    """Contestants on the same fields, masks and noise.

    Attributes:
        data: Name of the data set.
        fields: Number of fields N.
        protocol: Masks and seeds.
        contestants: Who takes part, by label.
        reference: Whom the others are compared with.
        device: Where models ran.
    """

    data: str
    fields: int
    protocol: Protocol
    contestants: dict[str, Contestant]
    reference: str
    device: str = "cpu"

    def to_dict(self) -> dict[str, Any]:
        """Return the report: scores, ranking, differences from reference and best baseline."""
        rows = {name: entry.to_dict() for name, entry in self.contestants.items()}
        ranking = sorted(rows, key=lambda name: -rows[name]["mean"]["psnr"])
        report = {
            "data": self.data,
            "n": self.fields,
            "density": self.protocol.density,
            "split": self.protocol.split,
            "seed": self.protocol.seed,
            "device": self.device,
            "commit": code_version(),
            "reference": self.reference,
            "level": LEVEL,
            "comparisons": len(rows) - 1,
            "correction": "Holm, over the comparisons of each score",
            "ranking": ranking,
            "contestants": rows,
            "differences": paired_differences(self.contestants, self.reference),
        }
        baselines = [name for name in ranking if rows[name]["kind"] == "baseline"]
        models = {n: entry for n, entry in self.contestants.items() if entry.kind == "model"}
        if baselines and models:
            rivals = models | {baselines[0]: self.contestants[baselines[0]]}
            differences = paired_differences(rivals, baselines[0])
            report["baseline"] = {"name": baselines[0], "differences": differences}
        return report


def name_contestants(arguments: Sequence[str]) -> dict[str, str]:
    """Return checkpoints by label, from `label=checkpoint` or a checkpoint alone.

    A run folder without a label is called by its name, anything else as it was given.

    Raises:
        InputError: Two contestants have one label, or one has that of a baseline.
    """
    named: dict[str, str] = {}
    for argument in arguments:
        label, checkpoint = _split_label(argument)
        if label in named:
            raise InputError(
                f"two contestants are called '{label}'; tell them apart by LABEL={checkpoint}"
            )
        if label in BASELINES:
            raise InputError(f"'{label}' is a baseline; call {checkpoint} by another LABEL=")
        named[label] = checkpoint
    return named


def _split_label(argument: str) -> tuple[str, str]:
    label, separator, checkpoint = argument.partition("=")
    if separator and label and checkpoint and not Path(argument).exists():
        return label, checkpoint
    path = Path(argument)
    return (path.resolve().name if path.is_dir() else argument), argument


def choose_reference(name: str | None, contestants: Sequence[str]) -> str:
    """Return the contestant with whom the others are compared, the first one by default.

    Raises:
        InputError: There is none of that name, or nobody to compare it with.
    """
    if len(contestants) < 2:
        raise InputError("a comparison needs at least two contestants: models or --baselines")
    if name is not None and name not in contestants:
        raise unknown_name("contestant", name, list(contestants))
    return name or contestants[0]


def measure_model(
    model: Model,
    fields: FieldDataset,
    protocol: Protocol,
    drawing: Drawing,
    progress: Callable[[int], None] = lambda count: None,
) -> Contestant:
    """Score a model's posterior mean, and its draws if there are any.

    Args:
        model: The model.
        fields: Fields with the true values.
        protocol: Masks and seeds.
        drawing: How draws are made.
        progress: Called with the number of fields done, once for the mean, once for the draws.
    """
    mean, seconds = evaluate_mean(model, fields, protocol, progress)
    entry = Contestant("model", model.spec.model, model.name, model.parameters, mean)
    entry.seconds, entry.nfe = seconds, 1
    if not drawing.draws:
        return entry
    draws, sampler, steps = drawing.draws, drawing.sampler, drawing.steps
    entry.samples, seconds, nfe = evaluate_samples(
        model, fields, protocol, draws, sampler, steps, progress, drawing.limit
    )
    how = {"draws": draws, "sampler": sampler, "steps": steps, "nfe": nfe}
    entry.sampling = {"n": drawing.fields(len(fields)), **how}
    entry.seconds += seconds
    entry.nfe += draws * nfe
    return entry


def measure_baselines(
    fields: FieldDataset,
    protocol: Protocol,
    names: Sequence[str],
    drawing: Drawing,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, Contestant]:
    """Score baselines; the forecasts of probabilistic ones on the fields that models draw for.

    Args:
        fields: Fields with the true values.
        protocol: Masks and seeds.
        names: Keys of BASELINES.
        drawing: How draws of the models are made.
        progress: Called with the number of fields done.
    """
    drawn = drawing.fields(len(fields))
    contestants = {}
    for name, scores in evaluate_baselines(fields, protocol, names, progress).items():
        entry = Contestant("baseline", name, seconds=float(scores.pop("seconds").sum()))
        forecast = {part: scores.pop(part)[:drawn] for part in FORECAST if part in scores}
        entry.mean = scores
        if forecast and drawn:
            entry.samples, entry.sampling = forecast, {"n": drawn}
        contestants[name] = entry
    return contestants


def baseline_fields(name: str, task: Task, fields: FieldDataset) -> Tensor:
    """Return a baseline's predictions (B, L, C) of a task's fields."""
    points = zip(task.obs.coords, task.obs.values, task.coords, strict=True)
    means = [reconstruct_baseline(name, *(x.numpy() for x in each)).mean for each in points]
    return fields.normalizer.clip(torch.from_numpy(np.stack(means)).float())


def paired_differences(
    contestants: Mapping[str, Contestant], reference: str
) -> dict[str, dict[str, Any]]:
    """Compare every contestant with the reference, field by field.

    Args:
        contestants: Who takes part, with scores of the same fields.
        reference: Whom the others are compared with.

    Returns:
        For each of the others and each score NAME that both have: the mean difference from the
        reference as NAME, its 95 % paired bootstrap interval as NAME_ci, its p-value corrected
        for the number of comparisons as NAME_p, and whether that is below 5 % as
        NAME_significant. Energies have the ratio of the means as NAME_ratio, NAME_ratio_ci.
        `significant` is that of PSNR.
    """
    others = {name: entry.scores() for name, entry in contestants.items() if name != reference}
    found: dict[str, dict[str, Any]] = {name: {} for name in others}
    for score, base in contestants[reference].scores().items():
        rivals = {name: scores[score] for name, scores in others.items() if score in scores}
        for name, entry in _compare_score(score, base, rivals).items():
            found[name] |= entry
    for entry in found.values():
        entry["significant"] = entry.get("psnr_significant", False)
    return found


def _compare_score(
    score: str, base: np.ndarray, rivals: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Compare rivals with the reference's values of a score; undefined differences are left out.

    Draws exist for the first fields only, so that the shorter of two scores counts.
    """
    count = min([len(base), *map(len, rivals.values())])
    pairs = {name: _subtract(values[:count], base[:count]) for name, values in rivals.items()}
    pairs = {name: values for name, values in pairs.items() if _has_mean(values)}
    if not pairs:
        return {}
    columns = np.stack([*pairs.values(), base[:count]], axis=1)
    means = resampled_means(columns)
    corrected = holm(p_values(means[:, :-1], count))
    found = {}
    for column, (name, values) in enumerate(pairs.items()):
        found[name] = {
            score: float(values.mean()),
            f"{score}_ci": _interval(means[:, column]),
            f"{score}_p": float(corrected[column]),
            f"{score}_significant": bool(corrected[column] < 1 - LEVEL),
        }
        if score in RATIOS and base[:count].mean() > 0:
            found[name][f"{score}_ratio"] = float(1 + values.mean() / base[:count].mean())
            found[name][f"{score}_ratio_ci"] = _interval(1 + means[:, column] / means[:, -1])
    return found


def _subtract(values: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return differences in which two perfect scores, infinite both, are equal."""
    with np.errstate(invalid="ignore"):
        return np.where(values == base, 0.0, values - base)


def _has_mean(values: np.ndarray) -> bool:
    """Tell whether no value is missing, and not both infinities occur."""
    with np.errstate(invalid="ignore"):
        return not np.isnan(values.sum())


def resampled_means(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Return bootstrap means (R, K) of scores (N, K); all K columns share the resampled fields."""
    rng = np.random.default_rng(seed)
    count, exact = len(values), values.astype(np.float64)
    rows = math.ceil(FIELDS_AT_ONCE / count)
    parts = [
        exact[rng.integers(count, size=(min(rows, resamples - start), count))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(parts)


def p_values(means: np.ndarray, count: int) -> np.ndarray:
    """Return two-sided bootstrap p-values (K,) of means being 0, from resampled means (R, K).

    `count` fields that all point one way have a p-value of `2^(1 - count)` by the sign test: few
    fields never prove anything, however alike they are.
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


def _interval(means: np.ndarray) -> list[float]:
    # Ends at resampled means rather than between them: a perfect PSNR is infinite.
    ends = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return [float(end) for end in ends]


def findings(report: Mapping[str, Any]) -> list[str]:
    """Say in sentences who leads on PSNR, who differs from the reference, what baselines do."""
    first = report["ranking"][0]
    leader = report["contestants"][first]
    sentences = [
        f"{first}{', a baseline,' if leader['kind'] == 'baseline' else ''} has the highest PSNR, "
        f"{leader['mean']['psnr']:.2f} dB."
    ]
    sentences += contrast(report["differences"], report["reference"])
    if "baseline" in report:
        sentences += _baseline_verdict(report)
    return sentences


def contrast(
    differences: Mapping[str, Mapping[str, Any]], rival: str, score: str = "psnr", unit: str = "dB"
) -> list[str]:
    """Say which contestants are significantly above a rival, which below, and which neither."""
    groups: dict[str, list[str]] = {"above": [], "below": [], "neither": []}
    for name, entry in sorted(differences.items(), key=lambda item: -item[1].get(score, 0.0)):
        if score not in entry:
            continue
        side = "above" if entry[score] > 0 else "below"
        group = side if entry[f"{score}_significant"] else "neither"
        groups[group].append(f"{name} ({signed(entry, score)} {unit})")
    words = {
        "above": f"Significantly above {rival}",
        "below": f"Significantly below {rival}",
        "neither": f"Not told apart from {rival}",
    }
    return [f"{words[group]}: {', '.join(names)}." for group, names in groups.items() if names]


def signed(entry: Mapping[str, Any], score: str, digits: int = 2) -> str:
    """Write a difference with its sign and its interval."""
    low, high = entry[f"{score}_ci"]
    return f"{entry[score]:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _baseline_verdict(report: Mapping[str, Any]) -> list[str]:
    """Say whether the best baseline wins over any model, and what is significant of it."""
    name, differences = report["baseline"]["name"], report["baseline"]["differences"]
    losers = [model for model, entry in differences.items() if entry.get("psnr", 0.0) <= 0]
    verdict = (
        f"The best baseline, {name}, wins over {', '.join(losers)} on PSNR."
        if losers
        else f"Every model has a higher PSNR than the best baseline, {name}."
    )
    return [verdict, *contrast(differences, f"the baseline {name}")]
