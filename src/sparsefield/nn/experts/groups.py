"""Groups of Gaussian experts: what they say, averaged by their evidence.

Nothing here is learnt or fitted. A network reads what the groups say and decides on whom to rely.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsefield.nn.experts.kernels import JITTER
from sparsefield.nn.experts.kriging import (
    Bank,
    Factors,
    Seen,
    Systems,
    complete,
    factorise,
    predict,
    stretch,
    stretch_direction,
)

LENGTHS = (2.5, 0.8, 0.26, 0.085, 0.027)  # in root mean square distances of the observations
MATERN = ((1.0, 0.0, 0.0), (3.0, 1.0, 0.0), (5.0, 1.0, 1 / 3))  # 2 nu, and a polynomial
NUGGETS = ((1e-6, 1e-3), (0.03, 0.15), (0.4, 0.75))  # classes of shares of the variance
RATIOS = (1.6, 2.6, 4.5)  # of the axes of anisotropic experts
TREND = 3.0  # variance of a linear trend over the unit of length, in variances of the values
LEADERS = 8  # isotropic experts of most evidence, tried with a trend and with other metrics
VOICES = 4  # experts of a group that are asked at the queries
SILENT = 1e-3  # share of a group below which an expert is not asked
TIE = 6  # decimals of evidence beyond which experts are equally likely
SAY = 0.01  # share of a group that makes an expert useful elsewhere
ISOTROPIC = len(MATERN) * len(NUGGETS)
GROUPS = ISOTROPIC + 1 + len(RATIOS)


class Problem(NamedTuple):
    """Observations, standardised, and where to predict; float64.

    Attributes:
        coords: Observed positions (B, N, P).
        values: Observed values (B, N) of mean about 0 and variance about 1.
        valid: Which observations count (B, N), bool; at least two of each item.
        noise: Noise variance of the observations relative to each other (B, N), about 1.
        query: Positions to predict (B, Q, P).
        query_noise: Noise variance (B,) of a new value on the same scale: 1, or 0 if the noise
            is stated and a new value is the field itself.
    """

    coords: Tensor
    values: Tensor
    valid: Tensor
    noise: Tensor
    query: Tensor
    query_noise: Tensor


class Forecasts(NamedTuple):
    """What the groups of experts say, float64.

    Attributes:
        evidence: Log marginal likelihood (B, G), up to a constant.
        left_mean: Mean at every observation, given all others (B, N, G).
        left_var: Variance of that observation, noise included (B, N, G).
        mean: Mean at the queries (B, Q, G).
        var: Variance of a new value (B, Q, G).
        field_var: Variance of the noise-free field (B, Q, G).
        unit: Root mean square distance between observations (B,).
    """

    evidence: Tensor
    left_mean: Tensor
    left_var: Tensor
    mean: Tensor
    var: Tensor
    field_var: Tensor
    unit: Tensor


class Voices(NamedTuple):
    """Experts of G groups that share a metric, those that count, ready for queries.

    Attributes:
        bank: Covariances of the experts (A,).
        systems: Their kriging systems (A,).
        group: Group of each (A,), from 0.
        share: Weight of each in its group (A,).
        groups: Number of groups G.
        coords: Observed positions in their metric (N, P).
        metric: Map of positions into it (P, P).
        trend: Variance of the linear trend per unit of length.
    """

    bank: Bank
    systems: Systems
    group: np.ndarray
    share: np.ndarray
    groups: int
    coords: np.ndarray
    metric: np.ndarray
    trend: float

    def average(self, values: np.ndarray) -> np.ndarray:
        """Return the average (G, ...) in each group of what its experts say (A, ...)."""
        weight = np.zeros((self.groups, len(self.group)))
        weight[self.group, np.arange(len(self.group))] = self.share
        return weight @ values


class Heard(NamedTuple):
    """What the experts make of the observations of one item.

    Attributes:
        evidence: Log marginal likelihood of the groups (G,), up to a constant.
        left_mean: Leave-one-out means (G, N).
        left_var: Leave-one-out variances (G, N).
        voices: Experts that answer queries.
        centre: Mean position (P,).
        unit: Root mean square distance between observations.
    """

    evidence: np.ndarray
    left_mean: np.ndarray
    left_var: np.ndarray
    voices: tuple[Voices, ...]
    centre: np.ndarray
    unit: float


def ask_experts(problem: Problem, heard: Sequence[Heard] | None = None) -> Forecasts:
    """Return the forecasts of all groups for a batch.

    Args:
        problem: Observations and queries.
        heard: What `listen_to` returned for it, if it has been called before.
    """
    heard = listen_to(problem) if heard is None else heard
    items, most = problem.valid.shape
    asked = problem.query.shape[1]
    evidence = np.stack([h.evidence for h in heard])
    left = np.zeros((2, items, GROUPS, most))
    left[1] = 1
    said = np.empty((3, items, GROUPS, asked))
    for item, h in enumerate(heard):
        left[:, item, :, : h.left_mean.shape[1]] = h.left_mean, h.left_var
        said[:, item] = answer(h, problem.query[item].numpy(), float(problem.query_noise[item]))
    left_mean, left_var, mean, var, field_var = (
        torch.from_numpy(part).mT for part in (*left, *said)
    )
    units = torch.tensor([h.unit for h in heard], dtype=torch.float64)
    return Forecasts(torch.from_numpy(evidence), left_mean, left_var, mean, var, field_var, units)


def listen_to(problem: Problem) -> list[Heard]:
    """Return what the experts make of the observations of every item of a batch."""
    arrays = [x.numpy() for x in problem[:4]]
    heard = []
    for coords, values, valid, noise in zip(*arrays, strict=True):
        seen = Seen(*(x[valid] for x in (coords, values, noise)))
        heard.append(listen(seen))
    return heard


def listen(seen: Seen, numbers: np.ndarray | None = None) -> Heard:
    """Return what the experts make of observations, in any unit of length.

    Isotropic experts are grouped by smoothness and size of the nugget; those of most evidence are
    tried again with a linear trend, and with metrics stretched along the direction in which the
    likelihood rises fastest. Within a group experts are averaged by their evidence.

    Args:
        seen: Observations.
        numbers: Isotropic experts (G, E) to ask, as `useful_numbers` returns them; all by default.
    """
    centre = seen.coords.mean(0)
    unit = math.sqrt(2 * float(seen.coords.var(0).sum())) or 1.0
    coords = (seen.coords - centre) / unit
    seen = seen._replace(coords=coords)
    bank, members = _part(isotropic_numbers() if numbers is None else numbers)
    factors = factorise(bank, seen)
    same = np.eye(coords.shape[1])
    parts = [_group(members, bank, factors, seen, same, 0.0)]
    leaders = _likeliest_first(factors.evidence)[:LEADERS]
    bank, systems = bank.take(leaders), complete(factors, seen.values, leaders)
    direction = stretch_direction(bank, systems, coords)
    for ratio in (1.0, *RATIOS):
        metric = stretch(direction, ratio)
        stretched = seen._replace(coords=coords @ metric)
        factors = factorise(bank, stretched, TREND)
        everyone = np.arange(LEADERS)[None]
        parts.append(_group(everyone, bank, factors, stretched, metric, TREND))
    voices, evidence, left_mean, left_var = zip(*parts, strict=True)
    return Heard(
        np.concatenate(evidence),
        np.concatenate(left_mean),
        np.concatenate(left_var),
        voices,
        centre,
        unit,
    )


def answer(heard: Heard, query: np.ndarray, query_noise: float) -> np.ndarray:
    """Return mean, variance of a new value, and variance of the field of all groups (3, G, Q).

    Args:
        heard: What `listen` returned.
        query: Positions (Q, P).
        query_noise: Relative noise variance of a new value.
    """
    query = (query - heard.centre) / heard.unit
    parts = []
    for voices in heard.voices:
        bank, systems = voices.bank, voices.systems
        mean, field_var = predict(
            bank, systems, voices.coords, query @ voices.metric, voices.trend
        )
        noise = bank.nugget * systems.variance * query_noise + JITTER
        average = voices.average(mean)
        field = voices.average(field_var + (mean - average[voices.group]) ** 2)
        value = field + voices.average(noise[:, None])
        parts.append(np.stack([average, value, field]))
    return np.concatenate(parts, axis=1)


def useful_numbers(places: Sequence[Seen]) -> np.ndarray:
    """Return the isotropic experts (G, E) that have a say at any of some places.

    It keeps those whose weight in their group is above `SAY`, and as many of every group.

    Args:
        places: Observations around each place.
    """
    numbers = isotropic_numbers()
    best = np.zeros(numbers.shape)
    for seen in places:
        coords = seen.coords - seen.coords.mean(0)
        unit = math.sqrt(2 * float(seen.coords.var(0).sum())) or 1.0
        evidence = factorise(isotropic_bank(), seen._replace(coords=coords / unit)).evidence[
            numbers
        ]
        share = np.exp(evidence - evidence.max(1, keepdims=True))
        best = np.maximum(best, share / share.sum(1, keepdims=True))
    count = max(VOICES, int((best > SAY).sum(1).max()))
    order = np.argsort(-best, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(numbers, order, 1)


def _part(numbers: np.ndarray) -> tuple[Bank, np.ndarray]:
    """Return isotropic experts (G, E) as a bank, and where each of them is in it (G, E)."""
    rising = np.sort(numbers, axis=None)
    bank = Bank(*(np.ascontiguousarray(x[rising]) for x in isotropic_bank()))
    return bank, np.searchsorted(rising, numbers)


def isotropic_bank() -> Bank:
    """Return all isotropic experts: for every smoothness and length, all nuggets."""
    nuggets = [nugget for pair in NUGGETS for nugget in pair]
    shapes = list(product(MATERN, LENGTHS))
    rows = [
        (math.sqrt(two_nu) / length, linear, square, nugget)
        for ((two_nu, linear, square), length), nugget in product(shapes, nuggets)
    ]
    rate, linear, square, nugget = np.array(rows).T
    return Bank(rate, linear, square, nugget, np.arange(len(rows)) // len(nuggets))


def isotropic_numbers() -> np.ndarray:
    """Return the numbers (G, E) of the experts of every isotropic group."""
    shape = (len(MATERN), len(LENGTHS), len(NUGGETS), len(NUGGETS[0]))
    return np.arange(math.prod(shape)).reshape(shape).transpose(0, 2, 1, 3).reshape(ISOTROPIC, -1)


def _group(
    numbers: np.ndarray,
    bank: Bank,
    factors: Factors,
    seen: Seen,
    metric: np.ndarray,
    trend: float,
) -> tuple[Voices, np.ndarray, np.ndarray, np.ndarray]:
    """Return the voices, evidence (G,) and leave-one-out moments (G, N) of groups (G, E)."""
    evidence = factors.evidence[numbers]
    best = evidence.max(1, keepdims=True)
    whole = len(LENGTHS) * len(NUGGETS[0]) if len(numbers) > 1 else LEADERS
    total = np.log(np.exp(evidence - best).sum(1) / whole) + best[:, 0]
    order = _likeliest_first(evidence)[:, :VOICES]
    chosen = np.take_along_axis(numbers, order, 1)
    share = np.exp(np.take_along_axis(evidence, order, 1) - best)
    share = np.where(share < SILENT * share.sum(1, keepdims=True), 0.0, share)
    share = share / share.sum(1, keepdims=True)
    group, voice = np.nonzero(share)
    flat = chosen[group, voice]
    voices = Voices(
        bank.take(flat),
        complete(factors, seen.values, flat),
        group,
        share[group, voice],
        len(share),
        seen.coords,
        metric,
        trend,
    )
    left_mean = voices.average(voices.systems.left_mean)
    spread = (voices.systems.left_mean - left_mean[group]) ** 2
    left_var = voices.average(voices.systems.left_var + spread)
    return voices, total, left_mean, left_var


def _likeliest_first(evidence: np.ndarray) -> np.ndarray:
    """Return the order of evidence (..., E) from the greatest; ties keep their order.

    Experts of short ranges are alike where all observations are far apart. Rounding, which a move
    of the coordinates changes, must not choose among them.
    """
    return np.argsort(-evidence.round(TIE), axis=-1, kind="stable")


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances (B, N, M), exact at zero."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
