"""A scikit-learn estimator of fields from scattered measurements."""

import warnings
from pathlib import Path
from typing import Any, Self

import numpy as np

try:
    from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("SparseFieldRegressor needs sparsefield[sklearn]") from error

from sparsefield.core.errors import InputError
from sparsefield.integrations.interpolants import UNIVERSAL, UNIVERSAL_DIMS, fit_interpolant
from sparsefield.integrations.readings import merge

FEWEST = 3


class DimensionWarning(UserWarning):
    """The universal model does not know so many features; the message says what took its place."""


class SparseFieldRegressor(RegressorMixin, MultiOutputMixin, BaseEstimator):  # type: ignore[misc]
    """Predict a field anywhere from scattered measurements.

    The features are coordinates, in any unit that is the same on every axis: one to three for the
    universal model, which is not fitted. With more features ordinary kriging with a fitted
    covariance predicts instead, and a `DimensionWarning` says so. Put a `StandardScaler` in front
    where features have different units.

    Args:
        model: "universal", a file with its weights, or a baseline. "kriging" takes any number of
            dimensions; "nearest", "idw", "linear", "cubic" and "tps" state no uncertainty.

    Attributes:
        method_: What predicts: `model`, or "kriging" where it does not know so many features.
        n_features_in_: Number of coordinates P.
        feature_names_in_: Their names, if all of them are text.
    """

    def __init__(self, model: str | Path = UNIVERSAL) -> None:
        self.model = model

    def fit(self, X: Any, y: Any, *, noise: Any = None, sample_weight: Any = None) -> Self:
        """Take measurements in.

        Args:
            X: Positions (N, P).
            y: Measurements (N,), or (N, C) of several fields, which are predicted one by one.
            noise: Standard deviation of the errors, at least 0, in the units of y: a number, (N,)
                or (N, C). None says that it is unknown, and 0 that the measurements are exact.
            sample_weight: Weights (N,), at least 0: a row of weight w counts as w measurements of
                its value with independent errors, and one of weight 0 is left out.

        Returns:
            The estimator itself.

        Raises:
            InputError: There are fewer than three different places, exact measurements of one
                place differ, the noise does not fit, or there is no such model.
            ValueError: The arrays are not finite numbers of these shapes.
        """
        X, y = validate_data(
            self,
            X,
            y,
            dtype=np.float64,
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=FEWEST,
        )
        weight = None if sample_weight is None else _weights(sample_weight, X)
        self._single = y.ndim == 1
        values = y.reshape(len(y), -1).astype(np.float64)
        sigma = _noise(noise, values)
        self.method_ = self._choose(X.shape[1])
        self._channels = []
        for channel, column in enumerate(values.T):
            readings = merge(X, column, None if sigma is None else sigma[:, channel], weight)
            if len(readings.values) < FEWEST:
                raise InputError(
                    f"measurements at {FEWEST} different places at least are needed, got "
                    f"{len(readings.values)}"
                )
            self._channels.append(fit_interpolant(self.method_, readings))
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict the field.

        Args:
            X: Positions (L, P), anywhere.
            return_std: Whether to return the standard deviation too: that of a new measurement,
                or without its error where `noise` was stated.

        Returns:
            Mean (L,) or (L, C); with `return_std` a pair of it and the standard deviation.

        Raises:
            InputError: A standard deviation is wanted of a method that has none.
        """
        found = [each.predict(self._query(X)) for each in self._fitted()]
        mean = self._shaped([each.mean for each in found])
        if not return_std:
            return mean
        deviations = [each.std for each in found if each.std is not None]
        if len(deviations) < len(found):
            raise InputError(
                f"'{self.method_}' has no standard deviation; use model='universal' or 'kriging'"
            )
        return mean, self._shaped(deviations)

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Sample whole fields, joint in all positions.

        They are of new measurements, or without their errors where `noise` was stated.

        Args:
            X: Positions (L, P).
            n_samples: Number of samples S, at least 1.
            random_state: Seed, or a generator of numpy's `RandomState`.

        Returns:
            Samples (L, S), or (L, C, S) of several fields, as of `GaussianProcessRegressor`.

        Raises:
            InputError: The method has no samples, or there are too many points for kriging.
        """
        query, channels = self._query(X), self._fitted()
        seed = check_random_state(random_state).randint(2**31 - 1)
        rng = np.random.default_rng(seed)
        samples = [each.sample(query, n_samples, rng).T for each in channels]
        return samples[0] if self._single else np.stack(samples, axis=1)

    def _choose(self, dims: int) -> str | Path:
        if self.model != UNIVERSAL or dims in UNIVERSAL_DIMS:
            return self.model
        warnings.warn(
            f"the universal model knows fields in 1 to 3 dimensions, not {dims}; "
            "kriging predicts instead",
            DimensionWarning,
            stacklevel=3,
        )
        return "kriging"

    def _query(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "method_")
        return validate_data(self, X, dtype=np.float64, reset=False)

    def _fitted(self) -> list[Any]:
        check_is_fitted(self, "method_")
        return self._channels

    def _shaped(self, columns: list[np.ndarray]) -> np.ndarray:
        return columns[0] if self._single else np.column_stack(columns)


def _weights(given: Any, X: np.ndarray) -> np.ndarray:
    return _check_sample_weight(given, X, dtype=np.float64, ensure_non_negative=True)


def _noise(given: Any, values: np.ndarray) -> np.ndarray | None:
    """Return the standard deviation of each value's error (N, C), None if it is unknown."""
    if given is None:
        return None
    sigma = np.asarray(given, dtype=np.float64)
    sigma = sigma[:, None] if sigma.ndim == 1 else sigma
    if sigma.ndim and (len(sigma) != len(values) or sigma.shape[1] not in (1, values.shape[1])):
        raise InputError(
            f"noise takes one number, {len(values)} or {values.shape}, got shape {sigma.shape}"
        )
    if not (np.isfinite(sigma).all() and (sigma >= 0).all()):
        raise InputError("noise must be finite and at least 0")
    return np.broadcast_to(sigma, values.shape)
