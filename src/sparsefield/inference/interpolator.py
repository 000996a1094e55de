"""The universal interpolator on disk."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sparsefield.core.errors import InputError
from sparsefield.models.universal import UniversalInterpolator

BUNDLED = Path(__file__).parent.parent / "weights" / "interpolators" / "universal.safetensors"


def build_interpolator() -> UniversalInterpolator:
    """Return an untrained network, which averages the experts by their evidence."""
    return UniversalInterpolator().eval()


def load_interpolator(path: Path = BUNDLED) -> UniversalInterpolator:
    """Load a network for use.

    Raises:
        InputError: The file is missing, damaged or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {})["universal"])
            weights = {name: file.get_tensor(name).float() for name in file.keys()}
        model = UniversalInterpolator(**card["options"])
        model.load_state_dict(weights)
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} holds no universal interpolator: {error}") from error
    return model.eval()
