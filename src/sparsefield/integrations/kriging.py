"""Ordinary kriging, fitted once and asked often, in any number of dimensions."""

import math
from dataclasses import replace

import numpy as np
from scipy.linalg import solve_triangular

from sparsefield.baselines.kriging import fitted_part, ordinary_kriging
from sparsefield.baselines.points import Points
from sparsefield.core.errors import InputError
from sparsefield.data.likelihood import fit_gaussian_field
from sparsefield.integrations.readings import Forecast, Readings

# Points whose joint covariance is factorised: of 4,000 it takes 128 MB and seconds.
MOST_JOINT = 4000


class Kriging:
    r"""A Matern field and a nugget of greatest restricted likelihood, given readings.

    Errors that are not stated are the nugget: a place of weight :math:`w` has the nugget's
    variance over :math:`w`. The fit takes the weights as equal.

    Args:
        readings: What was measured, at two places at least.

    Raises:
        InputError: There is one place only.
    """

    def __init__(self, readings: Readings) -> None:
        if len(readings.values) < 2:
            raise InputError("kriging needs readings at 2 places at least, got 1")
        self.origin = readings.coords.mean(axis=0)
        self.radius = float(np.sqrt(((readings.coords - self.origin) ** 2).sum(1).mean()))
        self.centre, self.scale = float(readings.values.mean()), _scale(readings)
        self.coords = self._place(readings.coords)
        self.values = ((readings.values - self.centre) / self.scale)[:, None]
        stated = readings.noise / self.scale if readings.stated else None
        part = fitted_part(self.coords)
        errors = None if stated is None else stated[part]
        self.field = fit_gaussian_field(self.coords[part], self.values[part], errors)
        self.reading = math.sqrt(self._nugget)
        self.noise = stated
        if stated is None:
            self._weigh(readings.noise**2)

    def predict(self, query: np.ndarray) -> Forecast:
        """Predict at positions (L, P)."""
        mean, std = ordinary_kriging(self.field, self._task(query))
        return Forecast(self._value(mean[:, 0]), self.scale * np.hypot(std[:, 0], self.reading))

    def sample(self, query: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return joint samples (S, L) of new readings at positions (L, P).

        Raises:
            InputError: There are too many points for one factor.
        """
        if max(len(query), len(self.coords)) > MOST_JOINT:
            raise InputError(
                f"samples of kriging are joint in at most {MOST_JOINT:,} points, not "
                f"{max(len(query), len(self.coords)):,}"
            )
        mean = ordinary_kriging(self.field, self._task(query))[0][:, 0]
        scales, axes = np.linalg.eigh(self._covariance(self._place(query)))
        root = axes * np.sqrt(scales.clip(0))  # singular where two queries are one place
        field = rng.standard_normal((count, len(query))) @ root.T
        return self._value(mean + field + self.reading * rng.standard_normal(field.shape))

    @property
    def _nugget(self) -> float:
        return float(self.field.nugget * np.ravel(self.field.variance)[0])

    def _weigh(self, relative: np.ndarray) -> None:
        """Give each place its share of the nugget: what all have is one, the rest is stated."""
        if np.ptp(relative) == 0 or self._nugget == 0:
            return
        least = float(relative.min())
        self.noise = np.sqrt(self._nugget * (relative - least))
        self.field = replace(self.field, nugget=self.field.nugget * least)

    def _covariance(self, query: np.ndarray) -> np.ndarray:
        """Return the covariance (L, L) of the field at queries, its unknown mean included."""
        variance = float(np.ravel(self.field.variance)[0])
        unit = replace(self.field, variance=1.0, mean=0.0)
        errors = None if self.noise is None else self.noise / math.sqrt(variance or 1.0)
        factor = unit.factor(self.coords, errors)
        cross = solve_triangular(factor, unit.correlation(self.coords, query), lower=True)
        ones = solve_triangular(factor, np.ones(len(self.coords)), lower=True)
        drift = (1 - cross.T @ ones) / math.sqrt(ones @ ones)
        inner = unit.correlation(query, query) - cross.T @ cross
        return variance * (inner + np.outer(drift, drift))

    def _task(self, query: np.ndarray) -> Points:
        noise = None if self.noise is None else self.noise[:, None]
        return Points(self.coords, self.values, self._place(query), noise)

    def _place(self, coords: np.ndarray) -> np.ndarray:
        return (coords - self.origin) / self.radius

    def _value(self, values: np.ndarray) -> np.ndarray:
        return self.centre + self.scale * values


def _scale(readings: Readings) -> float:
    """Return the standard deviation of the readings, 1 for a constant."""
    values = readings.values
    return float(values.std()) if np.ptp(values) > 1e-12 * np.abs(values).max() else 1.0
