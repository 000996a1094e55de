"""The protocol of scattered points: predict new measurements of one variable of a table."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsefield.baselines.points import BaselineWarning
from sparsefield.baselines.registry import BASELINES, reconstruct_baseline
from sparsefield.core.errors import InputError
from sparsefield.core.version import code_version
from sparsefield.data.formats.columns import Table as Columns
from sparsefield.data.formats.tables import read_table
from sparsefield.data.frame import LATITUDES, LONGITUDES, Frame
from sparsefield.data.observation import Observation
from sparsefield.data.query import Points
from sparsefield.evaluation.serialise import BASELINES as ALSO_FLOORS
from sparsefield.inference.universal import Interpolator
from sparsefield.metrics.statistics import Estimate, estimate, percentiles
from sparsefield.nn.mixture import Mixture

FEWEST = 3  # training points
REFERENCE = "kriging"
RESAMPLES = 2000
# Deviations below this share of the values' are as good as none, and would divide by nought.
LEAST_STD = 1e-9
AXES = (("z", "y", "x"), ("y", "x"), ("x",))
GEOGRAPHIC = (LATITUDES, LONGITUDES)


class Table(NamedTuple):
    """Measurements of one variable, and which are hidden in turn.

    Attributes:
        name: File and column.
        frame: Domain of all rows.
        coords: Places in the units of the frame (M, P).
        values: Measurements (M,).
        noise: Standard deviation of the error of each (M,), None if it is unknown.
        hidden: Rows that are hidden (M,), bool, for each fold.
    """

    name: str
    frame: Frame
    coords: np.ndarray
    values: np.ndarray
    noise: np.ndarray | None
    hidden: list[np.ndarray]

    @property
    def dims(self) -> int:
        """Coordinates that baselines take; of latitude and longitude alone, two on a map."""
        frame = self.frame
        return frame.dims + int(frame.geometry == "sphere" and frame.dims > 2)


class Forecast(NamedTuple):
    """What a method says of new measurements at hidden places.

    Attributes:
        mean: Expected values (L,).
        value: Their distribution, None of a method that has a number alone.
    """

    mean: Tensor
    value: Mixture | None = None


# Maps a table and the hidden rows to a forecast at these rows.
Method = Callable[[Table, np.ndarray], Forecast]


@dataclass(frozen=True)
class MeanScores:
    """Errors of the mean, in the units of the data."""

    rmse: Estimate
    mae: Estimate


@dataclass(frozen=True)
class PredictiveScores:
    """Scores of a distribution: CRPS in the units of the data, log density, and coverage."""

    crps: Estimate
    log_score: Estimate
    coverage50: Estimate
    coverage90: Estimate


@dataclass(frozen=True)
class BaselineScores:
    """Scores of a baseline; the CRPS of a mere number is its absolute error.

    Attributes:
        rmse: Root mean square error.
        mae: Mean absolute error.
        crps: Continuous ranked probability score.
        log_score: Mean log density.
        coverage50: Share of the truths within the central 50 %.
        coverage90: Share of the truths within the central 90 %.
        rmse_ratio: RMSE of the model over this one's, of the same resampled points.
        crps_ratio: The same of the CRPS.
        seconds: Wall-clock time, fitting included.
        note: What was done to measurements that the method cannot take as they are.
    """

    rmse: Estimate
    mae: Estimate
    crps: Estimate
    log_score: Estimate | None
    coverage50: Estimate | None
    coverage90: Estimate | None
    rmse_ratio: Estimate | None
    crps_ratio: Estimate | None
    seconds: float
    note: str | None = None


@dataclass(frozen=True)
class ScatteredReport:
    """Scores of a model and of baselines at the hidden rows of a table.

    Attributes:
        model: Name of the model, or "baselines".
        data: File and column.
        n_train: Training rows; their mean over folds.
        n_test: Hidden rows, of all folds together.
        folds: Number of folds; 1 where the table has a split.
        commit: Version of the code.
        mean: Errors of the model's mean.
        predictive: Scores of the model's distribution.
        baselines: Scores of the baselines, by name.
        seconds: Wall-clock time of the model, or of all baselines without one.
    """

    model: str
    data: str
    n_train: int
    n_test: int
    folds: int
    commit: str
    mean: MeanScores | None
    predictive: PredictiveScores | None
    baselines: dict[str, BaselineScores] = field(metadata=ALSO_FLOORS)
    seconds: float


class Scores(NamedTuple):
    """Scores at hidden rows (L,); None where a method gives a number alone."""

    error: np.ndarray
    crps: np.ndarray
    log_score: np.ndarray | None = None
    inside50: np.ndarray | None = None
    inside90: np.ndarray | None = None


class Outcome(NamedTuple):
    """Scores of a method at all hidden rows, what it took, and what it had to do."""

    scores: Scores
    seconds: float
    note: str | None = None


def read_scattered(
    path: Path,
    value: str,
    *,
    coords: Sequence[str] = (),
    noise: str | float | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Table:
    """Read one variable of a table; rows without a value of it are left out.

    A column `split` says which rows are hidden: those that hold `test`. Without one, rows are
    dealt to folds at random.

    Args:
        path: The table.
        value: Column with the measurements.
        coords: Columns with the places; latitude and longitude, or z, y and x, by default.
        noise: Standard deviation of the error, or the column that holds it.
        folds: Folds where the table has no split, from 2.
        seed: Seed of the folds.

    Raises:
        InputError: There is no such table or column, or there are too few rows.
    """
    table = read_table(path)
    axes = tuple(coords) or _axes(path, [name for name in table.names if name != value])
    used = [*axes, value, *([noise] if isinstance(noise, str) else [])]
    numbers = table.numbers(used)
    known = ~np.ma.getmaskarray(numbers)[:, len(axes)] & np.isfinite(numbers.filled(np.nan)).all(1)
    rows = numbers.filled(np.nan)[known]
    place, values = rows[:, : len(axes)], rows[:, len(axes)]
    sigma = rows[:, -1] if isinstance(noise, str) else None
    if isinstance(noise, int | float):
        sigma = np.full(len(values), float(noise))
    split = _split(table, known)
    hidden = _folds(len(values), folds, seed) if split is None else [split]
    for each in hidden:
        if (~each).sum() < FEWEST or not each.any():
            raise InputError(
                f"{path}: column '{value}' leaves {int((~each).sum())} rows to train on and "
                f"{int(each.sum())} to test; at least {FEWEST} and 1 are needed"
            )
    return Table(f"{path.name}:{value}", Frame.of(place, axes), place, values, sigma, hidden)


def _axes(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns with the places: latitude and longitude, or as many of z, y and x."""
    small = {name.lower(): name for name in names}
    found = [next((small[a] for a in axis if a in small), None) for axis in GEOGRAPHIC]
    if all(found):
        return tuple(str(name) for name in found)
    for axes in AXES:
        if set(axes) <= set(names):
            return axes
    raise InputError(
        f"{path} has no columns x and y or longitude and latitude; name those with the places in "
        f"--coords; it has {', '.join(names)}"
    )


