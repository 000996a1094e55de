"""A check of a model on one's own measurements: some are held back and predicted from the rest."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sparsefield.baselines.points import BaselineWarning
from sparsefield.baselines.registry import available_baselines, reconstruct_baseline
from sparsefield.core.errors import InputError
from sparsefield.core.words import counted
from sparsefield.data.observation import Observation
from sparsefield.data.query import Points
from sparsefield.metrics.statistics import Estimate, percentiles

# Groups are held back in so many parts at most, each of whole groups.
PARTS = 10
# So many measurements are predicted at most.
MOST = 2000
RESAMPLES = 2000


class HeldOut(NamedTuple):
    """What one method made of the measurements that were held back.

    Attributes:
        name: The method.
        error: Predicted less measured value (H, C), in the data's units.
    """

    name: str
    error: np.ndarray

    @property
    def rmse(self) -> float:
        """Root mean square error."""
        return float(np.sqrt((self.error**2).mean()))

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return float(np.abs(self.error).mean())


@dataclass(frozen=True)
class Check:
    """A model and the baselines on measurements that were held back from them.

    Attributes:
        model: The model.
        baselines: The baselines, best RMSE first.
        of: Number of measurements.
        block: Which block each row of the errors belongs to (H,); rows of one are not independent.
        grouped: Whether blocks are groups.
        unit: Unit of the values, "" if it is unknown.
    """

    model: HeldOut
    baselines: tuple[HeldOut, ...]
    of: int
    block: np.ndarray
    grouped: bool = False
    unit: str = ""

    @property
    def gain(self) -> Estimate:
        """RMSE of the best baseline less that of the model, with its 95 % interval.

        It is a paired bootstrap over blocks.
        """
        model, rival = (_block_squares(each.error, self.block) for each in self._pair)
        count = np.bincount(self.block) * self.model.error.shape[1]
        picks = np.random.default_rng(0).integers(len(count), size=(RESAMPLES, len(count)))
        total = count[picks].sum(1)
        resampled = np.sqrt(rival[picks].sum(1) / total) - np.sqrt(model[picks].sum(1) / total)
        return Estimate(
            self._pair[1].rmse - self._pair[0].rmse, *percentiles(resampled, len(count))
        )

    @property
    def _pair(self) -> tuple[HeldOut, HeldOut]:
        return self.model, self.baselines[0]

    def __str__(self) -> str:
        """Say in lines how all did, and which is better by how much."""
        rows = sorted((self.model, *self.baselines), key=lambda each: each.rmse)
        width = max(len(each.name) for each in rows)
        unit = f" {self.unit}" if self.unit else ""
        lines = [f"{r.name:{width}}  RMSE {r.rmse:.4g}{unit}  MAE {r.mae:.4g}{unit}" for r in rows]
        groups = f" of {counted(self.block.max() + 1, 'group')}, each" if self.grouped else ""
        head = f"check: {len(self.block):,} of {self.of:,} measurements{groups} held back"
        return "\n".join([head, *lines, self._verdict(unit)])

    def _verdict(self, unit: str) -> str:
        model, rival, gain = self.model.name, self.baselines[0].name, self.gain
        low, high = sorted(abs(x) if gain.low * gain.high > 0 else x for x in gain.interval)
        amount = f"by {abs(gain.value):.3g}{unit} (95 % interval {low:.3g} to {high:.3g})"
        if gain.low <= 0 <= gain.high:
            better = model if gain.value >= 0 else rival
            interval = f"{gain.low:.3g} to {gain.high:.3g}"
            return (
                f"{better} has the lower RMSE, by {abs(gain.value):.3g}{unit}, but this is within "
                f"chance: {rival} less {model} is in {interval} with 95 %"
            )
        if gain.value > 0:
            return f"{model} is better than the best baseline, {rival}: its RMSE is lower {amount}"
        return f"a baseline is better: the RMSE of {rival} is lower than that of {model} {amount}"


def check_model(
    model: Any,
    obs: Observation,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    baselines: Sequence[str] | None = None,
    share: float = 0.1,
    seed: int = 0,
) -> Check:
    """Hold measurements back, predict them from the rest, and score the model and the baselines.

    Without groups a random share is held back, at once. With groups, such as tracks or stations,
    every group is predicted from the others; of more than ten groups, several are left out at a
    time.

    Args:
        model: A model, with `name` and `condition`.
        obs: Observations of one field.
        groups: Group of each row (M,).
        baselines: Keys of `BASELINES`; all that can run by default.
        share: Share of the measurements to hold back without groups, in (0, 1).
        seed: Seed of what is held back.

    Raises:
        InputError: There are too few measurements, there is one group only, groups do not fit the
            rows, or the share is out of range.
    """
    obs = obs.merged() if groups is None else obs
    valid = obs.valid.cpu().numpy()
    held = deal_groups(groups, valid, seed) if groups is not None else _tenth(valid, share, seed)
    usual = available_baselines(obs.positions().shape[-1], on_grid=False)
    names = usual if baselines is None else baselines
    methods: dict[str, Callable[[Observation, Observation], np.ndarray]] = {
        model.name: lambda rest, part: _of_model(model, rest, part)
    }
    methods |= {name: _of_baseline(name) for name in names}
    errors: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    for number in range(held.max() + 1):
        rest, part = (obs.take(rows) for rows in (valid & (held != number), held == number))
        truth = part.values.double().cpu().numpy()
        for name, predict in methods.items():
            errors[name].append(predict(rest, part) - truth)
    first, *others = (HeldOut(name, np.concatenate(parts)) for name, parts in errors.items())
    order = np.argsort(held[held >= 0], kind="stable")
    block = np.arange(len(order)) if groups is None else _labels(groups)[held >= 0][order]
    block = np.unique(block, return_inverse=True)[1]
    ranked = tuple(sorted(others, key=lambda each: each.rmse))
    units = {quantity.unit for quantity in obs.quantities}
    unit = units.pop() if len(units) == 1 else ""
    return Check(first, ranked, int(valid.sum()), block, groups is not None, unit)


def _tenth(valid: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return 0 for rows that are held back and -1 for all others (M,)."""
    rows = np.flatnonzero(valid)
    count = min(max(2, round(share * len(rows))), MOST)
    if not 0 < share < 1 or len(rows) < 2 * count:
        raise InputError(
            f"a check that holds back a share of {share:g} needs more than {len(rows)} "
            "measurements, and a share in (0, 1)"
        )
    held = np.full(len(valid), -1)
    held[np.random.default_rng(seed).permutation(rows)[:count]] = 0
    return held


