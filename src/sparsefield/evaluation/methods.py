"""Methods and their scores: models with and without samples, classical baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparsefield.baselines.registry import BASELINES
from sparsefield.core.errors import InputError, unknown_name
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.scattered import ScatteredDataset
from sparsefield.evaluation.calibration import FORECAST
from sparsefield.evaluation.predictors import Baseline, ModelMean, ModelSamples, SamplingConfig
from sparsefield.evaluation.report import Sampling, Summary, sampling, summarise
from sparsefield.evaluation.run import Result, run
from sparsefield.evaluation.scorers import Scores, score_forecast, score_mean, score_samples
from sparsefield.evaluation.task import Protocol, grid_tasks
from sparsefield.inference.model import Model

Progress = Callable[[int], None]
# A worker process takes some seconds to start: fewer items are faster without.
ITEMS_PER_PART = 25


@dataclass
class Method:
    """A model or a baseline, and its scores on every item.

    Attributes:
        kind: "model" or "baseline".
        model: Backbone of the model, or name of the baseline.
        checkpoint: What the model was loaded from; None for a baseline.
        parameters: Number of trainable weights; None for a baseline.
        mean: Scores (N,) of the posterior mean, or of the baseline.
        samples: Scores of the samples on the items that were sampled; a baseline that is
            probabilistic has those of its forecasts.
        sampling: How the samples were made.
        seconds: Time that it took.
        nfe: Network evaluations per item, all samples together.
        notes: What was done to items that the method cannot take as they are, and to how many.
    """

    kind: str
    model: str
    checkpoint: str | None = None
    parameters: int | None = None
    mean: Scores = field(default_factory=dict)
    samples: Scores = field(default_factory=dict)
    sampling: Sampling | None = None
    seconds: float = 0.0
    nfe: int = 0
    notes: dict[str, int] = field(default_factory=dict)

    def scores(self) -> Scores:
        """Return scores (N,) by name; those of samples that the mean has too as `sample_NAME`."""
        return self.mean | {
            f"sample_{name}" if name in self.mean else name: values
            for name, values in self.samples.items()
            if values.ndim == 1
        }

    def report(self) -> "MethodReport":
        """Return the scores over all items; what does not exist is left out."""
        return MethodReport(
            self.kind,
            self.model,
            checkpoint=self.checkpoint,
            parameters=self.parameters,
            mean=summarise(self.mean, notes=self.notes) if self.mean else None,
            samples=summarise(self.samples, self.sampling) if self.samples else None,
            seconds=self.seconds,
            nfe=self.nfe,
        )


@dataclass(frozen=True)
class MethodReport:
    """What is published of a `Method`; attributes as there, scores over all items."""

    kind: str
    model: str
    checkpoint: str | None
    parameters: int | None
    mean: Summary | None
    samples: Summary | None
    seconds: float
    nfe: int


def evaluate_mean(
    model: Model,
    fields: FieldDataset | ScatteredDataset,
    protocol: Protocol,
    progress: Progress = lambda count: None,
    *,
    items: range | None = None,
) -> Result:
    """Score the posterior mean of a model on every item.

    Args:
        model: Model to evaluate.
        fields: Items with the true values.
        protocol: Masks and seeds.
        progress: Called with the number of items done after each batch.
        items: Score these items only.
    """
    tasks = grid_tasks(fields, protocol)
    tasks = tasks if items is None else tasks.part(items)
    return run(tasks, {"mean": ModelMean(model)}, [score_mean], progress=progress)["mean"]


def evaluate_samples(
    model: Model,
    fields: FieldDataset,
    protocol: Protocol,
    *,
    config: SamplingConfig,
    progress: Progress = lambda count: None,
) -> Result:
    """Score posterior samples of a model, on the items that are to be sampled.

    Args:
        model: Model to evaluate.
        fields: Items with the true values.
        protocol: Masks and seeds.
        config: How samples are made, at least 2 per item.
        progress: Called with the number of items done after each batch.
    """
    tasks = grid_tasks(fields, protocol, config.limit)
    predictors = {"samples": ModelSamples(model, config)}
    return run(tasks, predictors, [score_samples], progress=progress)["samples"]


def evaluate_baselines(
    fields: FieldDataset,
    protocol: Protocol,
    names: Sequence[str],
    *,
    progress: Progress = lambda count: None,
    processes: int | None = None,
) -> dict[str, Result]:
    """Score baselines on every item.

    Args:
        fields: Items with the true values.
        protocol: Masks and seeds.
        names: Keys of BASELINES.
        progress: Called with the number of items done after each part.
        processes: Worker processes; one per core by default.

    Returns:
        By name the scores of `score_field` and, for one that gives a standard deviation, FORECAST.
    """
    return run(
        grid_tasks(fields, protocol, batch_size=1),
        {name: Baseline(name, fields.normalizer) for name in names},
        [score_mean, score_forecast],
        progress=progress,
        processes=processes,
        each=ITEMS_PER_PART,
    )


def measure_model(
    model: Model,
    fields: FieldDataset,
    protocol: Protocol,
    *,
    config: SamplingConfig,
    progress: Progress = lambda count: None,
) -> Method:
    """Score a model's posterior mean, and its samples if there are any.

    Args:
        model: The model.
        fields: Items with the true values.
        protocol: Masks and seeds.
        config: How samples are made.
        progress: Called with the number of items done, once for the mean, once for the samples.
    """
    mean = evaluate_mean(model, fields, protocol, progress)
    method = Method("model", model.spec.model, model.name, model.parameters, mean.scores)
    method.seconds, method.nfe = mean.seconds, mean.nfe
    if config.samples:
        found = evaluate_samples(model, fields, protocol, config=config, progress=progress)
        method.samples = found.scores
        method.sampling = sampling(config, len(fields), found.nfe)
        method.seconds += found.seconds
        method.nfe += found.nfe
    return method


def measure_baselines(
    fields: FieldDataset,
    protocol: Protocol,
    names: Sequence[str],
    *,
    config: SamplingConfig,
    progress: Progress = lambda count: None,
) -> dict[str, Method]:
    """Score baselines; the forecasts of probabilistic ones on the items that models sample.

    Args:
        fields: Items with the true values.
        protocol: Masks and seeds.
        names: Keys of BASELINES.
        config: How samples of the models are made.
        progress: Called with the number of items done.
    """
    results = evaluate_baselines(fields, protocol, names, progress=progress)
    sampled = config.count(len(fields))
    return {name: _baseline(name, result, sampled) for name, result in results.items()}


def _baseline(name: str, result: Result, sampled: int) -> Method:
    mean = {score: x for score, x in result.scores.items() if score not in FORECAST}
    forecast = {score: x[:sampled] for score, x in result.scores.items() if score in FORECAST}
    method = Method("baseline", name, mean=mean, seconds=result.seconds, notes=result.notes)
    if forecast and sampled:
        method.samples, method.sampling = forecast, Sampling(sampled)
    return method


def name_methods(arguments: Sequence[str]) -> dict[str, str]:
    """Return checkpoints by label, from `label=checkpoint` or a checkpoint alone.

    A run folder without a label is called by its name, anything else as it was given.

    Raises:
        InputError: Two methods have one label, or one has that of a baseline.
    """
    named: dict[str, str] = {}
    for argument in arguments:
        label, checkpoint = _split_label(argument)
        if label in named:
            raise InputError(
                f"two methods are called '{label}'; tell them apart by LABEL={checkpoint}"
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


def choose_reference(name: str | None, methods: Sequence[str]) -> str:
    """Return the method that the others are compared with, the first one by default.

    Raises:
        InputError: There is none of that name, or none to compare it with.
    """
    if len(methods) < 2:
        raise InputError("a comparison needs at least two methods: models or --baselines")
    if name is not None and name not in methods:
        raise unknown_name("method", name, list(methods))
    return name or methods[0]
