"""Samplers of one model against each other: the same masks, noise and number of evaluations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.evaluation.comparison import Contestant, paired_differences
from sparsefield.evaluation.protocol import Protocol, evaluate_mean, evaluate_samples
from sparsefield.evaluation.report import code_version, summarise
from sparsefield.inference.model import Model
from sparsefield.samplers import build_sampler, steps_within


def compare_samplers(
    model: Model,
    fields: FieldDataset,
    protocol: Protocol,
    samplers: Sequence[str],
    budgets: Sequence[int],
    draws: int,
    announce: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Score the draws of several samplers at several budgets of network evaluations.

    Args:
        model: The model.
        fields: Fields with the true values.
        protocol: Masks and seeds.
        samplers: Names with settings, as `build_sampler` takes them; the others are compared with
            the first, at equal budget and field by field.
        budgets: Evaluations per draw; each sampler takes as many steps as that allows.
        draws: Draws S per field, at least 2.
        announce: Called with what is measured next.

    Returns:
        The setting, the scores of the mean, and `rows`: sampler, budget, steps, nfe, seconds,
        scores with intervals, and `differences` from the first sampler as in
        `paired_differences`.

    Raises:
        InputError: A sampler is unknown, occurs twice, or there are fewer than two draws.
    """
    if draws < 2:
        raise InputError(f"scores of draws need at least 2 of them, not {draws}")
    if len(set(samplers)) < len(samplers):
        raise InputError(f"a sampler occurs twice: {', '.join(samplers)}")
    plan = {budget: {name: steps_within(name, budget) for name in samplers} for budget in budgets}
    for budget, steps in plan.items():
        for name, count in steps.items():
            if count < 1:
                raise InputError(f"{name} takes no step within {budget} evaluations")
            build_sampler(name, count)
    announce("mean")
    mean, seconds = evaluate_mean(model, fields, protocol)
    rows = []
    for budget, steps in plan.items():
        entries = {}
        for name, count in steps.items():
            announce(f"{name}, {budget} evaluations")
            entries[name] = _draw(model, fields, protocol, name, count, draws)
        differences = paired_differences(entries, samplers[0])
        rows += [
            {
                "sampler": name,
                "budget": budget,
                "steps": steps[name],
                "nfe": entry.nfe,
                "seconds": entry.seconds,
                **summarise(entry.samples),
                "differences": differences.get(name, {}),
            }
            for name, entry in entries.items()
        ]
    return {
        "model": model.name,
        "data": fields.name,
        "n": len(fields),
        "density": protocol.density,
        "split": protocol.split,
        "seed": protocol.seed,
        "device": str(model.device),
        "commit": code_version(),
        "draws": draws,
        "mean": summarise(mean) | {"seconds": seconds},
        "rows": rows,
    }


def best_sampler(report: Mapping[str, Any]) -> str:
    """Return the sampler, with its evaluations, of least CRPS."""
    best = min(report["rows"], key=lambda row: row["crps"])
    return f"{best['sampler']} with {best['nfe']} evaluations"


def _draw(
    model: Model, fields: FieldDataset, protocol: Protocol, name: str, steps: int, draws: int
) -> Contestant:
    scores, seconds, nfe = evaluate_samples(model, fields, protocol, draws, name, steps)
    return Contestant("sampler", name, samples=scores, seconds=seconds, nfe=nfe)
