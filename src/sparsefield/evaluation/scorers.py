"""What judges a prediction: scores per item, which know nothing of the other items."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sparsefield import metrics
from sparsefield.evaluation.calibration import (
    calibrate_gaussian,
    calibrate_samples,
    distance_in_cells,
)
from sparsefield.evaluation.predictors import Prediction
from sparsefield.evaluation.task import Task

# One value, or array of values, per item.
Scores = dict[str, np.ndarray]
Scorer = Callable[[Prediction, Task], Scores]


def score_mean(prediction: Prediction, task: Task) -> Scores:
    """Score predicted fields, see `score_field`."""
    return score_field(prediction.mean, task)


def score_field(values: Tensor, task: Task) -> Scores:
    """Score values (B, L, C) against the truth of a task.

    Returns:
        Scores per item (B,): psnr, psnr_missing, mse, mae; ssim where all axes have 7 cells or
        more; on images speckle, the high-frequency `residual_energy`. Points without a true value
        do not count, and where there are some, neither ssim nor speckle exists.
    """
    known = task.known
    scores = {
        "psnr": metrics.psnr(values, task.truth, known, task.value_range),
        "psnr_missing": metrics.psnr(values, task.truth, task.missing, task.value_range),
        "mse": metrics.mse(values, task.truth, known),
        "mae": metrics.mae(values, task.truth, known),
    }
    if min(task.shape) >= 7 and known is None:
        images = task.images(values), task.images(task.truth)
        scores["ssim"] = metrics.ssim(*images, task.value_range)
    if _is_image(task):
        scores["speckle"] = _residual_energy(values, task)
    return as_arrays(scores)


def score_samples(prediction: Prediction, task: Task) -> Scores:
    """Score posterior samples beside the posterior mean.

    Returns:
        Scores per item: psnr and, on images, speckle of single samples (means over samples) and
        of their average (psnr_average, speckle_average), crps, energy_score, and those of
        `calibrate_samples`.
    """
    samples, truth = _samples(prediction), task.truth
    average, value_range = samples.mean(0), task.value_range
    single = torch.stack([metrics.psnr(x, truth, data_range=value_range) for x in samples])
    scores = {
        "psnr": single.mean(0),
        "crps": metrics.crps_ensemble(samples, truth),
        "energy_score": metrics.energy_score(samples, truth),
        "psnr_average": metrics.psnr(average, truth, data_range=value_range),
    }
    if _is_image(task):
        scores["speckle_average"] = _residual_energy(average, task)
        each = torch.stack([_residual_energy(sample, task) for sample in samples])
        scores["speckle"] = each.mean(0)
    distance = distance_in_cells(task.coords, task.obs, task.shape)
    scores |= calibrate_samples(samples, prediction.mean, truth, task.missing, distance)
    return as_arrays(scores)


def score_forecast(prediction: Prediction, task: Task) -> Scores:
    """Score a Gaussian forecast: crps and the scores of `calibrate_gaussian`; none without one."""
    if prediction.forecast is None:
        return {}
    mean, std = prediction.forecast
    distance = distance_in_cells(task.coords, task.obs, task.shape)
    scores = {"crps": metrics.crps_gaussian(mean, std, task.truth)}
    scores |= calibrate_gaussian(mean, std, task.truth, task.missing, distance)
    return as_arrays(scores)


def score_crps(prediction: Prediction, task: Task) -> Scores:
    """Score a distribution, of samples or Gaussian, by its CRPS alone; none without one."""
    if prediction.samples is not None:
        return as_arrays({"crps": metrics.crps_ensemble(prediction.samples, task.truth)})
    if prediction.forecast is not None:
        mean, std = prediction.forecast
        return as_arrays({"crps": metrics.crps_gaussian(mean, std, task.truth)})
    return {}


def as_arrays(scores: dict[str, Tensor]) -> Scores:
    """Return the scores as they are joined over batches and written."""
    return {name: values.numpy() for name, values in scores.items()}


def _samples(prediction: Prediction) -> Tensor:
    assert prediction.samples is not None, "posterior samples are scored where there are some"
    return prediction.samples


def _is_image(task: Task) -> bool:
    return len(task.shape) == 2 and min(task.shape) >= 3 and task.known is None


def _residual_energy(values: Tensor, task: Task) -> Tensor:
    return metrics.residual_energy(task.images(values), task.images(task.truth))
