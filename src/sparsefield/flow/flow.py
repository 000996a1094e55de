"""A backbone, a path and a prediction type: everything a sampler needs to know."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparsefield.core.errors import unknown_name
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Query
from sparsefield.flow.noise import LatticeNoise, Noise
from sparsefield.flow.path import Coefficients, LinearPath, Path
from sparsefield.flow.residual import (
    RESIDUALS,
    Interpolated,
    Standard,
    interpolate,
    standardise,
)

# Predictions that say nothing of the data at t = 0, the time at which samplers first read them,
# and that of the posterior mean.
OF_NOISE = ("noise", "score")
FIRST_TIME, MEAN_TIME = 0.02, 0.2

# Smallest divisors: at the ends of the path a quantity that the prediction does not determine
# is finite instead of infinite. Samplers do not evaluate there. A residual may be a millionth of
# the data, and its signal is as much smaller.
_TINY, _LEAST_SIGNAL = 1e-5, 1e-12


def _data_from_velocity(v: Tensor, x_t: Tensor, c: Coefficients) -> Tensor:
    return (c.sigma * v - c.d_sigma * x_t) / (c.d_alpha * c.sigma - c.alpha * c.d_sigma)


def _data_from_noise(x_0: Tensor, x_t: Tensor, c: Coefficients) -> Tensor:
    return (x_t - c.sigma * x_0) / c.alpha.clamp_min(_LEAST_SIGNAL)


def _data_from_correction(f: Tensor, x_t: Tensor, c: Coefficients, k: float) -> Tensor:
    signal, noise = c.alpha, k * c.sigma  # in units of 1/k, the size of what is unknown
    total = signal.square() + noise.square()
    return signal / total * x_t + noise / (k * total.sqrt()) * f


# x_1 from the prediction, x_t, the coefficients of the path and the flow's time_shift
PREDICTIONS: dict[str, Callable[[Tensor, Tensor, Coefficients, float], Tensor]] = {
    "velocity": lambda v, x_t, c, k: _data_from_velocity(v, x_t, c),
    "data": lambda x_1, x_t, c, k: x_1,
    "noise": lambda x_0, x_t, c, k: _data_from_noise(x_0, x_t, c),
    "score": lambda score, x_t, c, k: _data_from_noise(-c.sigma * score, x_t, c),
    "correction": _data_from_correction,
}


class Encoded(NamedTuple):
    """What a flow of residuals computes from the observations alone.

    Attributes:
        standard: Observations in standard units, which the backbone sees.
        backbone: What its `encode` returned for them.
    """

    standard: Standard
    backbone: Any


class Prepared(NamedTuple):
    """What a flow of residuals computes at a query.

    Attributes:
        standard: Observations in standard units, which the backbone sees.
        around: The interpolation whose residual is transported.
        backbone: What its `prepare` returned.
    """

    standard: Standard
    around: Interpolated
    backbone: Any


class Flow(nn.Module):
    r"""A backbone whose prediction is read as velocity, data, noise, score or correction.

    Every quantity follows from the data estimate :math:`\hat x_1` by

    .. math::
        \hat x_0 = (x_t - \alpha \hat x_1) / \sigma, \quad
        v = \dot\alpha \hat x_1 + \dot\sigma \hat x_0, \quad
        K \nabla \log p = -\hat x_0 / \sigma,

    where K is the covariance of the source noise.

    A correction F is that of the best linear estimate from x_t alone for data of size 1/k,

    .. math::
        \hat x_1 = \frac{\alpha x_t}{\alpha^2 + k^2 \sigma^2}
        + \frac{\sigma F}{\sqrt{\alpha^2 + k^2 \sigma^2}},

    which asks the backbone for something of unit size at every time and lets the state through
    where it is better than anything a network could add.

    With `residual`, the backbone works on the residual r around an interpolation m of the
    observations, in units of its size s, which follows from the observations as well:

    .. math:: x_1 = m + s r, \qquad x_t - \alpha m = \alpha s\, r + \sigma x_0.

    It reads observations in standard units, and its prediction is one of r on the path
    :math:`(\alpha s, \sigma)`. Data or a correction of 0 is then the interpolation, and an affine
    change of all values changes the result in the same way. Samplers and objectives see none of
    it.

    Noise and score tell the data estimate only by a division by :math:`\alpha`, which is 0 at
    t = 0. They are read from the time `first_time`, :math:`\tau`, on, where the state starts as

    .. math:: x_\tau = \alpha_\tau m + \sqrt{\sigma_\tau^2 + \alpha_\tau^2 s^2}\; x_0,

    the distribution of :math:`x_\tau` for Gaussian data of mean m and standard deviation s: those
    of the residual's interpolation, or m = 0 and s = 1/k. Where they are not those of the data,
    samples have a mean that is off by about :math:`\alpha_\tau` times the difference, in units
    of their own standard deviation. In the data estimate an error of the predicted noise is
    :math:`\sigma / \alpha` times as large. Samplers forgive that, the posterior mean does not:
    it is read later, at `mean_time`, in the state that the same equation has there.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        Eq. 7 and Table 1, for the correction.
        Flow Matching Guide and Code (Lipman et al., 2024), Table 1, for the conversions.

    Args:
        backbone: The network.
        prediction: What the backbone predicts, a key of PREDICTIONS.
        path: Path between noise and data.
        time_shift: k > 0 that moves times towards the data, t = k u / (1 + (k - 1) u) for u in
            [0, 1], in training and in the sampler's grid. About 1 / (size of what is unknown):
            for k = 1 times are uniform.
        noise: Source noise; a function of coordinates, `LatticeNoise`, by default.
        residual: Interpolation whose residual the backbone predicts, a name in RESIDUALS.

    Attributes:
        first_time: Time at which samplers start and from which on it is trained: FIRST_TIME for
            noise and score, 0 for the other predictions.
        mean_time: Time at which the posterior mean is read: MEAN_TIME for noise and score, 0 for
            the other predictions.

    Raises:
        InputError: The prediction is not in PREDICTIONS, or the residual not in RESIDUALS.
    """

    backbone: Backbone

    def __init__(
        self,
        backbone: Backbone,
        prediction: str = "velocity",
        path: Path | None = None,
        time_shift: float = 1.0,
        noise: Noise | None = None,
        residual: str = "none",
    ) -> None:
        super().__init__()
        if residual not in RESIDUALS:
            raise unknown_name("residual", residual, list(RESIDUALS))
        if prediction not in PREDICTIONS:
            raise unknown_name("prediction", prediction, list(PREDICTIONS))
        self.backbone = backbone
        self.prediction = prediction
        self.path = path or LinearPath()
        self.time_shift = time_shift
        self.noise = noise or LatticeNoise()
        self.residual = residual
        late = prediction in OF_NOISE
        self.first_time, self.mean_time = (FIRST_TIME, MEAN_TIME) if late else (0.0, 0.0)

    def shift(self, u: Tensor) -> Tensor:
        """Move uniform times u in [0, 1] towards the data by `time_shift`."""
        return self.time_shift * u / (1 + (self.time_shift - 1) * u)

    def delay(self, t: Tensor) -> Tensor:
        """Move times t in [0, 1] to [first_time, 1], linearly."""
        return t + self.first_time * (1 - t)

    def start(self, x_0: Tensor, query: Query, prepared: Any = None) -> Tensor:
        """Return the state (B, L, C) at `first_time` that starts from source noise (B, L, C)."""
        return self._guess(x_0, self.first_time, query, prepared)

    def _guess(self, x_0: Tensor, time: float, query: Query, prepared: Any) -> Tensor:
        """Return a state of data of which the interpolation is all that is known."""
        if time == 0:
            return x_0
        mean, size = 0.0, 1 / self.time_shift
        if self.residual != "none":
            mean, size = (self.prepare(query) if prepared is None else prepared).around
        c = self._coefficients(x_0, _times(x_0, time))
        return c.alpha * mean + (c.sigma**2 + (c.alpha * size) ** 2).sqrt() * x_0

    def encode(self, obs: Observation) -> Any:
        """Compute what all queries of these batched observations share."""
        if self.residual == "none":
            return self.backbone.encode(obs)
        standard = standardise(self.residual, obs)
        return Encoded(standard, self.backbone.encode(standard.obs))

    def prepare(self, query: Query, encoded: Any = None) -> Any:
        """Compute what all evaluations at a query share, from what `encode` returned if given."""
        if self.residual == "none":
            return self.backbone.prepare(query, encoded)
        standard, seen = self.encode(query.obs) if encoded is None else encoded
        around = interpolate(self.residual, standard, query.coords)
        prepared = self.backbone.prepare(query._replace(obs=standard.obs), seen)
        return Prepared(standard, around, prepared)

    def denoise(self, x_t: Tensor, t: Tensor, query: Query, prepared: Any = None) -> Tensor:
        """Estimate the data x_1 (B, L, C) from x_t (B, L, C) at times t (B,).

        The backbone always sees the linear path: divided by alpha + sigma, the state of any path
        is the linear one's at time alpha / (alpha + sigma).
        """
        c = self._coefficients(x_t, t)
        if self.residual != "none":
            return self._denoise_residual(x_t, c, query, prepared)
        total = c.alpha + c.sigma
        time = (c.alpha / total)[:, 0, 0]
        prediction = self.backbone(x_t / total, time, query, prepared)
        return PREDICTIONS[self.prediction](prediction.to(x_t.dtype), x_t, c, self.time_shift)

    def _denoise_residual(
        self, x_t: Tensor, c: Coefficients, query: Query, prepared: Prepared | None
    ) -> Tensor:
        """Estimate the data from the prediction of a residual of unit size."""
        standard, (mean, size), inner = self.prepare(query) if prepared is None else prepared
        unit = Coefficients(size * c.alpha, c.sigma, size * c.d_alpha, c.d_sigma)
        level = standard.std * standard.level * c.alpha
        time = (level / (level + c.sigma))[:, 0, 0]
        state = x_t - c.alpha * mean
        seen = query._replace(obs=standard.obs)
        prediction = self.backbone(state / (unit.alpha + unit.sigma), time, seen, inner)
        read = PREDICTIONS[self.prediction]
        return mean + size * read(prediction.to(x_t.dtype), state, unit, 1.0)

    def velocity(self, x_t: Tensor, t: Tensor, query: Query, prepared: Any = None) -> Tensor:
        """Estimate the velocity dx/dt (B, L, C) of the flow at times t (B,) below 1."""
        return self.velocity_of(self.denoise(x_t, t, query, prepared), x_t, t)

    def score(self, x_t: Tensor, t: Tensor, query: Query, prepared: Any = None) -> Tensor:
        """Estimate the score of x_t (B, L, C) times K, at times t (B,) below 1.

        K is the covariance of the source noise: for white noise this is the score itself. Where
        noise is smooth, K has no inverse and x_t no density, but the product exists, and it is
        what a Langevin step whose noise has the covariance K needs.
        """
        x_1 = self.denoise(x_t, t, query, prepared)
        sigma = self._coefficients(x_t, t).sigma.clamp_min(_TINY)
        return -self.noise_of(x_1, x_t, t) / sigma

    def velocity_of(self, x_1: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the velocity that a data estimate x_1 (B, L, C) of x_t at times t (B,) means."""
        c = self._coefficients(x_t, t)
        return c.d_alpha * x_1 + c.d_sigma * self.noise_of(x_1, x_t, t)

    def noise_of(self, x_1: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the noise that a data estimate x_1 (B, L, C) of x_t at times t (B,) means."""
        c = self._coefficients(x_t, t)
        return (x_t - c.alpha * x_1) / c.sigma.clamp_min(_TINY)

    def posterior_mean(self, x_0: Tensor, query: Query, prepared: Any = None) -> Tensor:
        """Return E[x_1 | observations] (B, L, C): the data estimate at t = 0, one evaluation.

        At t = 0 the state is pure noise x_0 (B, L, C) and carries no information on the data.
        Predictions of noise and score are read at `mean_time`, where it carries little.
        """
        state = self._guess(x_0, self.mean_time, query, prepared)
        return self.denoise(state, _times(x_0, self.mean_time), query, prepared)

    def _coefficients(self, x_t: Tensor, t: Tensor) -> Coefficients:
        return self.path.coefficients(t[:, None, None].to(x_t.dtype))


def _times(x_0: Tensor, t: float) -> Tensor:
    return torch.full_like(x_0[:, 0, 0], t)
