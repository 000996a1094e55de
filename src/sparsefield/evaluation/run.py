"""The one evaluation loop: tasks, predictors, scorers."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sparsefield.baselines.parallel import share_out
from sparsefield.evaluation.predictors import Predictor
from sparsefield.evaluation.scorers import Scorer, Scores
from sparsefield.evaluation.task import Tasks


@dataclass(frozen=True)
class Result:
    """What a method was measured to be.

    Attributes:
        scores: Scores of the N items.
        seconds: Time that its predictions took.
        nfe: Network evaluations per item.
        notes: What was done to items that the method cannot take as they are, and to how many.
    """

    scores: Scores
    seconds: float = 0.0
    nfe: int = 0
    notes: Counter[str] = field(default_factory=Counter)


def run(
    tasks: Tasks,
    predictors: Mapping[str, Predictor],
    scorers: Sequence[Scorer],
    *,
    progress: Callable[[int], None] = lambda count: None,
    processes: int | None = 1,
    each: int | None = None,
) -> dict[str, Result]:
    """Predict and score all tasks with all predictors.

    The scores of an item depend neither on its batch nor on the number of processes.

    Args:
        tasks: What is observed and asked for.
        predictors: Methods by name.
        scorers: What judges them; the scores of all are put together.
        progress: Called with the number of items done after each part.
        processes: Worker processes; one per core if None.
        each: Items of a part, which a process does at a time; those of a task by default.

    Returns:
        Scores of the N items by the name of the predictor.
    """
    work = partial(_run_part, tasks, predictors, scorers)
    step = each or tasks.batch_size
    parts = [range(tasks.count)[start : start + step] for start in range(0, tasks.count, step)]
    done = {}
    for part, results in share_out(work, parts, processes):
        done[part.start] = results
        progress(len(part))
    return {name: _join([done[part.start][name] for part in parts]) for name in predictors}


def _run_part(
    tasks: Tasks, predictors: Mapping[str, Predictor], scorers: Sequence[Scorer], items: range
) -> dict[str, Result]:
    results: dict[str, list[Result]] = {name: [] for name in predictors}
    for task in tasks.of(items):
        for name, predict in predictors.items():
            start = time.perf_counter()
            prediction = predict(task)
            seconds = time.perf_counter() - start
            scores = {k: v for score in scorers for k, v in score(prediction, task).items()}
            notes = Counter(prediction.notes)
            results[name].append(Result(scores, seconds, prediction.nfe, notes))
    return {name: _join(parts) for name, parts in results.items()}


def _join(parts: Sequence[Result]) -> Result:
    """Put the results of successive items together."""
    scores = join_scores([part.scores for part in parts])
    notes = sum((part.notes for part in parts), Counter[str]())
    return Result(scores, sum(part.seconds for part in parts), parts[0].nfe, notes)


def join_scores(parts: Sequence[Scores]) -> Scores:
    """Concatenate the scores of successive items."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
