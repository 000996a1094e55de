"""Probability paths between source noise and data."""

from typing import NamedTuple

from torch import Tensor


class Coefficients(NamedTuple):
    """Coefficients of a path and their time derivatives, each shaped like the given times."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


class LinearPath:
    r"""The straight path :math:`x_t = t\,x_1 + (1 - t)\,x_0`, with velocity :math:`x_1 - x_0`.

    References:
        Flow Matching for Generative Modeling (Lipman et al., 2023), Eq. 22 with vanishing width.
    """

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return alpha, sigma and their derivatives at times t in [0, 1], any shape."""
        one = t.new_ones(t.shape)
        return Coefficients(t, 1 - t, one, -one)

    def interpolate(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
        """Return x_t (B, L, C) between noise x_0 and data x_1 (B, L, C) at times t (B,)."""
        c = self.coefficients(t[:, None, None])
        return c.alpha * x_1 + c.sigma * x_0
