"""A backbone, a path and a prediction type: everything a sampler needs to know."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparsefield.errors import unknown_name
from sparsefield.fields.observation import Observation
from sparsefield.flow.path import Coefficients, LinearPath

# Smallest divisor: at the ends of the path a quantity that the prediction does not determine
# is finite instead of infinite. Samplers do not evaluate there.
_TINY = 1e-5


def _data_from_velocity(v: Tensor, x_t: Tensor, c: Coefficients) -> Tensor:
    return (c.sigma * v - c.d_sigma * x_t) / (c.d_alpha * c.sigma - c.alpha * c.d_sigma)


def _data_from_noise(x_0: Tensor, x_t: Tensor, c: Coefficients) -> Tensor:
    return (x_t - c.sigma * x_0) / c.alpha.clamp_min(_TINY)


PREDICTIONS: dict[str, Callable[[Tensor, Tensor, Coefficients], Tensor]] = {
    "velocity": _data_from_velocity,
    "data": lambda x_1, x_t, c: x_1,
    "noise": _data_from_noise,
    "score": lambda score, x_t, c: _data_from_noise(-c.sigma * score, x_t, c),
}


class Flow(nn.Module):
    r"""A backbone whose prediction is read as velocity, data, noise or score.

    Every quantity follows from the data estimate :math:`\hat x_1` by

    .. math::
        \hat x_0 = (x_t - \alpha \hat x_1) / \sigma, \quad
        v = \dot\alpha \hat x_1 + \dot\sigma \hat x_0, \quad
        \nabla \log p = -\hat x_0 / \sigma.

    References:
        Flow Matching Guide and Code (Lipman et al., 2024), Table 1, for the conversions.

    Args:
        backbone: Callable as `Backbone.forward`.
        prediction: What the backbone predicts, a key of PREDICTIONS.
        path: Path between noise and data.
        time_shift: k > 0 that moves times towards the data, t = k u / (1 + (k - 1) u) for u in
            [0, 1], in training and in the sampler's grid. About 1 / (size of what is unknown):
            for k = 1 times are uniform.

    Raises:
        InputError: The prediction is not in PREDICTIONS.
    """

    backbone: Any  # a Backbone; the package of models stands above this one

    def __init__(
        self,
        backbone: nn.Module,
        prediction: str = "velocity",
        path: LinearPath | None = None,
        time_shift: float = 1.0,
    ) -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise unknown_name("prediction", prediction, list(PREDICTIONS))
        self.backbone = backbone
        self.prediction = prediction
        self.path = path or LinearPath()
        self.time_shift = time_shift

    def shift(self, u: Tensor) -> Tensor:
        """Move uniform times u in [0, 1] towards the data by `time_shift`."""
        return self.time_shift * u / (1 + (self.time_shift - 1) * u)

    def prepare(self, coords: Tensor, obs: Observation) -> Any:
        """Compute what all evaluations at these queries and observations share."""
        return self.backbone.prepare(coords, obs)

    def denoise(
        self, x_t: Tensor, t: Tensor, coords: Tensor, obs: Observation, prepared: Any = None
    ) -> Tensor:
        """Estimate the data x_1 (B, L, C) from x_t (B, L, C) at times t (B,)."""
        prediction = self.backbone(x_t, t, coords, obs, prepared).to(x_t.dtype)
        c = self.path.coefficients(t[:, None, None].to(x_t.dtype))
        return PREDICTIONS[self.prediction](prediction, x_t, c)

    def velocity(
        self, x_t: Tensor, t: Tensor, coords: Tensor, obs: Observation, prepared: Any = None
    ) -> Tensor:
        """Estimate the velocity dx/dt (B, L, C) of the flow at times t (B,) below 1."""
        x_1 = self.denoise(x_t, t, coords, obs, prepared)
        c = self.path.coefficients(t[:, None, None].to(x_t.dtype))
        return c.d_alpha * x_1 + c.d_sigma * self._noise(x_1, x_t, c)

    def score(
        self, x_t: Tensor, t: Tensor, coords: Tensor, obs: Observation, prepared: Any = None
    ) -> Tensor:
        """Estimate the score of x_t (B, L, C) for white source noise at times t (B,) below 1."""
        x_1 = self.denoise(x_t, t, coords, obs, prepared)
        c = self.path.coefficients(t[:, None, None].to(x_t.dtype))
        return -self._noise(x_1, x_t, c) / c.sigma.clamp_min(_TINY)

    def posterior_mean(self, x_0: Tensor, coords: Tensor, obs: Observation) -> Tensor:
        """Return E[x_1 | observations] (B, L, C): the data estimate at t = 0, one evaluation.

        At t = 0 the state is pure noise x_0 (B, L, C) and carries no information on the data.
        """
        return self.denoise(x_0, torch.zeros_like(x_0[:, 0, 0]), coords, obs)

    @staticmethod
    def _noise(x_1: Tensor, x_t: Tensor, c: Coefficients) -> Tensor:
        return (x_t - c.alpha * x_1) / c.sigma.clamp_min(_TINY)
