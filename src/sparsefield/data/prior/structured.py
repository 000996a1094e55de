"""Fields with a structure that no Gaussian field has: edges, sources, waves, rivers, terrain."""

import numpy as np
from numpy.random import Generator
from scipy.spatial.distance import cdist

from sparsefield.data.prior.gaussian import displace, gaussian
from sparsefield.data.prior.kinds import Kind, log_uniform, random_rotation, standardise


def plates(rng: Generator, points: np.ndarray) -> np.ndarray:
    """Draw cells of constant value, or of a gradient each, with sharp and crooked edges."""
    axes = points.shape[1]
    centres = rng.uniform(-1.2, 1.2, (rng.integers(2, 16), axes))
    cell = cdist(displace(rng, points), centres).argmin(1)
    level = rng.standard_normal(len(centres))
    slope = rng.standard_normal((len(centres), axes)) * rng.choice([0.0, 0.5])
    return level[cell] + (slope[cell] * points).sum(1)


def sources(rng: Generator, points: np.ndarray) -> np.ndarray:
    """Draw plumes: sums of peaks of random place, size, width and decay."""
    total = np.zeros(len(points))
    anchors = points[rng.choice(len(points), rng.integers(1, 12))]
    width = log_uniform(rng, 0.05, 0.8)
    decay = rng.integers(3)
    for anchor in anchors:
        centre = anchor + 0.2 * rng.standard_normal(points.shape[1])
        offset = (points - centre) @ random_rotation(rng, points.shape[1])
        offset[:, 0] /= log_uniform(rng, 1, 4)
        r = np.linalg.norm(offset, axis=1) / (width * log_uniform(rng, 0.5, 2))
        peak = (np.exp(-(r**2) / 2), np.exp(-r), 1 / (1 + r**2))[decay]
        total += rng.exponential() * peak
    return total


def waves(rng: Generator, points: np.ndarray) -> np.ndarray:
    """Draw a few plane or ring waves, pure or displaced."""
    if rng.random() < 0.5:
        points = displace(rng, points)
    total = np.zeros(len(points))
    length = log_uniform(rng, 0.3, 2.0)
    for _ in range(rng.integers(1, 5)):
        if rng.random() < 0.3:
            way = np.linalg.norm(points - rng.uniform(-1.5, 1.5, points.shape[1]), axis=1)
        else:
            direction = rng.standard_normal(points.shape[1])
            way = points @ (direction / np.linalg.norm(direction))
        phase = rng.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * way / (length * log_uniform(rng, 0.6, 1.6)) + phase)
        total += rng.standard_normal() * wave
    return total


def river(rng: Generator, points: np.ndarray) -> np.ndarray:
    """Draw a function of the distance to a winding line, as of a river, a road or a fault."""
    steps = np.linspace(-2, 2, 200)
    line = np.zeros((len(steps), points.shape[1]))
    line[:, 0] = steps
    for axis in range(1, points.shape[1]):
        for _ in range(3):
            wave = rng.standard_normal() * 0.3 * np.sin(rng.uniform(0.5, 5) * steps)
            line[:, axis] += wave + 0.2 * rng.standard_normal()
    line = line @ random_rotation(rng, points.shape[1])
    distance = cdist(points, line).min(1)
    shape = rng.integers(4)
    if shape == 0:
        value = np.sqrt(distance)
    elif shape == 1:
        value = np.exp(-distance / log_uniform(rng, 0.05, 1.0))
    elif shape == 2:
        value = np.log(distance + log_uniform(rng, 0.01, 0.3))
    else:
        value = np.minimum(distance, log_uniform(rng, 0.1, 1.0))
    return standardise(value) + rng.uniform(0, 1.5) * gaussian(rng, points)


def terrain(rng: Generator, points: np.ndarray) -> np.ndarray:
    """Draw ridges and plains: octaves of folded fields, rougher where it is high."""
    total = np.zeros(len(points))
    length, size = log_uniform(rng, 0.4, 2.0), 1.0
    roughness = rng.uniform(0.35, 0.7)
    for _ in range(4):
        octave = 1 - np.abs(gaussian(rng, points / length))
        weight = 1.0 if not total.any() else 1 / (1 + np.exp(-2 * standardise(total)))
        total += size * octave * weight
        length, size = length / 2, size * roughness
    return total


KINDS: tuple[tuple[float, Kind], ...] = (
    (1.0, plates),
    (1.0, sources),
    (0.5, waves),
    (2.0, river),
    (1.5, terrain),
)
