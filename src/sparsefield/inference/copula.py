"""Joint samples with given marginals: a Gaussian copula that the likeliest expert correlates."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from sparsefield.data.contexts import Context
from sparsefield.nn.experts.groups import Heard
from sparsefield.nn.experts.kernels import cross_all
from sparsefield.nn.experts.kriging import Bank, Seen, solve

FREQUENCIES = 512  # of the random waves; correlations are right to about their root's inverse


class Covariance(NamedTuple):
    """One expert's covariance of a field, wherever it is looked at.

    Attributes:
        bank: The expert alone.
        metric: Map of positions, in units of length about the centre, into its metric (P, P).
        trend: Variance of a linear trend per unit of length.
        centre: Mean position (P,).
        unit: Unit of length.
    """

    bank: Bank
    metric: np.ndarray
    trend: float
    centre: np.ndarray
    unit: float

    def places(self, coords: np.ndarray) -> np.ndarray:
        """Return positions (N, P) in the expert's metric."""
        return np.ascontiguousarray((coords - self.centre) / self.unit @ self.metric)


def likeliest(heard: Heard) -> Covariance:
    """Return the covariance of the expert whose evidence is greatest."""
    group = int(np.argmax(heard.evidence))
    for voices in heard.voices:
        if group < voices.groups:
            break
        group -= voices.groups
    best = int(np.argmax(np.where(voices.group == group, voices.share, -1.0)))
    bank = voices.bank.take(np.array([best]))
    return Covariance(bank, voices.metric, voices.trend, heard.centre, heard.unit)


class Waves:
    r"""Joint samples of a field given zero measurements, as functions of the position.

    With random waves :math:`\phi`, of the spectrum of the covariance, kriging weights :math:`W`,
    and the measurements' errors :math:`e`, a sample is

    .. math:: z(x) = (\phi(x) - W(x) \Phi)\, w - W(x)\, e,

    divided by its standard deviation. All places share `w` and `e`, so that samples are coherent
    from place to place, in memory that does not grow.

    References:
        Efficiently sampling functions from Gaussian process posteriors (Wilson et al., 2020).

    Args:
        covariance: Of the field.
        count: Measurements N.
        samples: Samples S.
        key: Numbers that choose the randomness.
    """

    def __init__(
        self, covariance: Covariance, count: int, samples: int, *, key: tuple[int, ...]
    ) -> None:
        self.covariance = covariance
        axes = len(covariance.centre)
        self.frequency = _frequencies(covariance.bank, axes)
        streams = [np.random.default_rng((*key, sample)) for sample in range(samples)]
        drawn = [
            (r.standard_normal(2 * FREQUENCIES + axes), r.standard_normal(count)) for r in streams
        ]
        self.amplitude, self.error = (np.stack(part) for part in zip(*drawn, strict=True))

    def __call__(self, seen: Context, numbers: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Return standard normal variates (S, Q) at queries (Q, P).

        Args:
            seen: Measurements that the queries see.
            numbers: Which ones these are among all (N,).
            query: Positions (Q, P).
        """
        bank, trend = self.covariance.bank, self.covariance.trend
        places, asked = (self.covariance.places(x) for x in (seen.coords, query))
        weights = _weights(bank, Seen(places, seen.values, seen.noise), asked, trend)
        share = float(bank.nugget[0])
        wave = self._waves(asked) - weights @ self._waves(places)
        error = weights * np.sqrt(share * seen.noise)
        variance = (wave**2).sum(1) + (error**2).sum(1)
        sample = self.amplitude @ wave.T - self.error[:, numbers] @ error.T
        return sample / np.sqrt(np.maximum(variance, 1e-30))

    def _waves(self, places: np.ndarray) -> np.ndarray:
        phase = places @ self.frequency
        size = np.sqrt((1 - self.covariance.bank.nugget[0]) / FREQUENCIES)
        trend = np.sqrt(self.covariance.trend) * places
        return np.concatenate([size * np.cos(phase), size * np.sin(phase), trend], axis=1)


def white(query: np.ndarray, samples: int, key: tuple[int, ...]) -> np.ndarray:
    """Return standard normal noise (S, Q) that is a function of the position alone.

    The bits of the coordinates are mixed into a number; equal positions have equal noise.

    Reference: Fast splittable pseudorandom number generators (Steele et al., 2014).
    """
    bits = np.ascontiguousarray(query + 0.0, dtype=np.float64).view(np.uint64)
    noise = np.empty((samples, len(query)))
    for sample in range(samples):
        state = np.random.default_rng((*key, sample, 1)).integers(2**63, dtype=np.uint64)
        mixed = np.full(len(query), state)
        for axis in bits.T:
            mixed = _mix(mixed ^ axis)
        noise[sample] = ndtri(((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)
    return noise


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _frequencies(bank: Bank, axes: int) -> np.ndarray:
    """Return frequencies (P, F) of the spectrum of a Matérn covariance, in units of length.

    Reference: Random features for large-scale kernel machines (Rahimi and Recht, 2007).
    """
    rng = np.random.default_rng(axes)
    two_nu = 1 + 2 * bool(bank.linear[0]) + 2 * bool(bank.square[0])
    normal = rng.standard_normal((axes, FREQUENCIES))
    chi = np.maximum(rng.chisquare(two_nu, FREQUENCIES) / two_nu, 1e-9)
    return normal / np.sqrt(chi) * (bank.rate[0] / np.sqrt(two_nu))


def _weights(bank: Bank, seen: Seen, asked: np.ndarray, trend: float) -> np.ndarray:
    """Return the weights (Q, N) of ordinary kriging, which sum to 1."""
    systems = solve(bank, seen, trend)
    cross = np.empty((1, len(asked), len(seen.coords)))
    cross_all(*bank, seen.coords, asked, trend, cross)
    ones = systems.ones[0]
    gain = cross[0] @ systems.inverse[0]
    missing = 1 - cross[0] @ ones
    return gain + (missing / ones.sum())[:, None] * ones
