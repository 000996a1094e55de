"""What a kind of field is: a recipe that draws one field and evaluates it at given points."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator

# Draws a field and returns its values (L,) at points (L, P) of a box about [-1, 1]; NaN where the
# field has none. All points that are ever needed are asked for at once.
Kind = Callable[[Generator, np.ndarray], np.ndarray]


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """Return a number whose logarithm is uniform between those of two positive bounds."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def pick(rng: Generator, kinds: Sequence[tuple[float, Kind]]) -> Kind:
    """Return a kind drawn with the weights that stand before each."""
    weights = np.array([weight for weight, _ in kinds])
    return kinds[rng.choice(len(kinds), p=weights / weights.sum())][1]


def standardise(values: np.ndarray) -> np.ndarray:
    """Return values of mean 0 and standard deviation 1, NaN left alone; zero if constant."""
    centred = values - np.nanmean(values)
    return centred / max(float(np.nanstd(centred)), 1e-12)


def random_rotation(rng: Generator, axes: int) -> np.ndarray:
    """Return a uniformly distributed orthogonal matrix (P, P), reflections included.

    Reference: How to generate random matrices from the classical compact groups (Mezzadri, 2007).
    """
    q, r = np.linalg.qr(rng.standard_normal((axes, axes)))
    return q * np.sign(np.diag(r))
