"""Backbones: networks that predict at query points from noisy values and observations."""

import inspect
from typing import Any

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.flow.backbone import Backbone, Claims, Query
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
from sparsefield.models.perceiver_io import PerceiverIO
from sparsefield.models.transformer import TransformerCrossAttention

MODELS: dict[str, type[Backbone]] = {
    "v1": MambaCrossAttention,
    "v2": BidirectionalMambaPerceiver,
    "local": LocalDiffusion,
    "perceiver_io": PerceiverIO,
    "transformer": TransformerCrossAttention,
    "hybrid": LocalMambaHybrid,
    "ginr": MambaGINR,
    "ginr_fourier": FourierMambaGINR,
    "ginr_scent": ScentMambaGINR,
    "ginr_hybrid": HybridMambaGINR,
}


def model_defaults(name: str) -> dict[str, Any]:
    """Return the settings of a model and their defaults.

    Raises:
        InputError: The name is not in MODELS.
    """
    if name not in MODELS:
        raise unknown_name("model", name, list(MODELS))
    described = getattr(MODELS[name], "Settings", MODELS[name])
    parameters = inspect.signature(described).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def build_model(name: str, **settings: Any) -> Backbone:
    """Build a backbone by its name in MODELS.

    Raises:
        InputError: The name or a setting is unknown, or the settings do not fit together.
    """
    defaults = model_defaults(name)
    for key in settings:
        if key not in defaults:
            raise unknown_name(f"setting of model {name}", key, list(defaults))
    try:
        return MODELS[name](**settings)
    except ValueError as error:
        raise InputError(f"model {name}: {error}") from error


__all__ = ["MODELS", "Backbone", "Claims", "Query", "build_model", "model_defaults"]
