"""Things to try the page with: photographs, and made-up stations."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from sparsefield.core.errors import unknown_name
from sparsefield.data.photographs import PHOTOGRAPHS, photographs

STATIONS, SIDE = 120, 128


def sample(name: str) -> tuple[str, bytes]:
    """Return the file name and the content of a sample.

    Raises:
        InputError: There is none of this name, or its package is missing.
    """
    if name not in SAMPLES:
        raise unknown_name("sample", name, list(SAMPLES))
    return SAMPLES[name]()


def _photograph(name: str) -> tuple[str, bytes]:
    pixels = photographs(SIDE).values[list(PHOTOGRAPHS).index(name)]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return f"{name}.png", buffer.getvalue()


def _stations() -> tuple[str, bytes]:
    """Return temperatures that no one measured, at places over the North Sea."""
    random = np.random.default_rng(0)
    lon, lat = random.uniform(-6, 10, STATIONS), random.uniform(50, 61, STATIONS)
    mean = 22 - 0.9 * (lat - 50) + 1.5 * np.sin(lon / 2.5) * np.cos((lat - 55) / 2)
    value = mean + 0.8 * np.cos(1.3 * lon - 0.7 * lat) + random.normal(0, 0.3, STATIONS)
    rows = [f"{a:.3f},{b:.3f},{c:.2f}" for a, b, c in zip(lon, lat, value, strict=True)]
    return "stations.csv", "\n".join(["lon,lat,temperature", *rows]).encode()


def _photograph_called(name: str) -> Callable[[], tuple[str, bytes]]:
    return lambda: _photograph(name)


SAMPLES: dict[str, Callable[[], tuple[str, bytes]]] = {
    **{name: _photograph_called(name) for name in PHOTOGRAPHS},
    "stations": _stations,
}
