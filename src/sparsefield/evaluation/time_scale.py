"""How much a unit of time counts beside a unit of length: fitted on held-out measurements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.observation import Observation
from sparsefield.data.query import Points
from sparsefield.evaluation.check import MOST, deal, deal_groups
from sparsefield.inference.universal import Interpolator
from sparsefield.nn.mixture import Mixture

# Parts that are held back in turn, where there are no groups.
FOLDS = 5
# Scales that are tried, over the one that there was: coarse ones, and ones beside the best.
COARSE = 2.0 ** np.arange(-6, 7)
FINE = 2.0 ** np.array([-0.5, 0.5])


@dataclass(frozen=True)
class TimeScale:
    """What one unit of time counts in lengths, and how well others predict.

    Attributes:
        scale: The best of the scales that were tried.
        rate: The same in words, as "one hour of time counts 31.2 km".
        scores: CRPS of the held-out measurements for each scale tried, over the standard
            deviation of their channel.
        held: Number of measurements that were predicted.
    """

    scale: float
    rate: str
    scores: dict[float, float]
    held: int

    def __str__(self) -> str:
        """Say what was found, and what it is worth."""
        first = next(iter(self.scores.values()))
        gain = 1 - self.scores[self.scale] / first
        tried = sorted(self.scores)
        end = ", an end of what was tried" if self.scale in (tried[0], tried[-1]) else ""
        return (
            f"time scale {self.scale:.3g}: {self.rate}{end}; the CRPS of {self.held:,} held-out "
            f"measurements is {gain:.1%} lower than with {next(iter(self.scores)):.3g}"
        )


def fit_time_scale(
    model: Any,
    obs: Observation,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    seed: int = 0,
) -> tuple[Observation, TimeScale]:
    """Choose how much a unit of time counts by what predicts measurements best.

    Measurements are dealt to five parts, each of which is predicted from the others. With groups,
    such as stations, whole groups are dealt, to at most ten parts. Scales from 1/64 to 64 times
    the present one are tried. The best has the least CRPS.

    Args:
        model: What `load("universal")` returns.
        obs: Observations of one field, with an axis of times beside one of space.
        groups: Group of each row (M,).
        seed: Seed of what is held back.

    Returns:
        The observations with that scale, and what was found.

    Raises:
        InputError: There is no axis of times beside one of space, the model knows no distances,
            or there are too few measurements.
    """
    if not isinstance(model, Interpolator):
        raise InputError(
            f"model '{model.name}' knows no distances, so no time scale can be fitted; "
            "'universal' does"
        )
    if obs.frame is None or obs.dims < 2 or "time" not in obs.frame.kinds:
        raise InputError("a time scale needs an axis of times beside one of space")
    axis = obs.frame.kinds.index("time")
    name, before = obs.frame.names[axis], obs.frame.scales[axis]
    valid = obs.valid.cpu().numpy()
    held = deal(valid, FOLDS, seed) if groups is None else deal_groups(groups, valid, seed)
    asked = _asked(held, seed)

    def score(factor: float) -> float:
        return _score(model, obs.scaled(**{name: float(before * factor)}), held, asked)

    # The scale that there was goes first: others are compared with it.
    scores = {factor: score(factor) for factor in sorted(COARSE, key=lambda x: abs(np.log(x)))}
    best = min(scores, key=lambda factor: scores[factor])
    scores |= {factor: score(factor) for factor in best * FINE}
    best = min(scores, key=lambda factor: scores[factor])
    found = {float(before * factor): each for factor, each in scores.items()}
    scale = float(before * best)
    rate = obs.frame.scaled(**{name: scale}).rate
    return obs.scaled(**{name: scale}), TimeScale(scale, rate, found, int(asked.sum()))


def _asked(held: np.ndarray, seed: int) -> np.ndarray:
    """Return which of the rows that are held back are predicted (M,), not too many of a part."""
    rng, asked = np.random.default_rng(seed), np.zeros(len(held), bool)
    parts = held.max() + 1
    for part in range(parts):
        rows = rng.permutation(np.flatnonzero(held == part))
        asked[rows[: max(MOST // parts, 1)]] = True
    return asked


def _score(model: Interpolator, obs: Observation, held: np.ndarray, asked: np.ndarray) -> float:
    """Return the mean CRPS over the standard deviation of each channel."""
    unit = obs.values[obs.valid].double().std(0).clamp(min=1e-300)
    total = 0.0
    for part in range(held.max() + 1):
        rest = obs.take((held != part) & (held >= 0))
        wanted = obs.take((held == part) & asked)
        said = model.condition(rest).mean(Points(wanted.physical())).marginal
        assert said is not None, "an interpolator states its distribution"
        value = Mixture(*(each.double() for each in said))
        if wanted.noise is not None:
            value = value.blur(wanted.noise.double())
        total += float((value.crps(wanted.values.double()) / unit).mean(-1).sum())
    return total / int(asked.sum())
