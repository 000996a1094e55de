"""The baselines under the evaluation protocol, on all cores."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sparsefield import metrics
from sparsefield.baselines.interpolators import (
    BASELINES,
    Prediction,
    available_baselines,
    reconstruct_baseline,
)
from sparsefield.core.errors import InputError, unknown_name
from sparsefield.data.dataset import FieldDataset
from sparsefield.evaluation.calibration import calibrate_gaussian, distance_in_cells
from sparsefield.evaluation.protocol import (
    Protocol,
    Scores,
    Task,
    data_range,
    join,
    make_task,
    score,
)

# A worker process takes some seconds to start: fewer fields are faster without.
FIELDS_PER_PART = 25


def choose_baselines(names: str, dims: int) -> list[str]:
    """Return the baselines that "all", "none" or a list "tps,kriging" stands for.

    Args:
        names: What the user asked for.
        dims: Number of coordinate dimensions P.

    Raises:
        InputError: A name is unknown or cannot run here.
    """
    if names == "none":
        return []
    if names == "all":
        return available_baselines(dims)
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in BASELINES:
            raise unknown_name("baseline", name, [*BASELINES, "all", "none"])
        if name not in available_baselines(dims):
            raise InputError(
                f"{name} cannot run here: it works in {BASELINES[name].dims} dimensions"
                f" and needs {BASELINES[name].requires or 'nothing else'}"
            )
    return chosen


def evaluate_baselines(
    fields: FieldDataset,
    protocol: Protocol,
    names: Sequence[str],
    progress: Callable[[int], None] = lambda count: None,
    processes: int | None = None,
) -> dict[str, Scores]:
    """Score baselines on every field; the result does not depend on the number of processes.

    Args:
        fields: Fields with the true values.
        protocol: Masks and seeds.
        names: Keys of BASELINES.
        progress: Called with the number of fields done after each part.
        processes: Worker processes; one per core by default.

    Returns:
        Scores of the N fields of each baseline: those of `score`, `seconds`, and for one that
        gives a standard deviation `FORECAST`: `crps` and those of `calibrate_gaussian`.
    """
    work = partial(_evaluate_part, fields, protocol, tuple(names))
    return run_parts(work, len(fields), names, progress, processes)


def run_parts(
    work: "_Work",
    fields: int,
    names: Sequence[str],
    progress: Callable[[int], None],
    processes: int | None = None,
    each: int = FIELDS_PER_PART,
) -> dict[str, Scores]:
    """Return the scores of each baseline by name, some fields at a time in worker processes.

    Args:
        work: Returns the scores (n,) of each baseline on a range of n fields; picklable.
        fields: Number of fields N.
        names: Keys of what it returns.
        progress: Called with the number of fields done after each part.
        processes: Worker processes; one per core by default.
        each: Fields of a part.
    """
    starts = range(0, fields, each)
    parts = [range(fields)[start : start + each] for start in starts]
    count = min(processes or os.cpu_count() or 1, len(parts))
    done = {}
    for part, scores in _share_out(work, parts, count):
        done[part.start] = scores
        progress(len(part))
    return {name: join([done[part.start][name] for part in parts]) for name in names}


def score_baseline(prediction: Prediction, task: Task, fields: FieldDataset) -> Scores:
    """Score one baseline's prediction of a task that holds a single field."""
    normalizer = fields.normalizer
    mean = torch.from_numpy(prediction.mean).float()[None]
    scores = score(normalizer.clip(mean), task, data_range(fields))
    scores["seconds"] = np.array([prediction.seconds])
    if prediction.std is not None:
        std = torch.from_numpy(prediction.std).float()[None]
        scores |= _score_forecast(mean, std, task)
    return scores


def _score_forecast(mean: Tensor, std: Tensor, task: Task) -> Scores:
    """Score a Gaussian forecast as it stands, also where it goes beyond the value range."""
    distance = distance_in_cells(task.coords, task.obs, task.shape)
    scores = {"crps": metrics.crps_gaussian(mean, std, task.truth)}
    scores |= calibrate_gaussian(mean, std, task.truth, task.missing, distance)
    return {name: value.numpy() for name, value in scores.items()}


def _evaluate_part(
    fields: FieldDataset, protocol: Protocol, names: Sequence[str], items: range
) -> dict[str, Scores]:
    scores: dict[str, list[Scores]] = {name: [] for name in names}
    for item in items:
        task = make_task(fields, protocol, [item])
        points = (task.obs.coords[0].numpy(), task.obs.values[0].numpy(), task.coords[0].numpy())
        for name in names:
            scores[name].append(score_baseline(reconstruct_baseline(name, *points), task, fields))
    return {name: join(parts) for name, parts in scores.items()}


_Work = Callable[[range], dict[str, Scores]]
_adopted: list[_Work] = []


def _share_out(
    work: _Work, parts: Sequence[range], processes: int
) -> Iterator[tuple[range, dict[str, Scores]]]:
    """Yield the parts with their results as they are done."""
    if processes == 1:
        yield from ((part, work(part)) for part in parts)
        return
    # Spawned, because a fork of a process that has used torch's threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_adopt, initargs=(work,)) as pool:
        futures = {pool.submit(_work_on, part): part for part in parts}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


def _adopt(work: _Work) -> None:
    """Keep a worker process's task, which holds the data, for all of its parts."""
    torch.set_num_threads(1)
    _adopted.append(work)


def _work_on(items: range) -> dict[str, Scores]:
    return _adopted[0](items)
