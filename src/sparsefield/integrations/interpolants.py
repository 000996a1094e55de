"""One face of the universal model and of the baselines: a channel in the user's coordinates."""

from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from sparsefield.baselines.registry import BASELINES, reconstruct_baseline
from sparsefield.core.errors import InputError, unknown_name
from sparsefield.inference.interpolation import interpolate
from sparsefield.inference.interpolator import load_interpolator
from sparsefield.inference.measurements import Measurements
from sparsefield.inference.universal import draw
from sparsefield.integrations.kriging import Kriging
from sparsefield.integrations.readings import Forecast, Readings
from sparsefield.models.universal import UniversalInterpolator

UNIVERSAL = "universal"
UNIVERSAL_DIMS = (1, 2, 3)


class Interpolant(Protocol):
    """A method given the readings of one channel."""

    def predict(self, query: np.ndarray) -> Forecast:
        """Predict at positions (L, P)."""
        ...

    def sample(self, query: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return joint samples (S, L) of what `Forecast.std` is about."""
        ...


def fit_interpolant(model: str | Path, readings: Readings) -> Interpolant:
    """Give a method the readings of one channel.

    Args:
        model: "universal", a file of its weights, or the name of a baseline.
        readings: One row a place.

    Raises:
        InputError: There is no such method, or it cannot take these readings.
    """
    name = str(model)
    if name == "kriging":
        return Kriging(readings)
    if name in BASELINES:
        return Baseline(name, readings)
    if name == UNIVERSAL or Path(name).is_file():
        return Universal(name, readings)
    raise unknown_name("model", name, [UNIVERSAL, *BASELINES])


class Universal:
    """The universal model given readings.

    Args:
        name: "universal" or a file of weights.
        readings: At least three places in one to three dimensions.
    """

    def __init__(self, name: str, readings: Readings) -> None:
        _load(name)
        self.name = name
        self.given = Measurements(readings.coords, readings.values, readings.noise)
        self.given.stated = readings.stated

    def predict(self, query: np.ndarray) -> Forecast:
        """Predict at positions (L, P)."""
        value = interpolate(_load(self.name), self.given, query).value
        return Forecast(value.mean.numpy(), value.std.numpy())

    def sample(self, query: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return joint samples (S, L) of what `Forecast.std` is about."""
        said = interpolate(_load(self.name), self.given, query)
        key = (int(rng.integers(2**63)),)
        return draw(self.given, said, query, samples=count, key=key).numpy()


class Baseline:
    """A classical method without an uncertainty, given readings.

    Args:
        name: A key of `BASELINES`.
        readings: What was measured.
    """

    def __init__(self, name: str, readings: Readings) -> None:
        self.name, self.readings = name, readings

    def predict(self, query: np.ndarray) -> Forecast:
        """Predict at positions (L, P)."""
        coords, values, noise, stated = self.readings
        found = reconstruct_baseline(
            self.name, coords, values[:, None], query, noise=noise if stated else None
        )
        return Forecast(found.mean[:, 0], None if found.std is None else found.std[:, 0])

    def sample(self, query: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Refuse: there is no distribution to sample from."""
        raise InputError(f"'{self.name}' has no samples; use model='universal' or 'kriging'")


@lru_cache(maxsize=2)
def _load(name: str) -> UniversalInterpolator:
    """Load the network once a process."""
    return load_interpolator() if name == UNIVERSAL else load_interpolator(Path(name))