def _split(table: Columns, known: np.ndarray) -> np.ndarray | None:
    if "split" not in table.names:
        return None
    return np.array([str(cell) == "test" for cell in table.find("split").cells])[known]


def _folds(count: int, folds: int, seed: int) -> list[np.ndarray]:
    if not 2 <= folds <= count:
        raise InputError(f"{count} rows are dealt to 2 to {count} folds, not {folds}")
    fold = np.random.default_rng(seed).permutation(np.arange(count) % folds)
    return [fold == number for number in range(folds)]


def interpolator_method(model: Interpolator) -> Method:
    """Return the forecasts of an interpolator, through the face that users have."""

    def predict(table: Table, hidden: np.ndarray) -> Forecast:
        seen = ~hidden
        noise = None if table.noise is None else table.noise[seen]
        unit = table.frame.to_unit(table.coords[seen])
        obs = Observation(unit, table.values[seen][:, None], noise, frame=table.frame)
        found = model.condition(obs).mean(Points(table.coords[hidden]))
        assert found.marginal is not None, "an interpolator states its distribution"
        value = Mixture(*(part[:, 0].double() for part in found.marginal))
        if table.noise is not None:
            value = value.blur(torch.from_numpy(table.noise[hidden]))
        return Forecast(value.mean, value)

    return predict


def baseline_method(name: str) -> Method:
    """Return the forecasts of a baseline, Gaussian where it has a standard deviation."""

    def predict(table: Table, hidden: np.ndarray) -> Forecast:
        places = _places(table, flat=BASELINES[name].spanning and not BASELINES[name].spherical)
        seen = ~hidden
        noise = None if table.noise is None else table.noise[seen][:, None]
        found = reconstruct_baseline(
            name, places[seen], table.values[seen][:, None], places[hidden], noise=noise
        )
        mean = torch.from_numpy(found.mean[:, 0])
        if found.std is None or not np.isfinite(found.std).all():
            return Forecast(mean)
        extra = 0.0 if table.noise is None else table.noise[hidden]
        least = LEAST_STD * max(float(table.values.std()), 1e-300)
        std = torch.from_numpy(np.maximum(np.hypot(found.std[:, 0], extra), least))
        return Forecast(
            mean, Mixture(torch.zeros_like(mean)[:, None], mean[:, None], std[:, None])
        )

    return predict


def _places(table: Table, flat: bool) -> np.ndarray:
    """Return positions whose Euclidean distances count; on a map for what knows no sphere."""
    frame = table.frame
    if not flat or frame.geometry != "sphere" or frame.dims > 2:
        return frame.positions(frame.to_unit(table.coords))
    centre = np.radians((frame.low[_latitude(frame)] + frame.high[_latitude(frame)]) / 2)
    plane = frame.to_physical(frame.to_unit(table.coords)).copy()
    plane[:, frame.kinds.index("longitude")] *= np.cos(centre)
    return plane


