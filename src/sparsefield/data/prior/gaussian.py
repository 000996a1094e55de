"""Gaussian fields of many covariances: exact for few points, by random waves for many."""

import numpy as np
from numpy.random import Generator
from scipy.linalg import LinAlgError, cholesky
from scipy.spatial.distance import cdist

from sparsefield.data.prior.kinds import Kind, log_uniform, random_rotation

EXACT_POINTS = 360
WAVES = 768


def gaussian(rng: Generator, points: np.ndarray) -> np.ndarray:
    """Draw a stationary field of variance 1, isotropic or stretched, of any smoothness."""
    return _draw(rng, _stretched(rng, points), log_uniform(rng, 0.03, 4.0))


def nested(rng: Generator, points: np.ndarray) -> np.ndarray:
    """Draw the sum of two fields of different range and smoothness."""
    share = rng.uniform(0.1, 0.9)
    length = log_uniform(rng, 0.2, 4.0)
    coarse = _draw(rng, _stretched(rng, points), length)
    fine = _draw(rng, _stretched(rng, points), length * log_uniform(rng, 0.03, 0.5))
    return np.sqrt(share) * coarse + np.sqrt(1 - share) * fine


def warped(rng: Generator, points: np.ndarray) -> np.ndarray:
    """Draw a non-stationary field: a stationary one on smoothly displaced points."""
    return gaussian(rng, displace(rng, points))


def modulated(rng: Generator, points: np.ndarray) -> np.ndarray:
    """Draw a field whose amplitude varies smoothly from place to place."""
    strength = rng.uniform(0.3, 1.5)
    return gaussian(rng, points) * np.exp(strength * _smooth(rng, points))


def spliced(rng: Generator, points: np.ndarray) -> np.ndarray:
    """Draw two fields of which one gives way to the other across the domain."""
    share = 1 / (1 + np.exp(-log_uniform(rng, 1, 10) * _smooth(rng, points)))
    return share * gaussian(rng, points) + (1 - share) * gaussian(rng, points)


def displace(rng: Generator, points: np.ndarray) -> np.ndarray:
    """Displace points by a few smooth waves, by up to about half a wavelength."""
    moved = points.copy()
    for _ in range(rng.integers(1, 4)):
        wave = rng.standard_normal(points.shape[1]) * log_uniform(rng, 0.5, 3)
        size = float(rng.uniform(0, 0.9)) / max(float(np.linalg.norm(wave)), 0.5)
        push = rng.standard_normal(points.shape[1])
        push *= size / float(np.linalg.norm(push))
        moved += push * np.sin(points @ wave + rng.uniform(0, 2 * np.pi))[:, None]
    return moved


def _smooth(rng: Generator, points: np.ndarray) -> np.ndarray:
    return _waves(rng, points, log_uniform(rng, 0.5, 2.0), np.inf)


def _stretched(rng: Generator, points: np.ndarray) -> np.ndarray:
    """Turn and stretch points by random factors, half of the time.

    In half of these cases the directions turn from place to place, as they do along a river, a
    coast or a fold.
    """
    axes = points.shape[1]
    if axes == 1 or rng.random() < 0.5:
        return points
    if rng.random() < 0.5:
        points = displace(rng, points)
    ratio = log_uniform(rng, 1.0, 6.0)
    scales = ratio ** np.r_[-0.5, 0.5, rng.uniform(-0.5, 0.5, axes - 2)]
    return points @ (random_rotation(rng, axes) * scales)


def _draw(rng: Generator, points: np.ndarray, length: float) -> np.ndarray:
    if len(points) > EXACT_POINTS:
        smoothness = rng.choice([0.5, 0.5, 1.0, 1.5, 2.5, np.inf])
        return _waves(rng, points, length, float(smoothness))
    matrix = _covariance(rng, cdist(points, points) / length)
    matrix[np.diag_indices_from(matrix)] += 1e-8
    try:
        factor = cholesky(matrix, lower=True, check_finite=False)
    except LinAlgError:
        return _waves(rng, points, length, np.inf)
    return factor @ rng.standard_normal(len(points))


def _covariance(rng: Generator, r: np.ndarray) -> np.ndarray:
    """Return correlations at scaled distances, of a family and a shape drawn at random.

    Each family is valid in three dimensions. Reference: Chilès and Delfiner, Geostatistics (2012),
    section 2.5.
    """
    family = rng.choice(6, p=[0.22, 0.16, 0.14, 0.08, 0.25, 0.15])
    if family == 0:
        return np.exp(-r)
    if family == 1:
        a = np.sqrt(3) * r
        return (1 + a) * np.exp(-a)
    if family == 2:
        a = np.sqrt(5) * r
        return (1 + a + a**2 / 3) * np.exp(-a)
    if family == 3:
        return np.where(r < 2, 1 - 0.75 * r + r**3 / 16, 0.0)  # spherical, of range 2
    if family == 4:
        return np.exp(-(r ** rng.uniform(0.3, 1.95)))
    return (1 + r ** rng.uniform(0.4, 1.95)) ** -log_uniform(rng, 0.2, 3.0)


def _waves(rng: Generator, points: np.ndarray, length: float, smoothness: float) -> np.ndarray:
    """Sum random waves of the spectrum of a Matérn field; in the limit of many it is Gaussian.

    Reference: Random features for large-scale kernel machines (Rahimi and Recht, 2007).
    """
    frequency = rng.standard_normal((WAVES, points.shape[1]))
    if np.isfinite(smoothness):
        chi = rng.chisquare(2 * smoothness, WAVES) / (2 * smoothness)
        frequency /= np.sqrt(np.maximum(chi, 1e-9))[:, None]
    phase = rng.uniform(0, 2 * np.pi, WAVES)
    amplitude = np.sqrt(2 / WAVES)
    return amplitude * np.cos(points @ frequency.T / length + phase).sum(1)


KINDS: tuple[tuple[float, Kind], ...] = (
    (4.0, gaussian),
    (2.0, nested),
    (1.5, warped),
    (1.0, modulated),
    (1.0, spliced),
)
