"""Score a model on fields over time: stations that stay or move, intervals blocked by day."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from sparsefield import metrics
from sparsefield.baselines.points import BaselineWarning
from sparsefield.baselines.registry import reconstruct_baseline
from sparsefield.core.errors import InputError, unknown_name
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.query import Grid
from sparsefield.evaluation.report import Head, head
from sparsefield.evaluation.serialise import BASELINES, INLINE
from sparsefield.evaluation.task import Protocol, Task, make_task
from sparsefield.inference.model import Model
from sparsefield.metrics.statistics import Estimate, estimate

PLAIN = ("nearest", "tps", "kriging")
# Kriging of what the climatology of the training days leaves.
ANOMALY = "anomaly_kriging"
# The same in standard deviations of each cell.
STANDARDISED = "standardised_anomaly_kriging"
CLIMATIC = frozenset({ANOMALY, STANDARDISED})
SCORES = ("mse", "mae", "crps", "coverage50", "coverage90")
Table = dict[str, Estimate]


@dataclass(frozen=True)
class Scored:
    """A method on all items, in the units of the values, on the cells that were not observed.

    Attributes:
        estimates: rmse, mae and, of a distribution, crps, coverage50 and coverage90.
        seconds: Time that it took.
    """

    estimates: Table = field(metadata=INLINE)
    seconds: float


@dataclass(frozen=True)
class Stations:
    """What stations of one kind say.

    Attributes:
        mean: rmse and mae of the model's mean; None for baselines alone.
        predictive: crps, coverage50 and coverage90 of its samples.
        baselines: Scores of each baseline.
        differences: rmse and crps of the model less those of each baseline.
    """

    mean: Table | None
    predictive: Table | None
    baselines: dict[str, Scored] | None = field(metadata=BASELINES)
    differences: dict[str, Table] | None


@dataclass(frozen=True)
class SeriesEvaluation:
    """A model and baselines on fields over time; 95 % intervals resample whole days.

    Attributes:
        head: What was measured.
        days: Number of days.
        unit: Unit of the values.
        samples: Posterior samples per item.
        seconds: Time that the model took.
        moving: Stations that differ from item to item.
        fixed: Stations that stay.
    """

    head: Head = field(metadata=INLINE)
    days: int
    unit: str
    samples: int
    seconds: float
    moving: Stations = field(metadata=INLINE)
    fixed: Stations


def evaluate_series(
    model: Model | None,
    fields: FieldDataset,
    protocol: Protocol,
    *,
    samples: int = 16,
    names: Sequence[str] = (),
    progress: Callable[[int], None] = lambda count: None,
) -> SeriesEvaluation:
    """Score a model and baselines on every item, from moving and from fixed stations.

    Args:
        model: The model; None for baselines alone.
        fields: Fields over time.
        protocol: Density and seed of the masks.
        samples: Posterior samples per item, at least 2.
        names: Baselines, among nearest, tps, kriging, and where the model has learnt a
            climatology anomaly_kriging and standardised_anomaly_kriging.
        progress: Called with the number of items done after each, once for either kind.

    Raises:
        InputError: There are fewer than two samples, or the grid is not that of the climatology.
    """
    if model is not None and samples < 2:
        raise InputError("a distribution takes at least 2 samples; add --samples 16")
    days = fields.days if fields.days is not None else np.arange(len(fields))
    found, seconds = [], 0.0
    for stations in ("moving", "fixed"):
        kind = replace(protocol, stations=stations)
        scores = _score_all(model, fields, kind, samples, names, progress)
        seconds += float(scores["model"]["seconds"].sum()) if model is not None else 0.0
        found.append(_summarise(scores, days))
    name = "baselines" if model is None else model.name
    device = "cpu" if model is None else model.device
    said = head(fields, protocol, device, model=name)
    count, unit = len(np.unique(days)), "" if fields.series is None else fields.series.unit
    return SeriesEvaluation(said, count, unit, samples if model else 0, seconds, *found)


def choose_series_baselines(names: str, model: Model | None) -> list[str]:
    """Return the baselines that "all", "none" or a list stands for.

    Raises:
        InputError: A name is unknown, or there is no climatology.
    """
    has = model is not None and model.flow.backbone.climate() is not None
    known = [*PLAIN, ANOMALY, STANDARDISED] if has else [*PLAIN]
    if names in ("all", "none"):
        return known if names == "all" else []
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in known:
            raise unknown_name("baseline", name, [*known, "all", "none"])
    return chosen


def _score_all(
    model: Model | None,
    fields: FieldDataset,
    protocol: Protocol,
    samples: int,
    names: Sequence[str],
    progress: Callable[[int], None],
) -> dict[str, dict[str, np.ndarray]]:
    """Return scores (N,) of all items by method and name."""
    rows: dict[str, list[dict[str, float]]] = {}
    climate = spread = None
    if model is not None and not CLIMATIC.isdisjoint(names):
        climate, spread = _climate(model, fields)
    for item in range(len(fields)):
        task = make_task(fields, protocol, [item])
        if model is not None:
            rows.setdefault("model", []).append(_score_model(model, task, samples))
        for name in names:
            base = climate[item] if climate is not None and name in CLIMATIC else None
            unit = spread if name == STANDARDISED else None
            rows.setdefault(name, []).append(_score_baseline(name, fields, task, base, unit))
        progress(1)
    return {
        name: {key: np.array([row[key] for row in each]) for key in each[0]}
        for name, each in rows.items()
    }


def _score_model(model: Model, task: Task, samples: int) -> dict[str, float]:
    start = time.perf_counter()
    seed = task.seed * 2**20 + task.items[0]
    said = model.condition(task.obs.item(0)).sample(Grid(*task.shape), samples, seed=seed)
    seconds = time.perf_counter() - start
    assert said.samples is not None, "samples were asked for"
    drawn = said.samples[:, None]
    missing, truth = task.missing, task.truth
    return _errors(said.mean[None], task) | {
        "crps": float(metrics.crps_ensemble(drawn, truth, missing)),
        "coverage50": float(metrics.coverage(drawn, truth, 0.5, missing)),
        "coverage90": float(metrics.coverage(drawn, truth, 0.9, missing)),
        "seconds": seconds,
    }


def _score_baseline(
    name: str, fields: FieldDataset, task: Task, base: Tensor | None, unit: Tensor | None
) -> dict[str, float]:
    """Score a baseline on a map in km: of values, or of anomalies (v - base) / unit, (L, C)."""
    start, obs = time.perf_counter(), task.obs.item(0)
    lengths = np.ones(obs.dims) if fields.series is None else fields.series.lengths
    scale = lengths / lengths.mean()
    at = task.coords[0].double().numpy() * scale
    base = torch.zeros(1, 1) if base is None else base
    unit = torch.ones(1, 1) if unit is None else unit
    index = torch.cdist(obs.coords, task.coords[0]).argmin(1)
    seen = [x.expand(len(at), -1)[index] for x in (base, unit)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BaselineWarning)
        said = reconstruct_baseline(
            "kriging" if name in CLIMATIC else name,
            obs.coords.double().numpy() * scale,
            ((obs.values.double() - seen[0]) / seen[1]).numpy(),
            at,
        )
    mean = torch.from_numpy(said.mean) * unit + base
    scores = _errors(mean[None], task)
    if said.std is not None:
        scores |= _score_gaussian(mean[None], (torch.from_numpy(said.std) * unit)[None], task)
    return scores | {"seconds": time.perf_counter() - start}


def _score_gaussian(mean: Tensor, std: Tensor, task: Task) -> dict[str, float]:
    def covered(level: float) -> float:
        inside = metrics.covers_gaussian(mean, std, task.truth, level)
        return float(inside[task.missing].double().mean())

    crps = metrics.crps_gaussian(mean, std, task.truth, task.missing)
    return {"crps": float(crps), "coverage50": covered(0.5), "coverage90": covered(0.9)}


def _errors(mean: Tensor, task: Task) -> dict[str, float]:
    return {
        "mse": float(metrics.mse(mean, task.truth, task.missing)),
        "mae": float(metrics.mae(mean, task.truth, task.missing)),
    }


def _climate(model: Model, fields: FieldDataset) -> tuple[Tensor, Tensor]:
    """Return the climatology (N, L, C) at the hour of each item, and the deviation (L, C)."""
    known = model.flow.backbone.climate()
    assert known is not None, "anomalies are those of a model with a climate"
    if known.mean.shape[1] != fields.points:
        raise InputError(
            f"the climatology of model '{model.name}' has {known.mean.shape[1]} cells, and "
            f"{fields.name} {fields.points}; evaluate with --baselines {','.join(PLAIN)}"
        )
    invert = model.spec.normalizer.invert
    mean, std = invert(known.mean), invert(known.std) - invert(torch.zeros_like(known.std))
    has_hours = fields.series is not None and fields.series.times is not None
    if len(mean) == 1 or fields.series is None or not has_hours:
        return mean.mean(0, keepdim=True).expand(len(fields), -1, -1), std
    return mean[torch.from_numpy(fields.series.hours)], std


def _summarise(scores: Mapping[str, Mapping[str, np.ndarray]], days: np.ndarray) -> Stations:
    daily = {
        name: {key: _by_day(each[key], days) for key in SCORES if key in each}
        for name, each in scores.items()
    }
    tables = {name: _table(each) for name, each in daily.items()}
    baselines = {
        name: Scored(table, float(scores[name]["seconds"].sum()))
        for name, table in tables.items()
        if name != "model"
    }
    if "model" not in tables:
        return Stations(None, None, baselines or None, None)
    own, parts = daily["model"], tables["model"]
    mean = {key: parts[key] for key in ("rmse", "mae")}
    predictive = {key: parts[key] for key in ("crps", "coverage50", "coverage90")}
    differences = {name: _differences(own, daily[name]) for name in baselines}
    return Stations(mean, predictive, baselines or None, differences or None)


def _by_day(values: np.ndarray, days: np.ndarray) -> np.ndarray:
    """Return means (D, 2) of each day: sum and number, so that long days count more."""
    return np.array([[values[days == day].sum(), (days == day).sum()] for day in np.unique(days)])


def _mean(blocks: np.ndarray) -> float:
    total, count = blocks.sum(0)[:2]
    return float(total / count)


def _rmse(blocks: np.ndarray) -> float:
    return float(np.sqrt(_mean(blocks)))


def _table(daily: Mapping[str, np.ndarray]) -> Table:
    found = {"rmse": estimate(daily["mse"], _rmse)}
    return found | {key: estimate(each, _mean) for key, each in daily.items() if key != "mse"}


def _differences(own: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> Table:
    """Return the model's score less a baseline's, from the same resampled days."""

    def paired(key: str, score: Callable[[np.ndarray], float]) -> Estimate:
        both = np.hstack([own[key], other[key]])
        return estimate(both, lambda blocks: score(blocks[:, :2]) - score(blocks[:, 2:]))

    found = {"rmse": paired("mse", _rmse), "mae": paired("mae", _mean)}
    return found | ({"crps": paired("crps", _mean)} if "crps" in other else {})
