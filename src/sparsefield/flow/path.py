"""Probability paths between source noise and data."""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from sparsefield.core.errors import unknown_name


class Coefficients(NamedTuple):
    """Coefficients of a path and their time derivatives, each shaped like the given times."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


class Path(ABC):
    r"""A way from noise to data, :math:`x_t = \alpha_t x_1 + \sigma_t x_0`."""

    @abstractmethod
    def coefficients(self, t: Tensor) -> Coefficients:
        """Return alpha, sigma and their derivatives at times t in [0, 1], any shape."""

    def interpolate(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
        """Return x_t (B, L, C) between noise x_0 and data x_1 (B, L, C) at times t (B,)."""
        c = self.coefficients(t[:, None, None])
        return c.alpha * x_1 + c.sigma * x_0


class LinearPath(Path):
    r"""The straight path :math:`x_t = t\,x_1 + (1 - t)\,x_0`, with velocity :math:`x_1 - x_0`.

    References:
        Flow Matching for Generative Modeling (Lipman et al., 2023), Eq. 22 with vanishing width.
    """

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return alpha, sigma and their derivatives at times t in [0, 1], any shape."""
        one = t.new_ones(t.shape)
        return Coefficients(t, 1 - t, one, -one)


class VariancePreservingPath(Path):
    r"""The arc :math:`x_t = \sin(\pi t / 2)\,x_1 + \cos(\pi t / 2)\,x_0` of diffusion models.

    Where noise and data have the same variance, so has x_t at every time. It is the cosine
    schedule of DDPM in continuous time.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), Eq. 17
        without offset.
        Stochastic Interpolants (Albergo et al., 2023), Table 8, "trigonometric".
    """

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return alpha, sigma and their derivatives at times t in [0, 1], any shape."""
        quarter = math.pi / 2
        sine, cosine = (quarter * t).sin(), (quarter * (1 - t)).sin()
        return Coefficients(sine, cosine, quarter * cosine, -quarter * sine)


PATHS: dict[str, type[Path]] = {
    "linear": LinearPath,
    "variance_preserving": VariancePreservingPath,
}


def build_path(name: str) -> Path:
    """Build a path by its name in PATHS.

    Raises:
        InputError: The name is unknown.
    """
    if name not in PATHS:
        raise unknown_name("path", name, list(PATHS))
    return PATHS[name]()
