"""What a job computes: a field by a model, with baselines beside it."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsefield.baselines.points import Prediction
from sparsefield.baselines.registry import available_baselines, reconstruct_baseline
from sparsefield.core.errors import InputError
from sparsefield.core.words import counted
from sparsefield.data.colour import match_channels
from sparsefield.data.formats.reading import read
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import bundled_interpolators, bundled_models
from sparsefield.inference.field import Field
from sparsefield.inference.loading import AnyModel
from sparsefield.inference.model import Model
from sparsefield.inference.posterior import default_sampler
from sparsefield.samplers import NoiseFields, Sampler, SampleResult
from sparsefield.web.aside import Aside
from sparsefield.web.jobs import Job
from sparsefield.web.models import Models

# A field that a page can hold: cells, channels and samples together.
MOST_NUMBERS, MOST_SAMPLES, MOST_SIDE = 2**24, 64, 1024
LEVELS = (0.05, 0.95)

Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
        model: Name of a bundled model.
        size: Cells along each axis; those of the observed grid, or the model's, if empty.
        samples: Posterior samples.
        seed: Seed of the samples.
        baselines: Baselines to show beside the model.
        coords: Columns with the coordinates; found by their names if empty.
        value: Columns with the values; all that is left if empty.
        noise: Standard deviation of the measurement error, or the column that holds it.
    """

    model: str = "default"
    size: tuple[int, ...] = ()
    samples: int = 0
    seed: int = 0
    baselines: tuple[str, ...] = ()
    coords: tuple[str, ...] = ()
    value: tuple[str, ...] = ()
    noise: float | str | None = None

    @classmethod
    def parse(cls, text: str) -> "Request":
        """Return the request in a JSON object.

        Raises:
            InputError: It is no such object, or a number is out of range.
        """
        try:
            given: dict[str, Any] = json.loads(text)
            for key in ("baselines", "coords", "value"):
                given[key] = _names(given.get(key, ()))
            for key in ("samples", "seed"):
                given[key] = int(given.get(key, 0))
            given["size"] = tuple(int(cells) for cells in given.get("size", ()))
            request = cls(**given)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise InputError(f"the request cannot be understood: {error}") from error
        request._check()
        return request

    def _check(self) -> None:
        if self.model not in bundled_names():
            raise InputError(
                f"no bundled model '{self.model}'; there are {', '.join(bundled_names())}"
            )
        if not 0 <= self.samples <= MOST_SAMPLES or not 0 <= self.seed < 2**31:
            raise InputError(f"samples go from 0 to {MOST_SAMPLES}, and seeds from 0 to 2^31")
        if any(not 1 <= n <= MOST_SIDE for n in self.size) or len(self.size) > 3:
            raise InputError(f"a grid has 1 to {MOST_SIDE} cells along each of up to 3 axes")
        if self.noise is not None and not isinstance(self.noise, str | int | float):
            raise InputError("noise is a number or the name of a column")


def _names(given: Any) -> tuple[str, ...]:
    if not all(isinstance(each, str) for each in given) or isinstance(given, str):
        raise ValueError("names come in a list")
    return tuple(given)


@dataclass(frozen=True)
class Result:
    """What a page shows of a field.

    Attributes:
        field: The field itself, for downloads.
        facts: What can be said in JSON.
        arrays: Numbers (*shape, C), float32, by name: mean, std, lower, upper, sample 0, steps,
            and each baseline.
    """

    field: Field
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class Tools:
    """What jobs share.

    Attributes:
        models: Where models are loaded.
        aside: Where baselines are computed, as nothing else could end one.
    """

    models: Models = field(default_factory=Models)
    aside: Aside = field(default_factory=Aside)


def bundled_names() -> list[str]:
    """Return the names of the bundled models that a page offers."""
    names = {*bundled_models(), *bundled_interpolators()}
    first = [name for name in ("photographs", "universal", "default") if name in names]
    return first + sorted(names - set(first))


