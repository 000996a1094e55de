"""Load any model by name or path: a flow, or an interpolator."""

from pathlib import Path

import torch

from sparsefield.inference.checkpoint import resolve
from sparsefield.inference.interpolator import is_interpolator, load_interpolator, read_card
from sparsefield.inference.model import Model
from sparsefield.inference.model import load as load_flow
from sparsefield.inference.posterior import Posterior
from sparsefield.inference.universal import Interpolator, InterpolatorPosterior

AnyModel = Model | Interpolator
AnyPosterior = Posterior | InterpolatorPosterior


def load(name: str | Path = "default", device: str | torch.device = "cpu") -> AnyModel:
    """Load a bundled model by name, or a trained one by run folder or file.

    Args:
        name: Name of a bundled model, such as 'default' for colour images and 'universal' for
            scattered measurements of any scalar field; or a path.
        device: Where a flow is to compute, as torch names it; interpolators do so on the CPU.

    Returns:
        A flow as a `Model`, or an `Interpolator`.

    Raises:
        InputError: There is no such model, or the file is damaged.
    """
    path = resolve(name)
    if is_interpolator(path):
        return Interpolator(str(name), load_interpolator(path), read_card(path))
    return load_flow(name, device)
