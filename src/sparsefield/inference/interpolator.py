"""Interpolators on disk."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from sparsefield.core.errors import InputError
from sparsefield.inference.checkpoint import INTERPOLATORS, check_bundled
from sparsefield.models.universal import UniversalInterpolator

BUNDLED = INTERPOLATORS / "universal.safetensors"
KEY = "universal"  # of the card in a file's metadata


def is_interpolator(path: Path) -> bool:
    """Tell whether a file holds an interpolator; unreadable ones hold none."""
    try:
        with safe_open(path, framework="pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def build_interpolator() -> UniversalInterpolator:
    """Return an untrained network, which averages the experts by their evidence."""
    return UniversalInterpolator().eval()


def read_card(path: Path = BUNDLED) -> dict[str, Any]:
    """Return what a file says of its network: options, steps, settings.

    Raises:
        InputError: The file is missing, damaged or holds something else.
    """
    with _readable(path), safe_open(path, framework="pt") as file:
        card: dict[str, Any] = json.loads((file.metadata() or {})[KEY])
    return card


def load_interpolator(path: Path = BUNDLED) -> UniversalInterpolator:
    """Load a network for use.

    Raises:
        InputError: The file is missing, damaged or holds something else.
    """
    if path.parent == INTERPOLATORS:
        check_bundled(path)
    with _readable(path):
        weights = {name: tensor.float() for name, tensor in load_file(path).items()}
        model = UniversalInterpolator(**read_card(path)["options"])
        model.load_state_dict(weights)
    return model.eval()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} holds no universal interpolator: {error}") from error