def observe(path: Path, request: Request) -> Observation:
    """Return the observations in a file, as the command line reads them.

    Raises:
        InputError: As `sf.read`.
    """
    return read(
        path,
        coords=request.coords or None,
        value=request.value or None,
        noise=request.noise,
    )


def reconstruct(path: Path, request: Request, job: Job, tools: Tools) -> Result:
    """Reconstruct the field in a file by a model and by baselines.

    Args:
        path: The file.
        request: What is asked for.
        job: Is told how far the work is, and may end it.
        tools: The models, and the process for baselines.

    Raises:
        InputError: The file or the request does not fit.
        Cancelled: The job was cancelled.
    """
    job.report("reading", 0)
    obs = observe(path, request)
    job.report(f"loading {request.model}", 0)
    model = tools.models.get(request.model, job.check)
    if obs.grid is not None and model.channels is not None:
        obs = match_channels(obs, model.channels, request.model)
    at = Grid(*_size(request, obs, model))
    _check_size(at, obs, request)
    made, steps = _by_model(model, obs, at, request, job)
    arrays = _arrays(made) | ({"steps": steps} if steps is not None else {})
    methods = {request.model: {"seconds": made.seconds, "note": ""}}
    baselines = _baselines(request, obs)
    for number, name in enumerate(baselines):
        job.report(name, number / len(baselines))
        found = tools.aside.call(job.check, _predict, name, *_given(obs, made))
        arrays[name] = made.on_grid(torch.from_numpy(found.mean.astype(np.float32)))
        methods[name] = {"seconds": found.seconds, "note": found.note}
    return Result(made, _facts(request, obs, made, methods, arrays), arrays)


def _size(request: Request, obs: Observation, model: AnyModel) -> tuple[int, ...]:
    if request.size and len(request.size) != obs.dims:
        raise InputError(f"the data have {obs.dims} axes; the grid asked for has {request.size}")
    return request.size or model.grid_for(obs)


def _check_size(at: Grid, obs: Observation, request: Request) -> None:
    layers = 4 + request.samples + len(request.baselines)
    if len(at) * obs.channels * layers > MOST_NUMBERS:
        raise InputError(
            f"{at} with {counted(request.samples, 'sample')} and "
            f"{counted(len(request.baselines), 'baseline')} is more than a page can "
            "show; take a smaller grid, fewer samples, or the command line"
        )


def _by_model(
    model: AnyModel, obs: Observation, at: Grid, request: Request, job: Job
) -> tuple[Field, np.ndarray | None]:
    """Return the field, and the estimates of the first sample along the sampler."""
    done = 0

    def progress(points: int) -> None:
        nonlocal done
        done += points
        job.report("mean", done / len(at))

    posterior = model.condition(obs, progress=progress)
    if not request.samples:
        return posterior.mean(at, seed=request.seed), None
    if not isinstance(model, Model):
        job.report("samples", 0)
        return posterior.sample(at, request.samples, seed=request.seed), None
    watched = WatchedSampler(default_sampler(), job.report, request.samples * len(at))
    made = posterior.sample(at, request.samples, sampler=watched, seed=request.seed)
    return made, _steps(watched.estimates, model, at)


def _steps(estimates: list[Tensor], model: Model, at: Grid) -> np.ndarray | None:
    """Return the estimates (T, *shape, C) in the unit of the values."""
    if not estimates or at.shape is None:
        return None
    values = torch.stack([model.spec.normalizer.invert(each) for each in estimates])
    return values.reshape(len(estimates), *at.shape, -1).numpy()


