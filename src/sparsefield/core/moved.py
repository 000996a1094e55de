"""Names and places of earlier versions, which answer with a warning for one release."""

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Modules that are no more, and the modules that have their names now.
MODULES: dict[str, tuple[str, ...]] = {
    "calibration_plots": ("figures.calibration",),
    "checkpoint": ("inference.checkpoint",),
    "cli.inputs": ("data.formats.reading",),
    "comparison_plots": ("figures.comparison",),
    "devices": ("core.devices",),
    "errors": ("core.errors",),
    "evaluation.benchmark": ("profiling.timing",),
    "evaluation.floor_scores": ("evaluation.baseline_scores",),
    "evaluation.floors": ("baselines.registry", "baselines.points"),
    "evaluation.metrics": ("metrics.error", "metrics.probabilistic", "metrics.statistics"),
    "evaluation.protocol": ("evaluation.task", "evaluation.run", "evaluation.scorers"),
    "evaluation.sampler_comparison": ("evaluation.samplers",),
    "evaluation.scan_benchmark": ("profiling.scans",),
    "evaluation.spectrum": ("metrics.spectrum",),
    "fields": (),
    "fields.cells": ("data.cells",),
    "fields.datasets": ("data.dataset",),
    "fields.files": ("data.formats.images",),
    "fields.gaussian": ("data.gaussian",),
    "fields.grids": ("data.grids",),
    "fields.masks": ("data.masks",),
    "fields.measurement": ("data.measurement",),
    "fields.normalize": ("data.normalize",),
    "fields.observation": ("data.observation",),
    "fields.photographs": ("data.photographs",),
    "fields.sources": ("data.formats.datasets",),
    "fields.synthetic": ("data.synthetic",),
    "files": ("core.files",),
    "models.base": ("flow.backbone",),
    "models.cost": ("profiling.flops",),
    "plots": ("figures.field",),
    "recalibration": ("inference.recalibration",),
    "reconstruction": ("inference.reconstruction", "inference.field", "inference.posterior"),
    "sampler_plots": ("figures.samplers",),
    "superres_plots": ("figures.superres",),
    "training.benchmark": ("profiling.models",),
    "training.size_benchmark": ("profiling.sizes",),
}

# Names that are no more: where they were, and what they are now.
NAMES: dict[str, dict[str, str]] = {
    "": {
        "Reconstruction": "inference.field.Field",
        "cell_centres": "data.grids.cell_centres",
        "fit_spread": "inference.legacy.fit_spread",
    },
    "inference": {
        "Model": "inference.model.Model",
        "bounded_chunk": "inference.model.bounded_chunk",
        "copy_observed": "inference.conditioned.copy_observed",
        "draw_samples": "inference.model.draw_samples",
        "load": "inference.loading.load",
        "posterior_mean": "inference.model.posterior_mean",
    },
    "inference.reconstruction": {"Reconstruction": "inference.field.Field"},
    "inference.recalibration": {
        "scale_spread": "inference.recalibration.inflate",
        "spread_factor": "inference.recalibration.inflation_factor",
    },
    "samplers": {
        "AdamsBashforthSampler": "samplers.ode.AdamsBashforth",
        "DDIMSampler": "samplers.stochastic.DDIM",
        "DormandPrinceSampler": "samplers.adaptive.DormandPrince",
        "EulerSampler": "samplers.ode.Euler",
        "ExponentialSampler": "samplers.ode.Exponential",
        "HeunSampler": "samplers.ode.Heun",
        "SDESampler": "samplers.stochastic.SDE",
    },
}
# What to call instead, where that says more than a place.
HINTS = {
    "sparsefield.Reconstruction": "sparsefield.Field",
    "sparsefield.cell_centres": "sparsefield.Grid(*shape).coords",
    "sparsefield.fit_spread": "model.condition(obs).recalibrated(at).inflation.factor",
}
_PACKAGE = "sparsefield."


def moved_names(module: str) -> Callable[[str], Any]:
    """Return a `__getattr__` for a module, which finds the names that it had before.

    Args:
        module: The `__name__` of the module.
    """
    old = NAMES[module.removeprefix("sparsefield").removeprefix(".")]

    def find(name: str) -> Any:
        if name not in old:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        _warn(f"{module}.{name}", [old[name]], stacklevel=3)
        home, _, attribute = old[name].rpartition(".")
        return getattr(import_module(_PACKAGE + home), attribute)

    return find


class _Finder(MetaPathFinder, Loader):
    """Finds modules of MODULES, when nothing else does, as stubs that know the new places."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what makes a stub."""
        if name.removeprefix(_PACKAGE) not in MODULES or not name.startswith(_PACKAGE):
            return None
        return ModuleSpec(name, self, is_package=name == _PACKAGE + "fields")

    def create_module(self, spec: ModuleSpec) -> None:
        """Let the stub be an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Let the stub find its names where they are now."""
        new = MODULES[module.__name__.removeprefix(_PACKAGE)]
        if new:
            _warn(module.__name__, new, stacklevel=2)

        def find(name: str) -> Any:
            for place in new:
                home = import_module(_PACKAGE + place)
                if hasattr(home, name):
                    return getattr(home, name)
            raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")

        module.__getattr__ = find  # type: ignore[method-assign]


def install() -> None:
    """Let Python find the modules of earlier versions."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def _warn(old: str, new: Sequence[str], stacklevel: int) -> None:
    places = HINTS.get(old, " and ".join(_PACKAGE + place for place in new))
    warnings.warn(f"{old} goes away: it is now {places}", DeprecationWarning, stacklevel + 1)
