"""Samplers: they integrate a flow from source noise to data.

`Exponential(10, grid="late")` is the default: its samples of ten evaluations are calibrated.
"""

from sparsefield.core.moved import moved_names
from sparsefield.samplers.adaptive import DormandPrince
from sparsefield.samplers.base import (
    GRIDS,
    ConditionedFlow,
    FixedStepSampler,
    NoiseFields,
    Sampler,
    SampleResult,
)
from sparsefield.samplers.ode import AdamsBashforth, Euler, Exponential, Heun
from sparsefield.samplers.spec import (
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    SAMPLERS,
    build_sampler,
    evaluations,
    steps_within,
)
from sparsefield.samplers.stochastic import DDIM, SDE, AncestralSampler

__getattr__ = moved_names(__name__)

__all__ = [
    "DDIM",
    "DEFAULT_SAMPLER",
    "DEFAULT_STEPS",
    "GRIDS",
    "SAMPLERS",
    "SDE",
    "AdamsBashforth",
    "AncestralSampler",
    "ConditionedFlow",
    "DormandPrince",
    "Euler",
    "Exponential",
    "FixedStepSampler",
    "Heun",
    "NoiseFields",
    "SampleResult",
    "Sampler",
    "build_sampler",
    "evaluations",
    "steps_within",
]
