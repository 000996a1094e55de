"""Samplers of one model against each other: the same masks, noise and number of evaluations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.evaluation.differences import Differences, paired_differences
from sparsefield.evaluation.methods import evaluate_mean, evaluate_samples
from sparsefield.evaluation.predictors import SamplingConfig
from sparsefield.evaluation.report import Head, Summary, head, summarise
from sparsefield.evaluation.run import Result
from sparsefield.evaluation.serialise import INLINE
from sparsefield.evaluation.task import Protocol
from sparsefield.inference.model import Model
from sparsefield.samplers import build_sampler, steps_within


@dataclass(frozen=True)
class SamplerRow:
    """Scores of a sampler at one budget.

    Attributes:
        sampler: Its name and settings.
        budget: Network evaluations that a sample may take.
        steps: Steps that it takes.
        nfe: Network evaluations that a sample takes.
        seconds: Time that all samples took.
        scores: Its scores.
        differences: Differences from the first sampler at the same budget, which has none.
    """

    sampler: str
    budget: int
    steps: int
    nfe: int
    seconds: float
    scores: Summary = field(metadata=INLINE)
    differences: Differences | None = field(metadata={"none": {}})


@dataclass(frozen=True)
class SamplerComparison:
    """Samplers of one model at equal budgets.

    Attributes:
        head: What was measured.
        samples: Samples per item.
        mean: Scores of the posterior mean.
        rows: Samplers at budgets.
    """

    head: Head = field(metadata=INLINE)
    samples: int = field(metadata={"key": "draws"})
    mean: Summary
    rows: list[SamplerRow]

    def best(self) -> SamplerRow:
        """Return the sampler of least CRPS."""
        return min(self.rows, key=lambda row: row.scores["crps"].value)


def compare_samplers(
    model: Model,
    fields: FieldDataset,
    protocol: Protocol,
    *,
    plan: Mapping[int, Mapping[str, int]],
    samples: int,
    announce: Callable[[str], None] = lambda what: None,
) -> SamplerComparison:
    """Score the samples of several samplers at several budgets of network evaluations.

    Args:
        model: The model.
        fields: Items with the true values.
        protocol: Masks and seeds.
        plan: What `plan_budgets` returned.
        samples: Samples S per item, at least 2.
        announce: Called with what is measured next.

    Raises:
        InputError: There are fewer than two samples.
    """
    if samples < 2:
        raise InputError(f"scores of samples need at least 2 of them, not {samples}")
    announce("mean")
    mean = evaluate_mean(model, fields, protocol)
    rows: list[SamplerRow] = []
    for budget, steps in plan.items():
        results = {}
        for name, count in steps.items():
            announce(f"{name}, {budget} evaluations")
            config = SamplingConfig(samples, name, count)
            results[name] = evaluate_samples(model, fields, protocol, config=config)
        rows += _rows(budget, steps, results, samples)
    summary = summarise(mean.scores, seconds=mean.seconds)
    return SamplerComparison(
        head(fields, protocol, model.device, model=model.name), samples, summary, rows
    )


def plan_budgets(samplers: Sequence[str], budgets: Sequence[int]) -> dict[int, dict[str, int]]:
    """Return the steps that each sampler takes within each budget of network evaluations.

    Args:
        samplers: Names with settings, as `build_sampler` takes them; the others are compared with
            the first, at equal budget and item by item.
        budgets: Evaluations per sample; each sampler takes as many steps as that allows.

    Raises:
        InputError: A sampler is unknown, occurs twice, or takes no step within a budget.
    """
    if len(set(samplers)) < len(samplers):
        raise InputError(f"a sampler occurs twice: {', '.join(samplers)}")
    plan = {budget: {name: steps_within(name, budget) for name in samplers} for budget in budgets}
    for budget, steps in plan.items():
        for name, count in steps.items():
            if count < 1:
                raise InputError(f"{name} takes no step within {budget} evaluations")
            build_sampler(name, count)
    return plan


def _rows(
    budget: int, steps: Mapping[str, int], results: Mapping[str, Result], samples: int
) -> list[SamplerRow]:
    """Return the rows of a budget, compared with its first sampler."""
    reference = next(iter(steps))
    numbers = {
        name: {score: x for score, x in result.scores.items() if x.ndim == 1}
        for name, result in results.items()
    }
    differences = paired_differences(numbers, reference)
    return [
        SamplerRow(
            name,
            budget,
            steps=steps[name],
            nfe=result.nfe // samples,
            seconds=result.seconds,
            scores=summarise(result.scores),
            differences=differences.get(name),
        )
        for name, result in results.items()
    ]
