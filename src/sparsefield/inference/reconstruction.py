"""The one-liner: from observations to a whole field."""

from pathlib import Path

from sparsefield.core.errors import InputError
from sparsefield.core.moved import moved_names
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid, Points
from sparsefield.inference.field import LEVELS, Field
from sparsefield.inference.legacy import accept_old_call, fit_spread
from sparsefield.inference.loading import AnyModel, load
from sparsefield.inference.model import Model
from sparsefield.samplers import Sampler

__all__ = ["LEVELS", "Field", "Model", "fit_spread", "load", "reconstruct"]

__getattr__ = moved_names(__name__)


@accept_old_call
def reconstruct(
    model: AnyModel | str | Path,
    obs: Observation,
    at: Grid | Points | None = None,
    *,
    samples: int = 0,
    sampler: Sampler | None = None,
    seed: int = 0,
) -> Field:
    """Reconstruct the whole field from scattered observations.

    It is `load(model).condition(obs).mean(at)`, or `.sample(at, samples)` if samples are wanted.

    Args:
        model: What `load` returned, or what it takes: the name of a bundled model or a path.
        obs: Observations of one field in physical units, coords (M, P) in [-1, 1] and values
            (M, C).
        at: Where the field is wanted; by default on the grid that was observed, or else on the
            model's own.
        samples: Posterior samples S, at least 0; their standard deviation is the uncertainty.
        sampler: Integrates the flow; `samplers.Exponential(10, grid="late")` by default. An
            interpolator takes none.
        seed: Seed of the samples, at least 0.

    Returns:
        The field in physical units; see `Posterior` for what it reproduces.

    Raises:
        InputError: There is no such model, observations or query do not fit it, the field would
            take too much memory, or a number is out of range.
    """
    if samples < 0:
        raise InputError(f"samples and seed must be at least 0, not {samples} and {seed}")
    posterior = (load(model) if isinstance(model, str | Path) else model).condition(obs)
    if not samples:
        return posterior.mean(at, seed=seed)
    return posterior.sample(at, samples, sampler=sampler, seed=seed)
