"""What every sampler promises, as checks on Gaussian data, whose flow is known in closed form."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Claims, Query
from sparsefield.flow.flow import FIRST_TIME, OF_NOISE, Flow
from sparsefield.flow.noise import WhiteNoise, field_keys
from sparsefield.flow.path import PATHS, build_path
from sparsefield.samplers.base import Sampler, SampleResult

B, L, P, C = 2, 63, 3, 5
CELLS = (6, 7, 5)
# Mean and standard deviation of the data.
MEAN, SCALE = 0.7, 0.4


class GaussianBackbone(Backbone):
    """E[x_1 | x_t] for data N(m, s²) on the linear path; the flow carries x_0 to m + s x_0.

    Args:
        prediction: What is returned of it: data, or the noise that they leave in the state.

    Attributes:
        prepared: How often `prepare` was called.
        times: The times (B,) of every evaluation.
    """

    claims = Claims(query_invariant=True, order_invariant=True, linear_cost=True)

    def __init__(self, prediction: str = "data") -> None:
        super().__init__()
        self.prediction = prediction
        self.prepared, self.times = 0, list[Tensor]()

    def prepare(self, query: Query, encoded: Any = None) -> str:
        """Count the call."""
        self.prepared += 1
        return "prepared"

    def forward(self, x_t: Tensor, t: Tensor, query: Query, prepared: Any = None) -> Tensor:
        """Return the data estimate, or that of the noise."""
        assert prepared == "prepared", "the sampler drops what `flow.prepare` returned"
        self.times.append(t)
        t = t[:, None, None]
        gain = t * SCALE**2 / ((t * SCALE) ** 2 + (1 - t) ** 2)
        data = MEAN + gain * (x_t - t * MEAN)
        return data if self.prediction == "data" else (x_t - t * data) / (1 - t)


def check_sampler(kind: Callable[..., Sampler], **settings: Any) -> None:
    """Check that a sampler keeps the contract of `Sampler`, and has the order that it states.

    The error must fall with the stated order at least, less 0.3, on the linear and on the
    variance-preserving path. For stochastic samplers it is the error of the variance. The check
    takes a second or two.

    Args:
        kind: Class of the sampler; it takes `steps` unless it is adaptive.
        settings: Its other settings.

    Raises:
        AssertionError: The contract is broken; the message says how.
    """

    def make(steps: int) -> Sampler:
        adaptive = getattr(kind, "adaptive", False)
        return kind(**settings) if adaptive else kind(steps=steps, **settings)

    try:
        sampler = make(7)
    except InputError as error:
        raise AssertionError(f"the sampler cannot be made: {error}") from error
    assert isinstance(sampler, Sampler), f"{type(sampler).__name__} is no Sampler"
    _check_counts(make)
    _check_precision(make)
    _check_batches(make)
    _check_moments(make)
    if not sampler.adaptive:
        _check_budget(make)
        for path in PATHS:
            _check_order(make, path)


Make = Callable[[int], Sampler]


def gaussian_noise(count: int, step: int, seed: int = 0) -> Tensor:
    """Return the step-th field of white noise (count, L, C) in double precision."""
    keys = field_keys(seed, range(count), step)
    return WhiteNoise()(torch.zeros(count, L, P).double(), C, keys, CELLS)


def gaussian_sample(
    sampler: Sampler,
    noise: Callable[[int], Tensor],
    path: str = "linear",
    *,
    time_shift: float = 1.0,
    backbone: GaussianBackbone | None = None,
) -> tuple[SampleResult, GaussianBackbone]:
    """Return a sample of the Gaussian from source noise, and the backbone that was asked."""
    backbone = backbone or GaussianBackbone()
    flow = Flow(backbone, backbone.prediction, build_path(path), time_shift)
    count, points, channels = noise(0).shape
    obs = Observation(torch.zeros(count, 1, P), torch.zeros(count, 1, channels))
    query = Query(torch.zeros(count, points, P), obs)
    return sampler(flow, noise, query), backbone


def gaussian_moments(
    sampler: Sampler, steps: int, path: str = "linear", backbone: GaussianBackbone | None = None
) -> tuple[float, float]:
    """Return mean and variance of a sampler's result, exactly.

    A step is affine in state and noise, so the variance is the sum of squared responses to unit
    noise at each step: point k sees noise in step k alone, and the last point sees none.
    """
    unit = torch.eye(steps + 1, steps + 2).double()
    result, _ = gaussian_sample(
        sampler, lambda step: unit[step].reshape(1, -1, 1), path, backbone=backbone
    )
    responses = result.values[0, :, 0]
    centre = responses[-1]
    return centre.item(), (responses[:-1] - centre).square().sum().item()


def convergence_order(errors: list[float], steps: np.ndarray) -> float:
    """Return the power of 1 / steps with which errors fall."""
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


def _check_counts(make: Make) -> None:
    for steps in (1, 7):
        result, backbone = gaussian_sample(make(steps), lambda step: gaussian_noise(B, step))
        assert result.values.shape == (B, L, C), "a sample has not the shape of its noise"
        assert backbone.prepared == 1, "a sampler prepares the query once"
        times = torch.stack(backbone.times)
        assert times.min() == 0, "a sampler starts at t = 0"
        assert times.max() < 1, "the flow is evaluated at t = 1, where it has no velocity"
        if not make(steps).adaptive:
            calls = len(backbone.times)
            assert result.nfe == calls, f"nfe is {result.nfe} after {calls} evaluations"
            stated = type(make(steps)).evaluations(steps)
            assert stated == calls, f"`evaluations` says {stated} where {calls} are made"


def _check_precision(make: Make) -> None:
    values = gaussian_sample(make(3), lambda step: gaussian_noise(B, step).float())[0].values
    assert values.dtype == torch.float32, f"single precision became {values.dtype}"


def _check_batches(make: Make) -> None:
    def rows(which: slice) -> Tensor:
        fields = gaussian_sample(make(6), lambda step: gaussian_noise(5, step).float()[which])
        return fields[0].values

    whole = rows(slice(None))
    assert torch.equal(whole, rows(slice(None))), "the same noise gives another sample"
    parts = torch.cat([rows(slice(0, 2)), rows(slice(2, 5))])
    assert torch.equal(whole, parts), "the sample of an item depends on its batch"


def _check_moments(make: Make) -> None:
    for prediction in ("data", "noise"):
        result, backbone = gaussian_sample(
            make(200),
            lambda step: gaussian_noise(40, step),
            backbone=GaussianBackbone(prediction),
        )
        if prediction in OF_NOISE:
            first = min(float(t.min()) for t in backbone.times)
            assert first >= 0.999 * FIRST_TIME, (
                f"noise is read at t = {first:g}, before the flow's `first_time`, {FIRST_TIME}"
            )
        mean, deviation = result.values.mean().item(), result.values.std().item()
        assert abs(mean - MEAN) < 0.02, f"samples have mean {mean:.3f} instead of {MEAN}"
        assert abs(deviation / SCALE - 1) < 0.06, (
            f"samples have standard deviation {deviation:.3f} instead of {SCALE}"
        )


def _check_budget(make: Make) -> None:
    for nfe in (3, 8, 21):
        steps = type(make(1)).steps_within(nfe)
        spent = [
            gaussian_sample(make(n), lambda step: gaussian_noise(B, step))[0].nfe
            for n in (steps, steps + 1)
        ]
        assert spent[0] <= nfe < spent[1], (
            f"`steps_within({nfe})` says {steps}, which takes {spent[0]} evaluations; one step "
            f"more takes {spent[1]}"
        )


def _check_order(make: Make, path: str) -> None:
    sampler = make(1)
    if sampler.stochastic:
        steps = np.array([64, 128, 256, 512])
        variances = [gaussian_moments(make(int(n)), int(n), path)[1] for n in steps]
        errors = [abs(variance - SCALE**2) for variance in variances]
    else:
        steps, x_0 = np.array([32, 64, 128, 256]), gaussian_noise(B, 0)
        ends = [
            gaussian_sample(make(int(n)), {0: x_0}.__getitem__, path, time_shift=3.0)[0]
            for n in steps
        ]
        errors = [(end.values - (MEAN + SCALE * x_0)).abs().max().item() for end in ends]
    found = convergence_order(errors, steps)
    assert found > sampler.order - 0.3, (
        f"the error on the {path} path falls with order {found:.2f}, not {sampler.order}"
    )
