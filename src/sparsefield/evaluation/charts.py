"""Figures of what was evaluated: results and tasks turned into the arrays that figures know."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.words import counted
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.masks import Target, target_indices
from sparsefield.evaluation.calibration import LEVELS
from sparsefield.evaluation.comparison import Comparison, Evaluation
from sparsefield.evaluation.predictors import (
    Baseline,
    ModelMean,
    ModelSamples,
    Predictor,
    SamplingConfig,
)
from sparsefield.evaluation.report import Summary
from sparsefield.evaluation.samplers import SamplerComparison, SamplerRow
from sparsefield.evaluation.superres import (
    BICUBIC,
    BICUBIC_CONSISTENT,
    Enlargement,
    SuperresReport,
    enlarged,
)
from sparsefield.evaluation.task import Protocol, Task, make_task
from sparsefield.figures.calibration import Ensemble, Reliability, plot_calibration
from sparsefield.figures.comparison import (
    BASELINE,
    MODEL,
    REFERENCE,
    Bar,
    Chart,
    plot_errors,
    plot_scores,
)
from sparsefield.figures.panels import Scene, lay_out, save_figure
from sparsefield.figures.samplers import Curve, TradeOff, plot_trade_off
from sparsefield.figures.superres import Spectra, plot_superres
from sparsefield.figures.training import plot_training
from sparsefield.inference.model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINING_ROWS = 4
# Score -> title, digits, whether bars start at 0.
MEAN_CHARTS = {
    "psnr": ("PSNR of the mean, dB (higher is better)", 2, False),
    "ssim": ("SSIM of the mean (higher is better)", 3, False),
    "speckle": ("high-frequency residual of the mean (lower is better)", 5, True),
}
SAMPLE_CHARTS = {
    "psnr": ("PSNR of one sample, dB (higher is better)", 2, False),
    "crps": ("CRPS (lower is better)", 4, True),
    "speckle": ("high-frequency residual of one sample (lower is better)", 5, True),
}
TRADE_OFFS = {"psnr": "PSNR, dB", "crps": "CRPS", "speckle": "high-frequency residual energy"}
# What the average of all samples scores, at the cost of all.
OF_THE_AVERAGE = {"psnr": "psnr_average", "speckle": "speckle_average"}
# What the mean scores, as a sample without variance, where a sample has this score.
OF_THE_MEAN = {"psnr": "psnr", "crps": "mae", "speckle": "speckle"}
# Score -> what captions call it, digits.
CAPTIONS = {
    "delta_cal": ("variance / error²", 2),
    "spread_skill": ("spread / skill", 2),
    "gap_db": ("sample above mean, dB", 2),
    "crps": ("CRPS", 4),
}
METHODS = {
    "mean": "model",
    BICUBIC: "model 32, bicubic",
    BICUBIC_CONSISTENT: "the same, data-consistent",
}


def scene(task: Task) -> Scene:
    """Return a task as figures know it."""
    return Scene(task.shape, task.items, task.truth, ~task.missing, task.value_range)


def save_training_figure(
    model: Model, fields: FieldDataset, protocol: Protocol, *, target: Target, path: Path
) -> None:
    """Write the figure of a model in training.

    Args:
        model: The model.
        fields: Validation items.
        protocol: What is observed of them.
        target: Which points are supervised, see `target_indices`.
        path: Where to write the PNG.

    Raises:
        InputError: The file cannot be written, or matplotlib is not installed.
    """
    task = make_task(fields, protocol, range(min(TRAINING_ROWS, len(fields))))
    targets = torch.zeros_like(task.missing)
    for item in task.items:
        key = (fields.points, protocol.density, protocol.seed, protocol.split, item)
        targets[item, torch.from_numpy(target_indices(*key, target))] = True
    save_figure(plot_training(scene(task), targets, ModelMean(model)(task).mean), path)


def score_figure(report: Comparison) -> "Figure":
    """Return charts of the scores of a comparison, with their 95 % intervals."""
    means = {name: report.methods[name].mean for name in report.ranking}
    samples = {name: report.methods[name].samples for name in report.ranking}
    labels = {name: _mark(report, name) for name in report.ranking}
    colours = {name: _colour(report, name) for name in report.ranking}
    head = report.head
    title = (
        f"{head.data}, {counted(head.n, 'field')}, {head.density:.0%} observed; "
        f"95 % intervals over fields\n"
        f"red: the reference, {report.reference}; * another PSNR than it "
        f"(paired, 5 % over {counted(report.comparisons, 'comparison')}); grey: baselines"
    )
    charts = _charts(MEAN_CHARTS, means, labels, colours)
    return plot_scores(charts + _charts(SAMPLE_CHARTS, samples, labels, colours), title)


def _charts(
    kinds: Mapping[str, tuple[str, int, bool]],
    summaries: Mapping[str, Summary | None],
    labels: Mapping[str, str],
    colours: Mapping[str, str],
) -> list[Chart]:
    """Return a chart per score that any method has."""
    known = {name: summary for name, summary in summaries.items() if summary is not None}
    charts = []
    for score, (title, digits, from_zero) in kinds.items():
        bars = [_bar(labels[n], known[n], score, colours[n]) for n in known]
        if any(np.isfinite(bar.value) for bar in bars):
            charts.append(Chart(title, digits, bars, from_zero))
    return charts


def _bar(label: str, summary: Summary, score: str, colour: str) -> Bar:
    found = summary.get(score)
    return Bar(label) if found is None else Bar(label, found.value, found.interval, colour)


def _colour(report: Comparison, name: str) -> str:
    if name == report.reference:
        return REFERENCE
    return BASELINE if report.is_baseline(name) else MODEL


def _mark(report: Comparison, name: str) -> str:
    entry = report.differences.get(name)
    return f"{name} *" if entry and entry.significant else name


def mean_figure(
    task: Task, models: Mapping[str, Model], baseline: str | None, fields: FieldDataset
) -> "Figure":
    """Return a figure of posterior means, of a baseline, and of their errors."""
    predictors: dict[str, Predictor] = {name: ModelMean(model) for name, model in models.items()}
    if baseline:
        predictors[baseline] = Baseline(baseline, fields.normalizer)
    means = {name: predict(task).mean for name, predict in predictors.items()}
    return plot_errors(scene(task), means, "Posterior means and their errors")


def sample_figure(task: Task, models: Mapping[str, Model], config: SamplingConfig) -> "Figure":
    """Return a figure of one posterior sample of each model, and of its error."""
    samples = {name: ModelSamples(m, config).sample(task, 0)[0] for name, m in models.items()}
    return plot_errors(scene(task), samples, "One sample each, and its error")


def calibration_figure(report: Evaluation) -> "Figure":
    """Return the figure of calibration.

    Raises:
        InputError: There are no samples or no unobserved points, or matplotlib is not installed.
    """
    samples = report.samples
    if samples is None or samples.calibration is None or not samples.calibration.averages:
        raise InputError("calibration is that of samples at unobserved points; there are none")
    baselines = {
        name: _reliability(baseline)
        for name, baseline in (report.baselines or {}).items()
        if baseline.calibration is not None
    }
    title = _calibration_title(report, samples)
    return plot_calibration(_reliability(samples), _ensemble(samples), baselines, title=title)


def _reliability(summary: Summary) -> Reliability:
    assert summary.calibration is not None, "callers have checked"
    rows = summary.calibration.by_distance
    levels = [summary.levels.get(f"{name}_level", level) for name, level in LEVELS.items()]
    return Reliability(
        np.array(levels),
        np.array([summary[name].value for name in LEVELS]),
        np.array([row.distance for row in rows]),
        rmse=np.array([row.rmse for row in rows]),
        std=np.array([row.std for row in rows]),
    )


def _ensemble(summary: Summary) -> Ensemble:
    tables = summary.calibration
    assert tables is not None and tables.averages is not None and tables.ranks is not None
    return Ensemble(
        tables.ranks,
        np.array([summary[name].interval for name in LEVELS]),
        np.array([row.samples for row in tables.averages]),
        ratios=np.array([row.ratio.value for row in tables.averages]),
        ratio_intervals=np.array([row.ratio.interval for row in tables.averages]),
    )


def _calibration_title(report: Evaluation, samples: Summary) -> str:
    how, head = samples.sampling, report.head
    assert how is not None, "samples say how they were made"
    scores = []
    for name, (title, digits) in CAPTIONS.items():
        scores.append(f"{title} {samples[name].text(f'.{digits}f')}")
    return (
        f"{head.model}: {how.samples} samples ({how.sampler}, {how.steps} "
        f"steps) of {counted(head.n, 'field')} of {head.data}, {head.density:.0%} observed\n"
        f"{', '.join(scores)}"
    )


def trade_off_figure(report: SamplerComparison) -> "Figure":
    """Return charts of PSNR, CRPS and high-frequency residual energy against evaluations."""
    head = report.head
    panels = [_trade_off(report, score, title) for score, title in TRADE_OFFS.items()]
    title = (
        f"{head.model} on {head.data}: {counted(head.n, 'field')}, "
        f"{counted(report.samples, 'sample')}, "
        f"{head.density:.0%} observed; 95 % intervals; rings: the average of all samples"
    )
    return plot_trade_off(panels, title)


def _trade_off(report: SamplerComparison, score: str, title: str) -> TradeOff:
    names = dict.fromkeys(row.sampler for row in report.rows)
    curves = [_curve(report, score, name) for name in names]
    budgets = {row.budget for row in report.rows}
    dearest = {report.samples * max(budgets)} if score in OF_THE_AVERAGE else set()
    mean = report.mean.get(OF_THE_MEAN[score])
    ticks = sorted({1} | budgets | dearest)
    return TradeOff(title, curves, None if mean is None else mean.value, ticks)


def _curve(report: SamplerComparison, score: str, sampler: str) -> Curve:
    rows = [row for row in report.rows if row.sampler == sampler and score in row.scores]
    nfe, found = [row.nfe for row in rows], [row.scores[score] for row in rows]
    values, intervals = [each.value for each in found], [each.interval for each in found]
    average = OF_THE_AVERAGE.get(score, "")
    if not rows or average not in rows[0].scores:
        return Curve(sampler, nfe, values, intervals)
    costs = [report.samples * count for count in nfe]
    averages = [row.scores[average].value for row in rows]
    return Curve(sampler, nfe, values, intervals, costs, averages)


def sampler_figure(report: SamplerComparison) -> "Figure":
    """Return bars of the scores of samplers at one budget, with their intervals."""
    ranked = sorted(report.rows, key=lambda row: row.scores["crps"].value)
    summaries = {row.sampler: row.scores for row in ranked}
    first = report.rows[0].sampler
    labels = {row.sampler: _sampler_mark(row) for row in ranked}
    colours = {name: REFERENCE if name == first else MODEL for name in summaries}
    head = report.head
    title = (
        f"{head.data}, {counted(head.n, 'field')}, {head.density:.0%} observed; "
        f"95 % intervals over fields\n"
        f"red: the reference, {first}; * another PSNR than it "
        f"(paired, 5 % over {counted(len(ranked) - 1, 'comparison')})"
    )
    return plot_scores(_charts(SAMPLE_CHARTS, summaries, labels, colours), title)


def _sampler_mark(row: SamplerRow) -> str:
    marked = row.differences is not None and row.differences.significant
    return f"{row.sampler} *" if marked else row.sampler


def superres_figure(
    model: Model,
    enlargement: Enlargement,
    report: SuperresReport,
    *,
    items: Sequence[int],
    baselines: Sequence[str],
    chunk: int | None = None,
) -> "Figure":
    """Return a figure of some items at one size, and of the spectra at all sizes.

    Args:
        model: The model.
        enlargement: Items and what is observed of them.
        report: Scores at all sizes.
        items: Numbers of the items to show.
        baselines: Baselines to show.
        chunk: Points of the mean computed at a time.
    """
    task, fine = enlargement.task(items), enlargement.fine
    predictors: dict[str, Predictor] = {
        name: Baseline(name, fine.normalizer) for name in baselines
    }
    predictors |= {BICUBIC: enlarged(model, enlargement)[BICUBIC], "mean": ModelMean(model, chunk)}
    shown = {name: _pictures(predict(task).mean, task) for name, predict in predictors.items()}
    head = report.head
    return plot_superres(
        scene(task),
        [_observed(enlargement, item) for item in items],
        {METHODS.get(name, name): pictures for name, pictures in shown.items()},
        spectra=[_spectra(size, part.spectrum) for size, part in report.sizes.items()],
        side=enlargement.side,
        title=(
            f"{head.model}: {fine.name} at {enlargement.size} x {enlargement.size} from "
            f"{head.density:.0%} of {enlargement.side} x {enlargement.side} cells"
        ),
    )


def _pictures(values: Tensor, task: Task) -> list[np.ndarray]:
    return [lay_out(each, task.shape) for each in values]


def _spectra(size: int, rings: Mapping[str, np.ndarray]) -> Spectra:
    return Spectra(size, {METHODS.get(name, name): ring for name, ring in rings.items()})


def _observed(enlargement: Enlargement, item: int) -> np.ndarray:
    """Return the observed coarse cells of an item at the size of the fine ones."""
    picture = scene(enlargement.coarse_task([item])).observed_picture(0)
    times = enlargement.size // enlargement.side
    return picture.repeat(times, axis=0).repeat(times, axis=1)
