"""Samplers: they integrate a flow from source noise to data."""

from inspect import signature
from typing import Any

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.samplers.adaptive import DormandPrinceSampler
from sparsefield.samplers.base import GRIDS, NoiseFields, Sampler, SampleResult, Trajectory
from sparsefield.samplers.ode import (
    AdamsBashforthSampler,
    EulerSampler,
    ExponentialSampler,
    HeunSampler,
)
from sparsefield.samplers.stochastic import DDIMSampler, SDESampler

SAMPLERS: dict[str, type[Sampler]] = {
    "euler": EulerSampler,
    "heun": HeunSampler,
    "ab2": AdamsBashforthSampler,
    "deis": ExponentialSampler,
    "sde": SDESampler,
    "ddim": DDIMSampler,
    "dopri5": DormandPrinceSampler,
}

# Its draws of ten evaluations are calibrated: docs/results/default_samples.json.
DEFAULT_SAMPLER = "deis:grid=late"


def build_sampler(name: str, steps: int = 10) -> Sampler:
    """Build a sampler from a name and settings, such as `heun` or `ddim:eta=0.5,grid=late`.

    Args:
        name: Key of SAMPLERS; after a colon, settings of its class with commas between.
        steps: Steps of the time grid.

    Raises:
        InputError: The sampler or a setting is unknown, or a value is out of range.
    """
    kind, key, text = _split(name)
    return kind(steps=steps, **_settings(kind, key, text))


def evaluations(name: str, steps: int) -> int:
    """Return how many evaluations a sampler, with or without settings, takes for so many steps.

    Raises:
        InputError: The sampler is unknown.
    """
    return _split(name)[0].evaluations(steps)


def steps_within(name: str, nfe: int) -> int:
    """Return the most steps with which a sampler, with or without settings, takes at most `nfe`
    evaluations.

    Raises:
        InputError: The sampler is unknown.
    """
    return _split(name)[0].steps_within(nfe)


def _split(name: str) -> tuple[type[Sampler], str, str]:
    """Return the class, the key and the settings of a sampler."""
    key, _, text = name.partition(":")
    if key not in SAMPLERS:
        raise unknown_name("sampler", key, list(SAMPLERS))
    return SAMPLERS[key], key, text


def _settings(kind: type[Sampler], key: str, text: str) -> dict[str, Any]:
    """Read `name=value,name=value`: numbers, but for the name of a grid."""
    known = [name for name in signature(kind).parameters if name != "steps"]
    settings: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in known:
            raise unknown_name(f"setting of {key}", name, known)
        try:
            settings[name] = value if name == "grid" else float(value)
        except ValueError as error:
            raise InputError(f"{key}: {name} must be a number, not '{value}'") from error
    return settings


__all__ = [
    "DEFAULT_SAMPLER",
    "GRIDS",
    "SAMPLERS",
    "NoiseFields",
    "SampleResult",
    "Sampler",
    "Trajectory",
    "build_sampler",
    "evaluations",
    "steps_within",
]
