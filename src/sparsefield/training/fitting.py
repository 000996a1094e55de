"""Fit what is learnt in closed form: the climatology and the covariance of many fields."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import eigh, solve
from scipy.ndimage import distance_transform_edt
from scipy.spatial.distance import cdist

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.normalize import Normalizer
from sparsefield.data.series import HOURS
from sparsefield.inference.checkpoint import ModelSpec, save_checkpoint
from sparsefield.metrics import crps_gaussian
from sparsefield.models.optimal_interpolation import LEAST_RESIDUAL
from sparsefield.training.config import TrainConfig
from sparsefield.training.data import Examples, follow_data, open_training_data
from sparsefield.training.run import Run

# Values of a field, cells times channels, up to which its whole covariance is decomposed.
LARGEST = 6000
# Fields of the held-out part by which the settings are chosen.
TRIALS = 24


class Covariance(NamedTuple):
    """How the covariance of the examples is regularised; lengths in shares of the domain.

    Attributes:
        taper: Distance at which correlations of the examples have faded, see `gaspari_cohn`.
        length: Correlation length of the stationary part.
        share: Share of the examples' own covariance; the rest is stationary.
    """

    taper: float
    length: float
    share: float


CANDIDATES = [Covariance(*each) for each in product((0.4, 0.7, 1.1), (0.12, 0.2), (0.7, 0.9))]
FREEDOMS = (10.0, 30.0, 100.0)


def fit(config: TrainConfig, run: Run, notify: Callable[[str], None]) -> None:
    """Fit optimal interpolation to fields on a grid, and write the run.

    The covariance of the anomalies is tapered with distance and mixed with a stationary one of
    the same variances. How much of each is chosen by the CRPS on the held-out fields; statistics
    of all fields are then kept.

    Args:
        config: Settings; `model.rank` is the number of features.
        run: Folder of the run.
        notify: Called with a line for what was chosen.

    Raises:
        InputError: There are no fields on a grid, the grid is too large, or a file cannot be
            written.

    References:
        Distance-dependent filtering of background error covariance estimates (Hamill et al.,
        2001); a hybrid ensemble Kalman filter (Hamill & Snyder, 2000), for the mixture.
    """
    data = open_training_data(config)
    config = follow_data(config, data)
    training, held_out = (_checked(part) for part in (data.training, data.validation))
    start = time.process_time()
    with run.claim():
        run.write_config(config)
        normalizer = training.normalizer
        chosen, freedom, score = _choose(training, held_out, config)
        notify(
            f"taper {chosen.taper}, length {chosen.length}, share {chosen.share}, freedom "
            f"{freedom:g}: CRPS {score * normalizer.scale[0]:.4g} on held-out fields"
        )
        whole = _join(training, held_out)
        spec, weights = _learn(whole, normalizer, chosen, config, freedom)
        for path in (run.best, run.latest):
            save_checkpoint(path, spec, weights)
        run.append_metrics(
            step=0, epoch=1, val_crps=score, cpu_seconds=time.process_time() - start
        )


def _checked(training: Examples) -> FieldDataset:
    if not isinstance(training, FieldDataset):
        raise InputError(
            f"optimal_interpolation learns from fields on a grid, and {training.name} has points "
            "alone; train another model"
        )
    size = training.points * training.channels
    if size > LARGEST:
        raise InputError(
            f"optimal_interpolation decomposes a covariance of {size:,} values of a field, more "
            f"than {LARGEST:,}; area-average with data.size, or train another model"
        )
    return training


def _join(a: FieldDataset, b: FieldDataset) -> FieldDataset:
    series = a.series
    if series is not None and series.times is not None and b.series is not None:
        series = replace(series, times=np.concatenate([series.times, b.series.times]))
    return replace(a, values=np.concatenate([a.values, b.values]), series=series)


def _filled(fields: FieldDataset, normalizer: Normalizer) -> np.ndarray:
    """Return normalised values (N, L, C); gaps have the mean of their cell, land its neighbour."""
    values = normalizer.apply(fields.batch(range(len(fields)))).double().numpy()
    if fields.known is None:
        return values
    known = fields.known.numpy()
    ever = known.any(0)
    mean = np.where(known[..., None], values, 0).sum(0) / np.maximum(known.sum(0), 1)[:, None]
    values = np.where(known[..., None], values, mean)
    near = distance_transform_edt(
        ~ever.reshape(fields.shape), return_distances=False, return_indices=True
    )
    return values[:, np.ravel_multi_index(tuple(near), fields.shape).ravel()]


def _distances(fields: FieldDataset) -> np.ndarray:
    """Return distances between values (L C, L C), in shares of the mean extent of the domain."""
    lengths = np.array(fields.shape, float) if fields.series is None else fields.series.lengths
    places = fields.coords.double().numpy() * lengths
    places = np.repeat(places, fields.channels, axis=0)
    return cdist(places, places) / (2 * lengths.mean())


def gaspari_cohn(distance: np.ndarray) -> np.ndarray:
    """Return correlations that fade from 1 at 0 to 0 at a distance of 2.

    References:
        Construction of correlation functions in two and three dimensions (Gaspari & Cohn, 1999),
        Eq. 4.10.
    """
    r = np.minimum(distance, 2.0)
    near = 1 - 5 / 3 * r**2 + 5 / 8 * r**3 + r**4 / 2 - r**5 / 4
    safe = np.maximum(r, 1.0)
    far = (
        4
        - 5 * safe
        + 5 / 3 * safe**2
        + 5 / 8 * safe**3
        - safe**4 / 2
        + safe**5 / 12
        - 2 / (3 * safe)
    )
    return np.where(r <= 1, near, far)


def _covariance(anomalies: np.ndarray, distance: np.ndarray, how: Covariance) -> np.ndarray:
    """Return the regularised covariance (V, V) of anomalies (N, V)."""
    own = anomalies.T @ anomalies / len(anomalies)
    std = np.sqrt(np.diag(own))
    scaled = np.sqrt(3) * distance / how.length
    stationary = std[:, None] * std * ((1 + scaled) * np.exp(-scaled))
    return how.share * own * gaspari_cohn(distance / how.taper) + (1 - how.share) * stationary


def _choose(
    training: FieldDataset, held_out: FieldDataset, config: TrainConfig
) -> tuple[Covariance, float, float]:
    """Return the settings with the least CRPS on held-out fields, and that CRPS."""
    values = _filled(training, training.normalizer).reshape(len(training), -1)
    mean, distance = values.mean(0), _distances(training)
    scored = []
    for how in CANDIDATES:
        covariance = _covariance(values - mean, distance, how)
        forecasts = list(_forecasts(covariance, mean, held_out, training.normalizer, config))
        scored += [
            (float(np.mean([each.score(freedom) for each in forecasts])), how, freedom)
            for freedom in FREEDOMS
        ]
    best, how, freedom = min(scored, key=lambda each: each[0])
    return how, freedom, best


class _Forecast(NamedTuple):
    """A Gaussian forecast of what was not observed, and how surprising the observed was."""

    mean: np.ndarray
    variance: np.ndarray
    truth: np.ndarray
    surprise: float
    given: int

    def score(self, freedom: float) -> float:
        """Return the CRPS with the scale of the observations at hand."""
        scale = (self.surprise + freedom) / (self.given + freedom)
        parts = (self.mean, np.sqrt(scale * self.variance), self.truth)
        return float(crps_gaussian(*(torch.from_numpy(x)[None, :, None] for x in parts)))


def _forecasts(
    covariance: np.ndarray,
    mean: np.ndarray,
    fields: FieldDataset,
    normalizer: Normalizer,
    config: TrainConfig,
) -> Iterator[_Forecast]:
    """Forecast some held-out fields from both ends of the densities that are asked for."""
    values = normalizer.apply(fields.batch(range(len(fields)))).double().numpy()
    for number in np.unique(np.linspace(0, len(fields) - 1, TRIALS).astype(int)):
        known = np.flatnonzero(np.isfinite(values[number]).ravel())
        truth = values[number].ravel()
        order = np.random.default_rng([config.seed, number]).permutation(known)
        for density in config.data.density:
            count = max(1, int(density * len(known)))
            seen, missing = order[:count], order[count:]
            if not len(missing):
                continue
            inner = covariance[np.ix_(seen, seen)] + LEAST_RESIDUAL**2 * np.eye(count)
            cross, error = covariance[np.ix_(seen, missing)], truth[seen] - mean[seen]
            solved = solve(inner, np.column_stack([error, cross]), assume_a="pos")
            variance = covariance[missing, missing] - (cross * solved[:, 1:]).sum(0)
            yield _Forecast(
                mean[missing] + cross.T @ solved[:, 0],
                np.maximum(variance, LEAST_RESIDUAL**2),
                truth[missing],
                float(error @ solved[:, 0]),
                count,
            )


def _learn(
    fields: FieldDataset,
    normalizer: Normalizer,
    how: Covariance,
    config: TrainConfig,
    freedom: float,
) -> tuple[ModelSpec, dict[str, torch.Tensor]]:
    """Return the description and the weights of the model of all fields."""
    values = _filled(fields, normalizer)
    mean = values.mean(0)
    anomalies = (values - mean).reshape(len(values), -1)
    covariance = _covariance(anomalies, _distances(fields), how)
    size = len(covariance)
    rank = min(int(config.model.get("rank", 300)), size)
    variances, basis = eigh(covariance, subset_by_index=[size - rank, size - 1])
    features = basis * np.sqrt(np.maximum(variances, 0))
    residual = np.sqrt(np.maximum(np.diag(covariance) - (features**2).sum(1), LEAST_RESIDUAL**2))
    climatology = _climatology(fields, values)
    shape = (fields.points, fields.channels)
    weights = {
        "mean": mean,
        "features": features.reshape(*shape, rank),
        "residual": residual.reshape(shape),
        "climatology": climatology,
    }
    settings = {
        "cells": "x".join(map(str, fields.shape)),
        "rank": rank,
        "hours": len(climatology),
        "freedom": freedom,
    }
    model = replace(config, model={**config.model, **settings})
    spec = replace(model.spec(normalizer, fields.shape), card=_card(fields, how, config))
    return spec, {name: torch.from_numpy(x).float() for name, x in weights.items()}


def _climatology(fields: FieldDataset, values: np.ndarray) -> np.ndarray:
    """Return the mean (H, L, C) of each hour of the day, or of all items where hours lack."""
    hours = np.zeros(0, int) if fields.series is None else fields.series.hours
    if len(np.unique(hours)) < HOURS:
        return values.mean(0, keepdims=True)
    return np.stack([values[hours == hour].mean(0) for hour in range(HOURS)])


def _card(fields: FieldDataset, how: Covariance, config: TrainConfig) -> dict[str, object]:
    card: dict[str, object] = {"data": fields.name, "fields": len(fields), "seed": config.seed}
    card |= how._asdict()
    if fields.series is not None:
        card |= {"domain": fields.series.describe(), **fields.series.card()}
    return card
