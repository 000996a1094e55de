"""Other packages' Gaussian processes and kriging, for comparison where they are installed."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from sparsefield.baselines.points import Points, Prediction, in_own_units

SMOOTHNESS = (0.5, 1.5, 2.5)
VARIOGRAM = "exponential"


def _by_channel(
    predict: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None], tuple[Any, ...]],
) -> Callable[[Points], Prediction]:
    """Make a Gaussian forecast of one channel one of several."""

    def interpolate(points: Points) -> Prediction:
        found = []
        for values, noise in zip(points.values.T, _columns(points), strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(predict(points.coords, values, points.query, noise))
        mean, std = (np.column_stack(column) for column in zip(*found, strict=True))
        return Prediction(mean, std)

    return in_own_units(interpolate)


def _columns(points: Points) -> list[np.ndarray | None]:
    return [None] * points.values.shape[1] if points.noise is None else list(points.noise.T)


def _gaussian_process(
    coords: np.ndarray, values: np.ndarray, query: np.ndarray, noise: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Predict by the Matern kernel with a nugget that has the greatest marginal likelihood."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    centre = coords.mean(axis=0)
    radius = max(float(np.sqrt(((coords - centre) ** 2).sum(axis=1).mean())), np.finfo(float).tiny)
    at, to = (coords - centre) / radius, (query - centre) / radius
    fitted = []
    for smoothness in SMOOTHNESS:
        kernel = ConstantKernel(1.0, (1e-3, 1e3)) * Matern(0.5, (1e-2, 1e2), nu=smoothness)
        kernel = kernel + WhiteKernel(0.1, (1e-8, 1e1))
        process = GaussianProcessRegressor(
            kernel,
            alpha=1e-10 if noise is None else 1e-10 + noise**2,
            n_restarts_optimizer=2,
            random_state=0,
        )
        fitted.append(process.fit(at, values))
    best = max(fitted, key=lambda process: process.log_marginal_likelihood_value_)
    return best.predict(to, return_std=True)


def _ordinary_kriging(
    coords: np.ndarray, values: np.ndarray, query: np.ndarray, noise: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Predict by PyKrige with the variogram that it fits by least squares; noise is not used."""
    from pykrige.ok import OrdinaryKriging
    from pykrige.ok3d import OrdinaryKriging3D

    if len(coords) == 1 or not np.ptp(values):
        return np.full(len(query), values[0]), np.zeros(len(query))
    kind = OrdinaryKriging if coords.shape[1] == 2 else OrdinaryKriging3D
    model = kind(*coords.T, values, variogram_model=VARIOGRAM)
    mean, variance = model.execute("points", *query.T)
    return np.asarray(mean), np.sqrt(np.maximum(np.asarray(variance), 0))


sklearn_gp = _by_channel(_gaussian_process)
pykrige = _by_channel(_ordinary_kriging)
