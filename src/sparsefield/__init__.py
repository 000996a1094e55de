"""Reconstruct whole fields from scattered measurements."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsefield.core.errors import InputError
    from sparsefield.data.dataset import open_dataset
    from sparsefield.data.grids import cell_centres
    from sparsefield.data.observation import Observation
    from sparsefield.data.photographs import example
    from sparsefield.inference.model import Model, load
    from sparsefield.inference.reconstruction import Reconstruction, fit_spread, reconstruct
    from sparsefield.models import MODELS, build_model
    from sparsefield.samplers import SAMPLERS

__version__ = "0.1.0"

__all__ = [
    "MODELS",
    "SAMPLERS",
    "InputError",
    "Model",
    "Observation",
    "Reconstruction",
    "__version__",
    "build_model",
    "cell_centres",
    "example",
    "fit_spread",
    "load",
    "open_dataset",
    "reconstruct",
]

# Resolved on first use, so that `import sparsefield` does not wait for torch.
_HOMES = {
    "InputError": "core.errors",
    "MODELS": "models",
    "Model": "inference.model",
    "Observation": "data.observation",
    "Reconstruction": "inference.reconstruction",
    "SAMPLERS": "samplers",
    "build_model": "models",
    "cell_centres": "data.grids",
    "example": "data.photographs",
    "fit_spread": "inference.reconstruction",
    "load": "inference.model",
    "open_dataset": "data.dataset",
    "reconstruct": "inference.reconstruction",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sparsefield' has no attribute '{name}'")
    value = getattr(import_module(f"sparsefield.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
