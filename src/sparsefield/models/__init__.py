"""Backbones: networks that predict at query points from noisy values and observations."""

import inspect
from typing import Any

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.flow.backbone import Backbone, Claims, Query
from sparsefield.models.external import find_external, is_trusted, trust
from sparsefield.models.ginr.models import (
    FourierMambaGINR,
    HybridMambaGINR,
    MambaGINR,
    ScentMambaGINR,
)
from sparsefield.models.hybrid import LocalMambaHybrid
from sparsefield.models.local import LocalDiffusion
from sparsefield.models.mamba_cross import MambaCrossAttention
from sparsefield.models.mamba_perceiver import BidirectionalMambaPerceiver
from sparsefield.models.optimal_interpolation import OptimalInterpolation
from sparsefield.models.perceiver_io import PerceiverIO
from sparsefield.models.transformer import TransformerCrossAttention
from sparsefield.models.unet import UNetHybrid

MODELS: dict[str, type[Backbone]] = {
    "v1": MambaCrossAttention,
    "v2": BidirectionalMambaPerceiver,
    "local": LocalDiffusion,
    "perceiver_io": PerceiverIO,
    "transformer": TransformerCrossAttention,
    "hybrid": LocalMambaHybrid,
    "unet": UNetHybrid,
    "ginr": MambaGINR,
    "ginr_fourier": FourierMambaGINR,
    "ginr_scent": ScentMambaGINR,
    "ginr_hybrid": HybridMambaGINR,
}

# Backbones in closed form: they are fitted to examples, and no gradient trains them.
FITTED: dict[str, type[Backbone]] = {"optimal_interpolation": OptimalInterpolation}

# Names that say what a model is, beside its key.
ALIASES = {"mamba_cross": "v1", "mamba_perceiver": "v2"}


def find_model(name: str) -> type[Backbone]:
    """Return a backbone's class by its name in MODELS or ALIASES, or as `module:Class`.

    A class of another package is found only if its module is imported already, or trusted: see
    `trust`.

    Raises:
        InputError: There is no such class, it is no backbone, or its module is not trusted.
    """
    key = ALIASES.get(name, name)
    known = MODELS | FITTED
    if key in known:
        return known[key]
    if ":" in name:
        return find_external(name)
    raise unknown_name("model", name, [*known, *ALIASES, "module:Class"])


def is_known(name: str) -> bool:
    """Tell whether the class of a model is in the package, or in a module that is trusted.

    Raises:
        InputError: The name is in no registry.
    """
    known = ALIASES.get(name, name) in MODELS | FITTED
    if not known and ":" not in name:
        raise unknown_name("model", name, [*MODELS, *FITTED, *ALIASES, "module:Class"])
    return known or is_trusted(name)


def model_defaults(name: str) -> dict[str, Any]:
    """Return the settings of a model and their defaults.

    Raises:
        InputError: See `find_model`.
    """
    kind = find_model(name)
    parameters = inspect.signature(getattr(kind, "Settings", kind)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def build_model(name: str, **settings: Any) -> Backbone:
    """Build a backbone with fresh weights.

    Args:
        name: Name in MODELS, or `module:Class`; see `find_model`.
        settings: Arguments of its class; `model_defaults` lists them.

    Raises:
        InputError: The name or a setting is unknown, its module is not trusted, or the settings do
            not fit together.
    """
    defaults = model_defaults(name)
    for key in settings:
        if key not in defaults:
            raise unknown_name(f"setting of model {name}", key, list(defaults))
    try:
        return find_model(name)(**settings)
    except ValueError as error:
        raise InputError(f"model {name}: {error}") from error


__all__ = [
    "ALIASES",
    "FITTED",
    "MODELS",
    "Backbone",
    "Claims",
    "Query",
    "build_model",
    "find_model",
    "is_known",
    "model_defaults",
    "trust",
]