class WatchedSampler(Sampler):
    """A sampler that says how far it is, and keeps what the first sample looked like on the way.

    Args:
        inner: The sampler.
        report: Called with what is done and which share.
        points: Points of all samples.
    """

    def __init__(self, inner: Sampler, report: Report, points: int) -> None:
        self.inner, self.report, self.points = inner, report, points
        self.estimates: list[Tensor] = []
        self._done = 0

    def __repr__(self) -> str:
        """Name the sampler that does the work."""
        return repr(self.inner)

    def __call__(
        self, flow: Flow, noise: NoiseFields, query: Any, *, prepared: Any = None
    ) -> SampleResult:
        """Sample, and take note of every evaluation."""
        first = not self.estimates
        watched: Any = _WatchedFlow(flow, self._see, first)
        result = self.inner(watched, noise, query, prepared=prepared)
        self._done += result.values.shape[0] * result.values.shape[1]
        return result

    def _see(self, estimate: Tensor, keep: bool, count: int) -> None:
        steps = getattr(self.inner, "steps", 10)
        now = estimate.shape[0] * estimate.shape[1] * min(1.0, count / steps)
        self.report("samples", (self._done + now) / self.points)
        if keep:
            self.estimates.append(estimate[0].detach().clone())


class _WatchedFlow:
    """A flow whose data estimates are seen."""

    def __init__(self, flow: Flow, see: Callable[[Tensor, bool, int], None], keep: bool) -> None:
        self._flow, self._see, self._keep, self._count = flow, see, keep, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._flow, name)

    def denoise(self, *args: Any, **kwargs: Any) -> Tensor:
        estimate = self._flow.denoise(*args, **kwargs)
        self._count += 1
        self._see(estimate, self._keep, self._count)
        return estimate


def _arrays(made: Field) -> dict[str, np.ndarray]:
    found = {"mean": made.on_grid()}
    if made.std is not None:
        found["std"] = made.on_grid(made.std)
    if made.samples is not None:
        for number, sample in enumerate(made.samples):
            found[f"sample {number}"] = made.on_grid(sample)
    if (bounds := _interval(made)) is not None:
        found |= dict(zip(("lower", "upper"), map(made.on_grid, bounds), strict=True))
    return found


def _interval(made: Field) -> Tensor | None:
    """Return the bounds of a 90 % interval, if the field tells them."""
    count = 0 if made.samples is None else len(made.samples)
    if count < 19 and made.marginal is None:
        return None
    return made.quantiles(LEVELS)


def baselines_for(obs: Observation) -> list[str]:
    """Return the baselines that can run: a sphere's places, for one, lie in three dimensions."""
    return available_baselines(obs.positions().shape[-1], on_grid=obs.grid is not None)


def _baselines(request: Request, obs: Observation) -> list[str]:
    known = baselines_for(obs)
    for name in set(request.baselines) - set(known):
        raise InputError(f"no baseline '{name}' here; there are {', '.join(known)}")
    return list(request.baselines)


def _given(obs: Observation, made: Field) -> tuple[np.ndarray | None, ...]:
    """Return what a baseline is given: places, values, queries and the error, None if exact."""
    at, seen = made.at, obs.valid
    query = at.coords if obs.frame is None else obs.frame.positions(at.coords)
    noise = None if obs.noise is None else obs.noise[seen].numpy()
    return obs.positions()[seen].numpy(), obs.values[seen].numpy(), np.asarray(query), noise


def _predict(
    name: str,
    places: np.ndarray,
    values: np.ndarray,
    query: np.ndarray,
    noise: np.ndarray | None,
) -> Prediction:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the note says the same
        return reconstruct_baseline(name, places, values, query, noise=noise)


def _facts(
    request: Request,
    obs: Observation,
    made: Field,
    methods: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    frame = obs.frame
    return {
        "shape": list(made.shape or ()),
        "channels": int(made.mean.shape[-1]),
        "image": obs.grid is not None and frame is None,
        "observed": int(obs.valid.sum()),
        "model": request.model,
        "methods": dict(methods),
        "arrays": list(arrays),
        "samples": 0 if made.samples is None else len(made.samples),
        "steps": len(arrays["steps"]) if "steps" in arrays else 0,
        "frame": None if frame is None else _frame(frame),
        "nfe": made.nfe,
        "spread": "of the samples" if made.marginal is None else "of a new value",
    }


def _frame(frame: Any) -> dict[str, Any]:
    return {key: list(getattr(frame, key)) for key in ("names", "units", "low", "high")}
