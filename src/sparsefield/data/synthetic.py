"""Fields that are known exactly at any resolution: sums of plane waves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsefield.data.dataset import FieldDataset
from sparsefield.data.grids import cell_centres


@dataclass(frozen=True, eq=False)
class WaveField:
    """Sum of K plane waves per channel, `f_c(x) = sum_k a_kc cos(pi w_k . x + phi_kc)`.

    Args:
        wavevectors: `w`, periods across the domain along each axis, shape (K, P).
        amplitudes: `a`, shape (K, C).
        phases: `phi` in radians, shape (K, C).
    """

    wavevectors: np.ndarray
    amplitudes: np.ndarray
    phases: np.ndarray

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        dims: int = 2,
        channels: int = 1,
        waves: int = 8,
        max_frequency: float = 6.0,
    ) -> "WaveField":
        """Return a random field of unit variance, averaged over phases.

        Args:
            rng: Source of randomness.
            dims: Number of coordinate dimensions P.
            channels: Number of channels C.
            waves: Number of waves K.
            max_frequency: Most periods across the domain along an axis; a grid needs more than
                twice as many cells to show them.
        """
        amplitudes = rng.standard_normal((waves, channels))
        return cls(
            rng.uniform(-max_frequency, max_frequency, (waves, dims)),
            amplitudes * np.sqrt(2 / (amplitudes**2).sum(axis=0)),
            rng.uniform(0, 2 * np.pi, (waves, channels)),
        )

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        """Return the field at positions in [-1, 1] of shape (L, P), shape (L, C)."""
        angle = np.pi * coords @ self.wavevectors.T
        return np.einsum("kc,lkc->lc", self.amplitudes, np.cos(angle[..., None] + self.phases))

    def averaged(self, shape: Sequence[int]) -> "WaveField":
        """Return the field whose value at a cell's centre is the mean of this one over the cell.

        The mean of `cos(pi w . x + phi)` over a cell of width `2 / n_p` along axis p is its value
        at the centre times `prod_p sinc(w_p / n_p)`, `sinc(x) = sin(pi x) / (pi x)`.

        Args:
            shape: Cells per axis `(n_1, ..., n_P)`.
        """
        damping = np.sinc(self.wavevectors / np.asarray(shape)).prod(axis=1)
        return replace(self, amplitudes=self.amplitudes * damping[:, None])


def wave_images(count: int, side: int, seed: int = 0) -> FieldDataset:
    """Return exact area averages of wave fields: one seed is one set of images at any size.

    Values are `1/2 + f / (2 sqrt(2 K))` for fields `f` of unit variance made of K waves, which
    lie in [0, 1] by the Cauchy-Schwarz inequality.

    Args:
        count: Number of images N.
        side: Cells along each axis.
        seed: Seed of the images.

    Returns:
        Images of three independent channels, float32, shape (N, side, side, 3).
    """
    coords, images = cell_centres((side, side)).double().numpy(), []
    for index in range(count):
        field = WaveField.random(np.random.default_rng([seed, index]), channels=3)
        bound = np.sqrt(2 * len(field.wavevectors))
        images.append(0.5 + field.averaged((side, side))(coords) / (2 * bound))
    values = np.stack(images).astype(np.float32)
    return FieldDataset(values.reshape(count, side, side, 3), "analytic")