def _latitude(frame: Frame) -> int:
    return frame.kinds.index("latitude")


def score(method: Method, table: Table) -> Outcome:
    """Return the scores of a method at all hidden rows, fold by fold."""
    start = perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BaselineWarning)
        said = [(hidden, method(table, hidden)) for hidden in table.hidden]
    seconds = perf_counter() - start
    parts = [_score(forecast, table.values[hidden]) for hidden, forecast in said]
    columns = (
        [part for part in column if part is not None] for column in zip(*parts, strict=True)
    )
    joined = Scores(*(np.concatenate(column) for column in columns if column))
    notes = [str(w.message) for w in caught if issubclass(w.category, BaselineWarning)]
    return Outcome(joined, seconds, notes[0] if notes else None)


def _score(said: Forecast, truth: np.ndarray) -> Scores:
    value = torch.from_numpy(truth)
    error = (said.mean - value).numpy()
    if said.value is None:
        return Scores(error, np.abs(error))
    centred = (said.value.cdf(value) - 0.5).abs().numpy()
    scores = (said.value.crps(value).numpy(), said.value.log_prob(value).numpy())
    return Scores(error, *scores, centred <= 0.25, centred <= 0.45)


def evaluate_scattered(
    model: Interpolator | None,
    table: Table,
    baselines: Sequence[str],
    *,
    announce: Callable[[str], None] = lambda name: None,
) -> ScatteredReport:
    """Score a model and baselines at the hidden rows of a table, on identical points.

    Args:
        model: The model; None for the baselines alone.
        table: Measurements.
        baselines: Names of baselines.
        announce: Called with the name of each method before it runs.
    """
    own = None
    if model is not None:
        announce(model.name)
        own = score(interpolator_method(model), table)
    rows = dict(_outcomes(baselines, table, announce))
    hidden = [int(each.sum()) for each in table.hidden]
    return ScatteredReport(
        model="baselines" if model is None else model.name,
        data=table.name,
        n_train=round(len(table.values) - float(np.mean(hidden))),
        n_test=sum(hidden),
        folds=len(hidden),
        commit=code_version(),
        mean=None if own is None else _errors(own.scores),
        predictive=None if own is None else _predictive(own.scores),
        baselines={name: _baseline(row, own) for name, row in rows.items()},
        seconds=sum(row.seconds for row in rows.values()) if own is None else own.seconds,
    )


def _outcomes(
    names: Sequence[str], table: Table, announce: Callable[[str], None]
) -> Iterator[tuple[str, Outcome]]:
    for name in names:
        announce(name)
        yield name, score(baseline_method(name), table)


def _errors(own: Scores) -> MeanScores:
    return MeanScores(_rmse(own), _mean(np.abs(own.error)))


def _predictive(own: Scores) -> PredictiveScores:
    found = [_mean(part) for part in own[1:] if part is not None]
    return PredictiveScores(*found)


def _baseline(row: Outcome, own: Outcome | None) -> BaselineScores:
    crps, log_score, inside50, inside90 = (
        None if part is None else _mean(part) for part in row.scores[1:]
    )
    rmse_ratio, crps_ratio = _ratios(row.scores, own)
    mae = _mean(np.abs(row.scores.error))
    return BaselineScores(
        rmse=_rmse(row.scores),
        mae=mae,
        crps=crps or mae,
        log_score=log_score,
        coverage50=inside50,
        coverage90=inside90,
        rmse_ratio=rmse_ratio,
        crps_ratio=crps_ratio,
        seconds=row.seconds,
        note=row.note,
    )


def _ratios(row: Scores, own: Outcome | None) -> tuple[Estimate | None, Estimate | None]:
    if own is None:
        return None, None
    error, crps = own.scores.error, own.scores.crps
    return _ratio(error**2, row.error**2, 0.5), _ratio(crps, row.crps, 1.0)


def _mean(values: np.ndarray) -> Estimate:
    return estimate(np.asarray(values, dtype=np.float64))


def _rmse(scores: Scores) -> Estimate:
    square = _mean(scores.error**2)
    return Estimate(*(float(np.sqrt(x)) for x in (square.value, *square.interval)))


def _ratio(ours: np.ndarray, theirs: np.ndarray, power: float) -> Estimate | None:
    """Return the ratio of two means to a power, with its paired bootstrap interval."""
    if not theirs.any():
        return None
    picks = np.random.default_rng(0).integers(len(ours), size=(RESAMPLES, len(ours)))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (ours[picks].mean(1) / theirs[picks].mean(1)) ** power
    low, high = percentiles(spread[np.isfinite(spread)], len(ours))
    return Estimate(float((ours.mean() / theirs.mean()) ** power), low, high)
