"""One place and what is seen from it, in units of its own."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsefield.data.contexts import Context
from sparsefield.models.universal import Features, make_features
from sparsefield.nn.experts.groups import Heard, Problem, ask_experts, listen
from sparsefield.nn.experts.kriging import Seen


class Task(NamedTuple):
    """What is seen of one item from where its queries are, standardised.

    Attributes:
        seen: Context; its noise is relative.
        query: Positions to predict (Q, P).
        stated: Root mean square of the stated noise; NaN if none is.
        centre: Mean of the values.
        scale: Standard deviation of the values.
    """

    seen: Context
    query: np.ndarray
    stated: float
    centre: float
    scale: float


def standardise(seen: Context, query: np.ndarray, stated: bool) -> Task:
    """Put a context in units of its own values.

    Args:
        seen: Context with noise variances, all 1 if none is stated.
        query: Positions to predict (Q, P).
        stated: Whether the noise is stated.
    """
    values, noise = seen.values, seen.noise
    centre = float(values.mean())
    scale = max(float(values.std()), 1e-12 * float(np.abs(values).max()), 1e-150)
    power = float(noise.mean())
    seen = seen._replace(values=(seen.values - centre) / scale, noise=seen.noise / power)
    return Task(seen, query, power**0.5 / scale if stated else np.nan, centre, scale)


def make_problem(tasks: Sequence[Task]) -> Problem:
    """Pad tasks of one dimension and of as many queries to the same number of observations."""
    most = max(len(task.seen.values) for task in tasks)

    def stack(arrays: list[np.ndarray], fill: float) -> Tensor:
        """Pad arrays (N, ...) to (B, N, ...)."""
        padded = np.full((len(arrays), most, *arrays[0].shape[1:]), fill)
        for row, array in zip(padded, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(padded)

    seen = [task.seen for task in tasks]
    return Problem(
        coords=stack([x.coords for x in seen], 0.0),
        values=stack([x.values for x in seen], 0.0),
        valid=stack([np.ones(len(x.values)) for x in seen], 0.0) > 0,
        noise=stack([x.noise for x in seen], 1.0),
        query=torch.from_numpy(np.stack([task.query for task in tasks])),
        query_noise=torch.tensor([float(np.isnan(t.stated)) for t in tasks], dtype=torch.float64),
    )


def features_of(tasks: Sequence[Task], heard: Sequence[Heard] | None = None) -> Features:
    """Return what the network reads of tasks of one dimension and of as many queries.

    Args:
        tasks: What is seen, and where to predict.
        heard: What `hear` returned for the same sights, if it has been called before.
    """
    problem = make_problem(tasks)
    stated = torch.tensor([task.stated for task in tasks], dtype=torch.float64)
    return make_features(problem, ask_experts(problem, heard), stated)


def hear(task: Task, numbers: np.ndarray | None = None) -> Heard:
    """Return what the experts make of what is seen, for any queries.

    Args:
        task: What is seen.
        numbers: Isotropic experts (G, E) to ask; all by default.
    """
    return listen(Seen(*task.seen), numbers)
