"""Scores of fields, of distributions and of spectra, with one value per item."""

from sparsefield.metrics.error import item_mean, mae, mse, psnr, residual_energy, ssim
from sparsefield.metrics.probabilistic import (
    coverage,
    covers,
    covers_gaussian,
    crps_ensemble,
    crps_gaussian,
    delta_cal,
    energy_score,
    mse_of_averages,
    rank_histogram,
    reachable_level,
    spread_skill,
    variance,
)
from sparsefield.metrics.statistics import bootstrap_interval

__all__ = [
    "bootstrap_interval",
    "coverage",
    "covers",
    "covers_gaussian",
    "crps_ensemble",
    "crps_gaussian",
    "delta_cal",
    "energy_score",
    "item_mean",
    "mae",
    "mse",
    "mse_of_averages",
    "psnr",
    "rank_histogram",
    "reachable_level",
    "residual_energy",
    "spread_skill",
    "ssim",
    "variance",
]
