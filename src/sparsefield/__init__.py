"""Reconstruct whole fields from scattered measurements."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparsefield.core import moved

if TYPE_CHECKING:
    from sparsefield import samplers
    from sparsefield.core.errors import InputError
    from sparsefield.data.dataset import open_dataset
    from sparsefield.data.formats.reading import read
    from sparsefield.data.frame import Frame
    from sparsefield.data.observation import Observation
    from sparsefield.data.photographs import example
    from sparsefield.data.query import Grid, Points
    from sparsefield.inference.field import Field
    from sparsefield.inference.loading import load
    from sparsefield.inference.model import Model
    from sparsefield.inference.posterior import Posterior
    from sparsefield.inference.reconstruction import reconstruct
    from sparsefield.inference.universal import Interpolator
    from sparsefield.integrations.estimator import SparseFieldRegressor
    from sparsefield.models import MODELS, build_model
    from sparsefield.samplers import SAMPLERS

__version__ = "0.1.0"

__all__ = [
    "MODELS",
    "SAMPLERS",
    "Field",
    "Frame",
    "Grid",
    "InputError",
    "Interpolator",
    "Model",
    "Observation",
    "Points",
    "Posterior",
    "SparseFieldRegressor",
    "__version__",
    "build_model",
    "example",
    "load",
    "open_dataset",
    "read",
    "reconstruct",
    "samplers",
]

# Resolved on first use, so that `import sparsefield` does not wait for torch.
_HOMES = {
    "Field": "inference.field",
    "Frame": "data.frame",
    "Grid": "data.query",
    "InputError": "core.errors",
    "Interpolator": "inference.universal",
    "MODELS": "models",
    "Model": "inference.model",
    "Observation": "data.observation",
    "Points": "data.query",
    "Posterior": "inference.posterior",
    "SAMPLERS": "samplers",
    "SparseFieldRegressor": "integrations.estimator",
    "build_model": "models",
    "example": "data.photographs",
    "load": "inference.loading",
    "open_dataset": "data.dataset",
    "read": "data.formats.reading",
    "reconstruct": "inference.reconstruction",
}

moved.install()
_moved_name = moved.moved_names(__name__)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name == "samplers":
        return import_module("sparsefield.samplers")
    if name not in _HOMES:
        return _moved_name(name)
    value = getattr(import_module(f"sparsefield.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
