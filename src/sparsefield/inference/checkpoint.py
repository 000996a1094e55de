"""A model on disk: one safetensors file that holds weights, settings and how to use them."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sparsefield.core.errors import InputError
from sparsefield.core.files import write_tensors
from sparsefield.data.normalize import Normalizer
from sparsefield.flow.flow import Flow
from sparsefield.flow.noise import build_noise
from sparsefield.flow.path import build_path
from sparsefield.models import build_model

FORMAT = 1
BUNDLED = Path(__file__).parent.parent / "weights"
DEFAULT_MODEL = "default"


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to rebuild a flow around its weights.

    Attributes:
        model: Key of MODELS.
        settings: Settings of the backbone.
        prediction: What the backbone predicts.
        time_shift: See `Flow`.
        normalizer: Between physical and normalised values.
        shape: Grid on which it was trained; the default of a reconstruction.
        card: Facts for a reader: data, steps, seconds, scores.
        path: Key of PATHS.
        noise: Name in NOISES.
        noise_length: Correlation length of lattice noise, in cells of the observed grid.
    """

    model: str
    settings: dict[str, Any]
    prediction: str
    time_shift: float
    normalizer: Normalizer
    shape: tuple[int, ...]
    card: dict[str, Any] = field(default_factory=dict)
    path: str = "linear"
    noise: str = "lattice"
    noise_length: float = 1.0

    def build(self) -> Flow:
        """Build the flow with fresh weights."""
        backbone = build_model(self.model, **self.settings)
        noise = build_noise(self.noise, self.noise_length)
        return Flow(backbone, self.prediction, build_path(self.path), self.time_shift, noise)

    def observed_grid(self, count: int) -> tuple[int, ...]:
        """Return the grid whose cells so many observations are taken for, if nobody says.

        It is that of training, or finer by the least power of two that has as many cells.
        """
        finer = math.log2(count / math.prod(self.shape)) / len(self.shape)
        return tuple(n * 2 ** max(0, math.ceil(finer)) for n in self.shape)

    def to_json(self) -> str:
        """Describe the model as JSON."""
        data = asdict(self) | {"format": FORMAT, "normalizer": self.normalizer.to_dict()}
        return json.dumps(data, indent=2)

    @staticmethod
    def from_json(text: str) -> "ModelSpec":
        """Read what `to_json` wrote.

        Raises:
            InputError: The description has another format.
        """
        data = json.loads(text)
        if data.pop("format", None) != FORMAT:
            raise InputError(f"unknown checkpoint format; this version reads format {FORMAT}")
        data["normalizer"] = Normalizer.from_dict(data["normalizer"])
        data["shape"] = tuple(data["shape"])
        return ModelSpec(**data)


def save_checkpoint(
    path: Path, spec: ModelSpec, weights: dict[str, torch.Tensor], dtype: torch.dtype | None = None
) -> None:
    """Write weights and their description atomically, as `dtype` if given.

    Raises:
        InputError: The file cannot be written.
    """
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in weights.items()
    }
    metadata = {"sparsefield": spec.to_json()}
    write_tensors(path, tensors, metadata)


def read_spec(path: Path) -> ModelSpec:
    """Read the description of a checkpoint without its weights.

    Raises:
        InputError: The file is missing, damaged or no checkpoint of this package.
    """
    return _read(path, with_weights=False)[0]


def load_checkpoint(path: Path) -> tuple[Flow, ModelSpec]:
    """Load a flow in evaluation mode and its description.

    Raises:
        InputError: The file is missing, damaged or no checkpoint of this package, or its weights
            do not fit its settings.
    """
    spec, weights = _read(path, with_weights=True)
    flow = spec.build()
    try:
        flow.backbone.load_state_dict({name: w.float() for name, w in weights.items()})
    except RuntimeError as error:
        raise InputError(
            f"{path}: the weights do not fit the settings of model {spec.model}: "
            f"{_first_line(error)}"
        ) from error
    return flow.eval().requires_grad_(False), spec


def _read(path: Path, with_weights: bool) -> tuple[ModelSpec, dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys()) if with_weights else []
            weights = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise InputError(f"no checkpoint at {path}") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error
    if "sparsefield" not in metadata:
        raise InputError(f"{path} holds weights, but not of a sparsefield model")
    return ModelSpec.from_json(metadata["sparsefield"]), weights


def resolve(name: str | Path) -> Path:
    """Find a checkpoint by bundled name, run folder or file.

    Raises:
        InputError: There is none.
    """
    bundled = bundled_models()
    if str(name) in bundled:
        return bundled[str(name)]
    path = Path(name)
    if path.is_dir():
        for candidate in ("best.safetensors", "latest.safetensors"):
            if (path / candidate).is_file():
                return path / candidate
        raise InputError(f"{path} holds no best.safetensors or latest.safetensors")
    if not path.is_file():
        known = ", ".join(bundled) or "none"
        raise InputError(f"no model '{name}': neither a file, a run folder nor bundled ({known})")
    return path


def bundled_models() -> dict[str, Path]:
    """Return the checkpoints that ship with the package, by name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.safetensors"))}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)][:200]
