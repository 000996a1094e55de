"""Mixtures of Gaussians as predictive distributions, in closed form."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 20  # of Newton's method, or of bisection where it leaves the bracket


class Mixture(NamedTuple):
    """A mixture of K Gaussians at every point.

    Attributes:
        log_weight: Logarithms of weights that sum to 1 (..., K).
        loc: Means of the parts (..., K).
        scale: Standard deviations of the parts (..., K), above 0.
    """

    log_weight: Tensor
    loc: Tensor
    scale: Tensor

    @property
    def mean(self) -> Tensor:
        """Return the mean (...)."""
        return (self.log_weight.exp() * self.loc).sum(-1)

    @property
    def std(self) -> Tensor:
        """Return the standard deviation (...)."""
        spread = (self.loc - self.mean[..., None]).square() + self.scale.square()
        return (self.log_weight.exp() * spread).sum(-1).sqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density (...) of values (...)."""
        z = (value[..., None] - self.loc) / self.scale
        part = -z.square() / 2 - self.scale.log() - math.log(2 * math.pi) / 2
        return (self.log_weight + part).logsumexp(-1)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probability (...) of at most the values (...)."""
        z = (value[..., None] - self.loc) / self.scale
        return (self.log_weight.exp() * torch.special.ndtr(z)).sum(-1)

    def crps(self, value: Tensor) -> Tensor:
        """Return the continuous ranked probability score (...) of values (...).

        Reference: The continuous ranked probability score for circular variables and its
        application to mesoscale forecast ensemble verification (Grimit et al., 2006), equation 5.
        """
        weight = self.log_weight.exp()
        near = _mean_distance(value[..., None] - self.loc, self.scale)
        gap = self.loc[..., :, None] - self.loc[..., None, :]
        both = (self.scale[..., :, None].square() + self.scale[..., None, :].square()).sqrt()
        apart = (weight[..., None] * weight[..., None, :] * _mean_distance(gap, both)).sum(
            (-1, -2)
        )
        return (weight * near).sum(-1) - apart / 2

    def quantile(self, level: float) -> Tensor:
        """Return the value (...) that is not exceeded with a probability in (0, 1)."""
        return self.from_normal(torch.special.ndtri(self.loc.new_tensor(level)))

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return what a standard normal variate becomes by a rising map: its quantile here.

        It lies between the same quantiles of the parts.

        Args:
            normal: Numbers that broadcast to (...), as (S, 1) and (S, ...) do.
        """
        level = torch.special.ndtr(normal)
        ends = self.loc + self.scale * normal[..., None]
        low, high = ends.amin(-1), ends.amax(-1)
        value = (low + high) / 2
        for _ in range(STEPS):
            excess = self.cdf(value) - level
            low, high = torch.where(excess < 0, value, low), torch.where(excess < 0, high, value)
            step = value - excess / self.log_prob(value).exp()
            inside = (step >= low) & (step <= high)
            value = torch.where(inside, step, (low + high) / 2)
        return value

    def affine(self, shift: Tensor, factor: Tensor) -> "Mixture":
        """Return the distribution of `shift + factor x` for factors above 0, each (...)."""
        shift, factor = shift[..., None], factor[..., None]
        return Mixture(self.log_weight, shift + factor * self.loc, factor * self.scale)

    def blur(self, std: Tensor) -> "Mixture":
        """Return the distribution after adding independent Gaussian noise of deviation (...)."""
        return self._replace(scale=(self.scale.square() + std[..., None].square()).sqrt())


def _mean_distance(offset: Tensor, scale: Tensor) -> Tensor:
    """Return the mean of |X| for X of mean `offset` and deviation `scale`."""
    z = offset / scale
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return scale * (2 * density + z * torch.erf(z / math.sqrt(2)))
