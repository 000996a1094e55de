"""Samplers by a line of text, as the command line names them."""

from inspect import signature
from typing import Any

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.samplers.adaptive import DormandPrince
from sparsefield.samplers.base import Sampler
from sparsefield.samplers.ode import AdamsBashforth, Euler, Exponential, Heun
from sparsefield.samplers.stochastic import DDIM, SDE

SAMPLERS: dict[str, type[Sampler]] = {
    "euler": Euler,
    "heun": Heun,
    "ab2": AdamsBashforth,
    "deis": Exponential,
    "sde": SDE,
    "ddim": DDIM,
    "dopri5": DormandPrince,
}

# Its samples of ten evaluations are calibrated: results/default_samples.json.
DEFAULT_SAMPLER = "deis:grid=late"
DEFAULT_STEPS = 10


def build_sampler(name: str = DEFAULT_SAMPLER, steps: int = DEFAULT_STEPS) -> Sampler:
    """Build a sampler from a name and settings, such as `heun` or `ddim:eta=0.5,grid=late`.

    Args:
        name: Key of SAMPLERS; after a colon, settings of its class with commas between.
        steps: Steps of the time grid, at least 1; an adaptive sampler chooses its own.

    Raises:
        InputError: The sampler or a setting is unknown, a value is out of range, or a package is
            missing.
    """
    kind, key, text = _split(name)
    settings = _settings(kind, key, text)
    return kind(**settings) if kind.adaptive else kind(steps=steps, **settings)


def evaluations(name: str, steps: int) -> int:
    """Return how many evaluations a sampler, with or without settings, takes for so many steps.

    Raises:
        InputError: The sampler is unknown.
    """
    return _split(name)[0].evaluations(steps)


def steps_within(name: str, nfe: int) -> int:
    """Return the most steps with which a sampler takes at most `nfe` evaluations.

    Args:
        name: The sampler, with or without settings.
        nfe: Evaluations, at least 1.

    Raises:
        InputError: The sampler is unknown.
    """
    return _split(name)[0].steps_within(nfe)


def _split(name: str) -> tuple[type[Any], str, str]:
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
