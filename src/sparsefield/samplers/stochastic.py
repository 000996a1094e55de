"""Samplers that replace part of the noise by fresh noise on the way.

A step estimates data and noise from the state and puts them together anew,

    x_s = alpha_s x̂_1 + sqrt(sigma_s² - f²) x̂_0 + f z,

with fresh source noise z of size f. For exact estimates the distribution at s is the right one
whatever f is. The fresh part carries no errors of the steps before.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.flow.path import Coefficients
from sparsefield.samplers.base import ConditionedFlow, FixedStepSampler


class AncestralSampler(FixedStepSampler):
    """A sampler whose states combine estimated data, kept noise and fresh noise."""

    order = 1
    stochastic = True

    @abstractmethod
    def fresh(self, now: Coefficients, then: Coefficients) -> Tensor:
        """Return the size f of the fresh noise, at most `then.sigma`."""

    def step(
        self, flow: ConditionedFlow, x: Tensor, t: Tensor, s: Tensor, memory: None
    ) -> tuple[Tensor, None]:
        """See `FixedStepSampler.step`."""
        now, then = flow.path.coefficients(t), flow.path.coefficients(s)
        f = self.fresh(now, then)
        data = flow.data(x, t)
        noise = flow.noise_of(data, x, t)
        kept = (then.sigma.square() - f.square()).clamp_min(0).sqrt()
        ahead = then.alpha.to(x.dtype) * data + kept.to(x.dtype) * noise
        return (ahead + f.to(x.dtype) * flow.fresh_noise() if f > 0 else ahead), None


class SDE(AncestralSampler):
    r"""The stochastic differential equation with the flow's marginals, at a temperature T.

    .. math:: dx = \big(v - T \hat x_0\big)\, dt + g\, dW, \qquad g^2 = 2 T (1 - t)

    on the linear path, with :math:`T \hat x_0` and 1 - t replaced by
    :math:`-\dot\sigma T \hat x_0` and :math:`-\dot\sigma \sigma` on others; dW has the covariance
    of the source noise. Under the last two terms alone the noise is an Ornstein-Uhlenbeck
    process, whose exact solution is the step:
    :math:`f^2 = \sigma_s^2 \big(1 - (\sigma_s / \sigma_t)^{2T}\big)`. It adds no noise in the
    step to t = 1, and is the Euler method for T = 0.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al.,
        2021), Eq. 6 and 13, for the family of equations with the same marginals.

    Args:
        steps: See `FixedStepSampler`.
        grid: See `FixedStepSampler`.
        temperature: T, at least 0. The larger it is, the more noise is renewed in a step.

    Raises:
        InputError: The temperature is negative, or what `FixedStepSampler` raises.
    """

    def __init__(
        self,
        steps: int = 10,
        grid: str | Sequence[float] = "trained",
        temperature: float = 1.0,
    ) -> None:
        super().__init__(steps, grid)
        if not temperature >= 0:
            raise InputError(f"temperature must be at least 0, not {temperature:g}")
        self.temperature = temperature

    def fresh(self, now: Coefficients, then: Coefficients) -> Tensor:
        """See `AncestralSampler.fresh`."""
        kept = (then.sigma / now.sigma) ** (2 * self.temperature)
        return then.sigma * (1 - kept).sqrt()


class DDIM(AncestralSampler):
    r"""Generalised DDIM; deterministic for eta = 0, the ancestral sampler of DDPM for eta = 1.

    .. math:: f^2 = \eta^2 \frac{\sigma_s^2}{\sigma_t^2}
        \Big(\sigma_t^2 - \frac{\alpha_t^2}{\alpha_s^2} \sigma_s^2\Big)

    On the linear path and for eta = 0 it is the Euler method.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), Eq. 12 and 16.

    Args:
        steps: See `FixedStepSampler`.
        grid: See `FixedStepSampler`.
        eta: Size of the fresh noise, in [0, 1], in units of that of DDPM.

    Raises:
        InputError: eta is outside of [0, 1], or what `FixedStepSampler` raises.
    """

    def __init__(
        self, steps: int = 10, grid: str | Sequence[float] = "trained", eta: float = 0.0
    ) -> None:
        super().__init__(steps, grid)
        if not 0 <= eta <= 1:
            raise InputError(f"eta must be between 0 and 1, not {eta:g}")
        self.eta = eta

    def fresh(self, now: Coefficients, then: Coefficients) -> Tensor:
        """See `AncestralSampler.fresh`."""
        variance = now.sigma.square() - (now.alpha / then.alpha * then.sigma).square()
        return self.eta * then.sigma / now.sigma * torch.clamp_min(variance, 0).sqrt()
