"""Where measurements are taken: layouts of points in a box about [-1, 1]."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from sparsefield.data.prior.kinds import log_uniform, random_rotation

Layout = Callable[[Generator, int, int], np.ndarray]


def uniform(rng: Generator, count: int, axes: int) -> np.ndarray:
    """Scatter points (L, P) evenly."""
    return rng.uniform(-1, 1, (count, axes))


def clustered(rng: Generator, count: int, axes: int) -> np.ndarray:
    """Gather points around a few centres, with some in between."""
    centres = rng.uniform(-1, 1, (rng.integers(2, 12), axes))
    width = log_uniform(rng, 0.02, 0.4)
    points = centres[rng.integers(len(centres), size=count)]
    points = points + width * rng.standard_normal((count, axes))
    loose = rng.random(count) < rng.uniform(0, 0.6)
    return np.where(loose[:, None], uniform(rng, count, axes), points)


def tracks(rng: Generator, count: int, axes: int) -> np.ndarray:
    """Follow straight lines, parallel or not, as ships, aircraft and satellites do."""
    lines = int(rng.integers(2, 10))
    line = rng.integers(lines, size=count)
    way = rng.uniform(-1, 1, count)
    starts = rng.uniform(-1, 1, (lines, axes))
    heading = rng.standard_normal((lines, axes))
    if rng.random() < 0.5:
        heading[:] = heading[0]
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    points = starts[line] + way[:, None] * heading[line]
    return points + log_uniform(rng, 0.003, 0.05) * rng.standard_normal((count, axes))


def lattice(rng: Generator, count: int, axes: int) -> np.ndarray:
    """Take cells of a lattice, exact or jittered, a random share of them."""
    share = rng.uniform(0.2, 1.0)
    side = int(np.ceil((count / share) ** (1 / axes)))
    cells = rng.permutation(side**axes)[:count]
    points = np.stack(np.unravel_index(cells, (side,) * axes), axis=1) * (2 / side) - 1
    jitter = rng.choice([0.0, 0.1, 0.3]) * 2 / side
    return points + jitter * rng.standard_normal(points.shape)


def corner(rng: Generator, count: int, axes: int) -> np.ndarray:
    """Crowd points towards one side, sparse at the other."""
    return 2 * rng.random((count, axes)) ** rng.uniform(1, 3, axes) - 1


def band(rng: Generator, count: int, axes: int) -> np.ndarray:
    """Scatter points along a winding band, as along a coast or a river."""
    points = uniform(rng, count, axes)
    if axes > 1:
        bend = 0.6 * np.sin(rng.uniform(1, 4) * points[:, 0] + rng.uniform(0, 6))
        points[:, 1] = bend + log_uniform(rng, 0.05, 0.5) * points[:, 1]
    return points


def sphere(rng: Generator, count: int, axes: int) -> np.ndarray:
    """Scatter points on a unit sphere or circle, or on a cap of it."""
    if axes == 1:
        return uniform(rng, count, axes)
    points = rng.standard_normal((count, axes)) + rng.uniform(0, 3) * np.eye(axes)[0]
    return points / np.linalg.norm(points, axis=1, keepdims=True)


LAYOUTS: tuple[tuple[float, Layout], ...] = (
    (4.0, uniform),
    (1.5, clustered),
    (0.7, tracks),
    (1.5, lattice),
    (0.7, corner),
    (1.0, band),
    (0.4, sphere),
)


def draw_points(rng: Generator, count: int, axes: int) -> np.ndarray:
    """Return points (L, P) of a random layout, turned and stretched at random."""
    weights = np.array([weight for weight, _ in LAYOUTS])
    layout = LAYOUTS[rng.choice(len(LAYOUTS), p=weights / weights.sum())][1]
    points = layout(rng, count, axes)
    points = points * np.exp(rng.uniform(-0.6, 0.6, axes))
    return points @ random_rotation(rng, axes)