def deal(valid: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """Return the number of the part in which each row is held back (M,), -1 for no row.

    Raises:
        InputError: There are fewer than two measurements for each part.
    """
    rows = np.flatnonzero(valid)
    if len(rows) < 2 * parts:
        raise InputError(f"{2 * parts} measurements at least are needed, not {len(rows)}")
    held = np.full(len(valid), -1)
    held[np.random.default_rng(seed).permutation(rows)] = np.arange(len(rows)) % parts
    return held


def deal_groups(groups: Sequence[Any] | np.ndarray, valid: np.ndarray, seed: int) -> np.ndarray:
    """Return the number of the part in which each row is held back (M,), -1 for no row.

    Raises:
        InputError: There is one group alone, or not one of each row.
    """
    labels = _labels(groups)
    if labels.shape != valid.shape:
        raise InputError(f"groups: expected one for each of {len(valid)} rows, got {labels.shape}")
    present = np.unique(labels[valid])
    if len(present) < 2:
        raise InputError("a check by groups needs two groups at least")
    order = np.random.default_rng(seed).permutation(present)
    part = np.empty(labels.max() + 1, int)
    part[order] = np.arange(len(order)) % min(PARTS, len(order))
    return np.where(valid, part[labels], -1)


def _labels(groups: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Return groups as numbers (M,)."""
    return np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]


def _of_model(model: Any, rest: Observation, part: Observation) -> np.ndarray:
    return model.condition(rest).mean(Points(part.physical())).mean.double().numpy()


def _of_baseline(name: str) -> Callable[[Observation, Observation], np.ndarray]:
    def predict(rest: Observation, part: Observation) -> np.ndarray:
        noise = None if rest.noise is None else rest.noise.double().numpy()
        arrays = (rest.positions(), rest.values, part.positions())
        given = (each.double().numpy() for each in arrays)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BaselineWarning)
            return reconstruct_baseline(name, *given, noise=noise).mean

    return predict


def _block_squares(error: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Return the sum of squared errors of each block (K,)."""
    return np.bincount(block, (error**2).sum(1))
