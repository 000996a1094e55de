"""The contract of samplers finds what it says it finds."""

import pytest
import torch

from sparsefield.samplers import AdamsBashforth, Euler, FixedStepSampler, Heun, SampleResult
from sparsefield.testing import check_sampler


class Boastful(Euler):
    order = 2


class Forgetful(AdamsBashforth):
    """Falls back to the Euler method: its memory is lost between steps."""

    def step(self, flow, x, t, s, memory):
        return super().step(flow, x, t, s, None)


class Miscounted(Heun):
    @classmethod
    def evaluations(cls, steps):
        return steps


class Greedy(Heun):
    @classmethod
    def steps_within(cls, nfe):
        return nfe


class Late(Euler):
    def step(self, flow, x, t, s, memory):
        flow.velocity(x, s)
        return super().step(flow, x, t, s, memory)


class Early(Euler):
    def time_grid(self, flow):
        return torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)


class Double(Euler):
    def __call__(self, *args, **settings):
        result = super().__call__(*args, **settings)
        return SampleResult(result.values.double(), result.nfe)


class Centred(Euler):
    def step(self, flow, x, t, s, memory):
        x, memory = super().step(flow, x, t, s, memory)
        return x - 1e-3 * x.mean(0), memory


class Biased(Euler):
    def step(self, flow, x, t, s, memory):
        x, memory = super().step(flow, x, t, s, memory)
        return x + 1e-3, memory


def test_a_good_sampler_passes():
    check_sampler(Euler, grid="cosine")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Boastful, "not 2"),
        (Forgetful, "falls with order 0.99, not 2"),
        (Miscounted, "`evaluations` says 7 where 13"),
        (Greedy, "`steps_within(3)` says 3, which takes 5"),
        (Late, "evaluated at t = 1"),
        (Early, "noise is read at t = 0, before the flow's `first_time`, 0.02"),
        (Double, "single precision became torch.float64"),
        (Centred, "depends on its batch"),
        (Biased, "samples have mean"),
        (FixedStepSampler, "abstract"),
        (torch.nn.Identity, "Identity is no Sampler"),
    ],
)
def test_what_is_broken_is_named(kind, sentence):
    with pytest.raises((AssertionError, TypeError)) as error:
        check_sampler(kind)
    assert sentence in str(error.value)
