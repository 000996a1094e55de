"""What is published of models and baselines: one beside its baselines, or several compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparsefield.evaluation.differences import (
    CORRECTION,
    LEVEL,
    Differences,
    contrast,
    paired_differences,
)
from sparsefield.evaluation.methods import Method, MethodReport
from sparsefield.evaluation.report import Head, Summary, summarise
from sparsefield.evaluation.run import Result
from sparsefield.evaluation.serialise import BASELINES, INLINE


@dataclass(frozen=True)
class Evaluation:
    """A model beside its baselines, or baselines alone.

    Attributes:
        head: What was measured.
        nfe: Network evaluations per item, all samples together; 0 for baselines.
        seconds: Time that the model took, or the baselines where they are alone.
        mean: Scores of the posterior mean.
        samples: Scores of the samples.
        baselines: Scores of each baseline.
    """

    head: Head = field(metadata=INLINE)
    nfe: int
    seconds: float
    mean: Summary | None = None
    samples: Summary | None = None
    baselines: dict[str, Summary] | None = field(default=None, metadata=BASELINES)


def evaluation(head: Head, method: Method | None, baselines: Mapping[str, Result]) -> Evaluation:
    """Return the report of a model, None for baselines alone, and of its baselines."""
    summaries = {
        name: summarise(each.scores, seconds=each.seconds, notes=each.notes)
        for name, each in baselines.items()
    }
    if method is None:
        seconds = sum(result.seconds for result in baselines.values())
        return Evaluation(head, 0, seconds, baselines=summaries or None)
    report = method.report()
    parts = (report.mean, report.samples, summaries or None)
    return Evaluation(head, method.nfe, method.seconds, *parts)


def best_baseline(model: str, mean: Summary | None, baselines: Mapping[str, Summary]) -> str:
    """Say whether a baseline has a higher PSNR than the model; empty without both."""
    if mean is None or not baselines:
        return ""
    psnr = {name: baseline["psnr"].value for name, baseline in baselines.items()}
    best = max(psnr, key=lambda name: psnr[name])
    lead = mean["psnr"].value - psnr[best]
    if lead > 0:
        return f"{model} beats every baseline; the best one, {best}, by {lead:.2f} dB PSNR."
    winners = [name for name in psnr if psnr[name] >= mean["psnr"].value]
    if len(winners) > 1:
        return f"{', '.join(winners)} win over {model} on PSNR; {best} by {-lead:.2f} dB."
    return f"{best} wins over {model} on PSNR, by {-lead:.2f} dB."


@dataclass(frozen=True)
class AgainstBaseline:
    """Models against the best baseline.

    Attributes:
        name: Which baseline that is.
        differences: Differences of the models from it.
    """

    name: str
    differences: dict[str, Differences]


@dataclass(frozen=True)
class Comparison:
    """Methods on the same items, masks and noise.

    Attributes:
        head: What was measured.
        reference: Method that the others are compared with.
        level: Confidence of intervals.
        comparisons: Number of methods compared with the reference.
        correction: How p-values are corrected.
        ranking: Labels of the methods, best PSNR first.
        methods: Scores of each method by its label.
        differences: Differences from the reference.
        baseline: Differences of the models from the best baseline.
    """

    head: Head = field(metadata=INLINE)
    reference: str
    level: float
    comparisons: int
    correction: str
    ranking: list[str]
    methods: dict[str, MethodReport] = field(metadata={"key": "contestants"})
    differences: dict[str, Differences]
    baseline: AgainstBaseline | None = field(default=None, metadata={"also": "floor"})

    def is_baseline(self, name: str) -> bool:
        """Tell whether a method is a baseline."""
        return self.methods[name].kind == "baseline"

    def summary(self) -> list[str]:
        """Say who leads on PSNR, who differs from the reference, and what baselines do."""
        first = self.ranking[0]
        kind = ", a baseline," if self.is_baseline(first) else ""
        sentences = [f"{first}{kind} has the highest PSNR, {self._psnr(first):.2f} dB."]
        sentences += contrast(self.differences, self.reference)
        return sentences + (self._baseline_summary(self.baseline) if self.baseline else [])

    def _psnr(self, name: str) -> float:
        mean = self.methods[name].mean
        assert mean is not None, "every method has a mean"
        return mean["psnr"].value

    def _baseline_summary(self, against: AgainstBaseline) -> list[str]:
        """Say whether the best baseline wins over any model, and what is significant of it."""
        leads = {name: entry.get("psnr") for name, entry in against.differences.items()}
        losers = [name for name, lead in leads.items() if lead is None or lead.value <= 0]
        first = (
            f"The best baseline, {against.name}, wins over {', '.join(losers)} on PSNR."
            if losers
            else f"Every model has a higher PSNR than the best baseline, {against.name}."
        )
        return [first, *contrast(against.differences, f"the baseline {against.name}")]


def compare(head: Head, methods: Mapping[str, Method], reference: str) -> Comparison:
    """Return the report: scores, ranking, differences from reference and best baseline."""
    reports = {name: method.report() for name, method in methods.items()}
    scores = {name: method.scores() for name, method in methods.items()}
    psnr = {name: float(method.mean["psnr"].mean()) for name, method in methods.items()}
    ranking = sorted(reports, key=lambda name: -psnr[name])
    models = {name: scores[name] for name, method in methods.items() if method.kind == "model"}
    baselines = [name for name in ranking if name not in models]
    against = None
    if baselines and models:
        rivals = models | {baselines[0]: scores[baselines[0]]}
        against = AgainstBaseline(baselines[0], paired_differences(rivals, baselines[0]))
    return Comparison(
        head,
        reference,
        LEVEL,
        len(reports) - 1,
        CORRECTION,
        ranking,
        reports,
        differences=paired_differences(scores, reference),
        baseline=against,
    )
