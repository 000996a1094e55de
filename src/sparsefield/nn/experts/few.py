"""Few experts with fixed weights, chosen at one place for many others."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sparsefield.nn.experts.groups import Heard
from sparsefield.nn.experts.kernels import JITTER, forecast_all
from sparsefield.nn.experts.kriging import Bank, Seen

KEPT = 6  # experts at most
CANDIDATES = 24  # experts at most that are tried at other places
HOPELESS = 1e-3  # weight, in that of the best, below which they are not
FAINT = 0.02  # weight below which an expert is left out
COLUMNS = 256  # queries at a time


class Few(NamedTuple):
    """Experts in their metrics, and how much each of them counts.

    Attributes:
        bank: Covariances (E,).
        weight: Weights (E,), of sum 1.
        metric: Maps of positions (E, P, P).
        trend: Variances of a linear trend per unit of length (E,).
        unit: Unit of length.
    """

    bank: Bank
    weight: np.ndarray
    metric: np.ndarray
    trend: np.ndarray
    unit: float

    def forecast(self, seen: Seen, query: np.ndarray, query_noise: float) -> np.ndarray:
        """Return mean, variance of a new value, and variance of the field (3, Q).

        Args:
            seen: Observations, in any unit of length.
            query: Positions (Q, P).
            query_noise: Relative noise variance of a new value.
        """
        blocks = np.split(query, range(COLUMNS, len(query), COLUMNS))
        parts = []
        for block in blocks:
            _, variance, (mean, field_var) = self._ask(seen, block)
            average = self.weight @ mean
            noise = self.weight @ (self.bank.nugget * variance * query_noise + JITTER)
            field = self.weight @ (field_var * variance[:, None] + (mean - average) ** 2)
            parts.append(np.stack([average, field + noise, field]))
        return np.concatenate(parts, axis=1)

    def heeding(self, places: Sequence[Seen], temper: float) -> "Few":
        """Return those that count most once they have been tried at other places.

        Args:
            places: Observations around each place, in the unit of the experts' choice.
            temper: Power of the likelihoods.
        """
        evidence = sum(self._ask(seen, seen.coords[:0])[0] for seen in places)
        logits = np.log(self.weight) + temper * evidence
        weight = np.exp(logits - logits.max())
        return self.strongest(weight, KEPT, FAINT)

    def strongest(self, weight: np.ndarray, most: int, faint: float) -> "Few":
        """Return the experts of most weight (E,)."""
        order = np.argsort(-weight, kind="stable")[:most]
        order = order[weight[order] > faint * weight[order[0]]]
        return Few(
            self.bank.take(order),
            weight[order] / weight[order].sum(),
            self.metric[order],
            self.trend[order],
            self.unit,
        )

    def _ask(self, seen: Seen, query: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return evidence and variances (E,), and forecasts (2, E, Q)."""
        places = np.concatenate([seen.coords, query]) - seen.coords.mean(0)
        places = self.metric.mT @ (places.T / self.unit)
        count, (experts, _, width) = len(seen.values), places.shape
        matrix = np.empty((count, width + 2))
        evidence, variance = np.empty((2, experts))
        said = np.empty((2, experts, width - count))
        forecast_all(
            *self.bank[:4], self.trend, places, seen.values, seen.noise, matrix,
            evidence, variance, said,
        )  # fmt: skip
        return evidence, variance, said


def choose(heard: Heard, weight: np.ndarray) -> Few:
    """Return the experts that count most.

    Args:
        heard: What all experts make of the observations around a place.
        weight: Weights of the groups (G,).
    """
    groups = np.cumsum([0] + [voices.groups for voices in heard.voices])
    parts = [
        (v.bank, weight[first + v.group] * v.share, v.metric, v.trend)
        for v, first in zip(heard.voices, groups, strict=False)
    ]
    bank = Bank(*(np.concatenate(x) for x in zip(*(p[0] for p in parts), strict=True)))
    counts = [len(p[1]) for p in parts]
    weights = np.concatenate([p[1] for p in parts])
    everyone = Few(
        bank,
        weights,
        np.repeat([p[2] for p in parts], counts, axis=0),
        np.repeat([p[3] for p in parts], counts),
        heard.unit,
    )
    return everyone.strongest(weights, CANDIDATES, HOPELESS)
