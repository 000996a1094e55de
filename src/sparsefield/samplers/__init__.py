"""Samplers: they integrate a flow from source noise to data."""

from sparsefield.errors import unknown_name
from sparsefield.samplers.base import Sampler, SampleResult, Velocity
from sparsefield.samplers.ode import EulerSampler, HeunSampler

SAMPLERS: dict[str, type[Sampler]] = {
    "euler": EulerSampler,
    "heun": HeunSampler,
}


def build_sampler(name: str, steps: int = 10) -> Sampler:
    """Build a sampler by its name in SAMPLERS.

    Raises:
        InputError: The name is unknown or there is no step.
    """
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, list(SAMPLERS))
    return SAMPLERS[name](steps=steps)


__all__ = ["SAMPLERS", "SampleResult", "Sampler", "Velocity", "build_sampler"]
