"""What counts in a neighbourhood, decided at one place of it for all others."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsefield.data.contexts import Context
from sparsefield.inference.tasks import Task, features_of, hear, standardise
from sparsefield.models.universal import Prediction, UniversalInterpolator
from sparsefield.nn.experts.few import Few, choose
from sparsefield.nn.experts.kriging import Seen

PROBES = 64  # places at which the network is asked for its decisions


class Verdict(NamedTuple):
    """What the network decided.

    Attributes:
        few: Experts that count.
        raw: Its decisions (1, 1, R), the average over places.
    """

    few: Few
    raw: Tensor


def decide(
    model: UniversalInterpolator,
    seen: Context,
    peers: Sequence[Context],
    stated: bool,
    useful: np.ndarray | None,
) -> Verdict:
    """Return what the network decides on what is seen from one place, and its peers confirm.

    Args:
        model: The network.
        seen: Observations around the place.
        peers: Observations around other places of the neighbourhood.
        stated: Whether their noise is stated.
        useful: Isotropic experts (G, E) to ask; all by default.
    """
    task = standardise(seen, _probes(seen.coords), stated)
    heard = hear(task, useful)
    x = features_of([task], [heard])
    raw = model.decide(x).mean(1, keepdim=True)
    weight = model.weigh(raw, x.evidence)[0, 0]
    few = choose(heard, weight.double().numpy())
    others = [Seen(*standardise(x, x.coords[:0], stated).seen) for x in peers]
    return Verdict(few.heeding(others, float(model.temper)), raw)


def moments(verdict: Verdict, task: Task) -> np.ndarray:
    """Return mean, variance of a new value, and variance of the field (3, Q), in units of values.

    Args:
        verdict: What was decided.
        task: What is seen, and where to predict.
    """
    seen = Seen(*task.seen)
    said = verdict.few.forecast(seen, task.query, float(np.isnan(task.stated)))
    return np.stack([task.centre + task.scale * said[0], *(task.scale**2 * said[1:])])


def settle(model: UniversalInterpolator, verdict: Verdict, said: np.ndarray) -> Prediction:
    """Return predictions (1, Q) from what `moments` returned (3, Q)."""
    raw = verdict.raw.double().expand(1, said.shape[1], -1)
    return model.shape(raw, *torch.from_numpy(said)[:, None])


def _probes(coords: np.ndarray) -> np.ndarray:
    """Return places (Q, P) between observations (N, P), the nearest of the centre first."""
    rng = np.random.default_rng(0)
    one, other = rng.integers(len(coords), size=(2, PROBES))
    return coords[one] + rng.random((PROBES, 1)) * (coords[other] - coords[one])
