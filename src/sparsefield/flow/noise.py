"""Source noise: one key is one random field, a function of coordinates and of nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from sparsefield.core.errors import InputError, unknown_name

# Positions this close to a node of the lattice, in its units, lie on it: float32 coordinates of
# a node are off by less.
_ON_NODE = 1e-4


def field_keys(seed: int, items: Sequence[int], *rest: int) -> np.ndarray:
    """Return a 64-bit key (B,) for each item's field, made from (seed, item, rest...) alone.

    Args:
        seed: Seed, at least 0.
        items: Items, at least 0.
        rest: What else tells fields apart, such as the number of a sample, at least 0.
    """
    # the length tells (1,) from (1, 0), which numpy would not
    sequences = (np.random.SeedSequence([len(rest), seed, item, *rest]) for item in items)
    return np.array([each.generate_state(1, np.uint64)[0] for each in sequences])


class Noise(ABC):
    """Gaussian fields of mean 0 and variance 1, with independent channels."""

    @abstractmethod
    def __call__(
        self, coords: Tensor, channels: int, keys: np.ndarray, cells: Sequence[int]
    ) -> Tensor:
        """Evaluate the fields of some keys.

        Args:
            coords: Points (B, L, P).
            channels: Channels C.
            keys: Keys (B,) of the fields, from `field_keys`.
            cells: Cells between -1 and 1 along each axis of the grid that is observed: the unit
                of length.

        Returns:
            Values (B, L, C), in the type and on the device of the coordinates.
        """

    @abstractmethod
    def covariance(self, coords: Tensor, cells: Sequence[int]) -> Tensor:
        """Return the covariance K (L, L) of one channel between points (L, P), in float64."""


class WhiteNoise(Noise):
    """Noise that is independent from point to point, whatever lies between them.

    The i-th point asked for gets the i-th number: a seed on another grid is another field.
    """

    def __call__(
        self, coords: Tensor, channels: int, keys: np.ndarray, cells: Sequence[int]
    ) -> Tensor:
        """See `Noise.__call__`."""
        shape = (coords.shape[1], channels)
        numbers = [np.random.default_rng(int(key)).standard_normal(shape) for key in keys]
        return torch.from_numpy(np.stack(numbers)).to(coords)

    def covariance(self, coords: Tensor, cells: Sequence[int]) -> Tensor:
        """See `Noise.covariance`."""
        return torch.eye(len(coords), dtype=torch.float64)


class LatticeNoise(Noise):
    r"""White noise on the nodes of a lattice, and a smooth function of unit variance between.

    .. math:: x_0(p) = \frac{\sum_j w(p - j)\, \epsilon_j}{\sqrt{\sum_j w(p - j)^2}}

    over the 4^P nodes j around the position p in units of the lattice, with the cubic kernel w,
    which is 1 at 0 and 0 at every other node. The numbers :math:`\epsilon_j` are a hash of key,
    node and channel, so that the field needs no memory and has no end. For length 1 the nodes are
    the cells of the observed grid, where the noise is white; finer grids see the same field at
    more points. Time grows linearly with the points.

    References:
        Cubic convolution interpolation for digital image processing (Keys, 1981), Eq. 15, for w.
        Fast splittable pseudorandom number generators (Steele et al., 2014), Fig. 14, for the
        mixing function of the hash.

    Args:
        length: Distance of the nodes in cells, above 0: the correlation length.

    Raises:
        InputError: The length is not above 0.
    """

    def __init__(self, length: float = 1.0) -> None:
        if not length > 0:
            raise InputError(f"the length of noise must be above 0 cells, not {length:g}")
        self.length = length

    def __call__(
        self, coords: Tensor, channels: int, keys: np.ndarray, cells: Sequence[int]
    ) -> Tensor:
        """See `Noise.__call__`."""
        first, weights = self._stencil(coords, cells)
        total = np.zeros((*coords.shape[:2], channels))
        for node, weight in _taps(first, weights):
            total += weight[..., None] * _node_values(keys, node, channels)
        return torch.from_numpy(total).to(coords)

    def covariance(self, coords: Tensor, cells: Sequence[int]) -> Tensor:
        """See `Noise.covariance`."""
        nodes, weights = zip(*_taps(*self._stencil(coords, cells)), strict=True)
        every, column = np.unique(np.concatenate(nodes), axis=0, return_inverse=True)
        stencil = np.zeros((len(coords), len(every)))
        rows = np.tile(np.arange(len(coords)), len(nodes))
        np.add.at(stencil, (rows, column.ravel()), np.concatenate(weights))
        return torch.from_numpy(stencil @ stencil.T)

    def _stencil(self, coords: Tensor, cells: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return which four nodes lie around points along each axis, and what they weigh.

        Returns:
            The number of the first node (..., P), and the weights (..., P, 4) of all four, whose
            squares sum to 1.
        """
        position = (coords.double().cpu().numpy() + 1) * np.array(cells) / (2 * self.length) - 0.5
        nearest = np.rint(position)
        position = np.where(abs(position - nearest) < _ON_NODE, nearest, position)
        below = np.floor(position)
        f = position - below
        weights = np.stack(
            [
                ((2 - f) * f - 1) * f,
                (3 * f - 5) * f * f + 2,
                ((4 - 3 * f) * f + 1) * f,
                (f - 1) * f * f,
            ],
            axis=-1,
        )
        weights /= np.sqrt(np.square(weights).sum(-1, keepdims=True))
        return below.astype(np.int64) - 1, weights


def _taps(first: np.ndarray, weights: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return nodes (..., P) and weights (...) of all combinations that count somewhere."""
    taps = []
    for offsets in product(range(4), repeat=first.shape[-1]):
        weight = np.prod([weights[..., axis, k] for axis, k in enumerate(offsets)], axis=0)
        if weight.any():
            taps.append((first + np.array(offsets), weight))
    return taps


def _node_values(keys: np.ndarray, node: np.ndarray, channels: int) -> np.ndarray:
    """Return standard normal numbers (B, L, C) for nodes (B, L, P) of the fields of keys (B,)."""
    state = keys[:, None]
    for axis in range(node.shape[-1]):
        state = _mix(state ^ _mix(node[..., axis].astype(np.uint64)))
    bits = _mix(state[..., None] + np.arange(1, channels + 1, dtype=np.uint64))
    return ndtri(((bits >> np.uint64(11)) + 0.5) * 2.0**-53)


def _mix(x: np.ndarray) -> np.ndarray:
    """Scatter 64-bit numbers so that no bit of the result follows from few of the input."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


NOISES = ("lattice", "white")


def build_noise(name: str, length: float = 1.0) -> Noise:
    """Build noise by its name in NOISES.

    Args:
        name: `lattice`, a function of coordinates, or `white`, independent points.
        length: Correlation length in cells of the observed grid, for lattice noise.

    Raises:
        InputError: The name is unknown or the length is not above 0.
    """
    if name not in NOISES:
        raise unknown_name("noise", name, list(NOISES))
    return WhiteNoise() if name == "white" else LatticeNoise(length)
