"""A model on disk: one safetensors file that holds weights, settings and how to use them."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sparsefield.core.checks import check_finite
from sparsefield.core.errors import InputError
from sparsefield.core.files import dump_json, parse_json, write_tensors, write_text
from sparsefield.data.frame import Frame
from sparsefield.data.grids import finer_shape
from sparsefield.data.normalize import Normalizer
from sparsefield.flow.flow import Flow
from sparsefield.flow.noise import build_noise
from sparsefield.flow.path import build_path
from sparsefield.models import build_model

FORMAT = 1
BUNDLED = Path(__file__).parent.parent / "weights"
INTERPOLATORS = BUNDLED / "interpolators"
SUMS = "SHA256SUMS"
DEFAULT_MODEL = "default"
# No number in a description is as large.
LARGEST = 2**20
# Settings that say how many equal parts a network has, each with weights of its own.
REPEATED = r"(layers|iterations|blocks|depth)$"


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to rebuild a flow around its weights.

    Attributes:
        model: Key of MODELS, or `module:Class`.
        settings: Settings of the backbone.
        prediction: What the backbone predicts.
        time_shift: See `Flow`.
        normalizer: Between physical and normalised values.
        shape: Grid on which it was trained; the default of a reconstruction.
        card: Facts for a reader: data, steps, seconds, scores.
        path: Key of PATHS.
        noise: Name in NOISES.
        noise_length: Correlation length of lattice noise, in cells of the observed grid.
        residual: Interpolation whose residual the backbone predicts, a name in RESIDUALS.
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
    residual: str = "none"

    def build(self) -> Flow:
        """Build the flow with fresh weights; one of residuals starts as the interpolation."""
        backbone = build_model(self.model, **self.settings)
        if self.residual != "none":
            backbone.silence()
        noise = build_noise(self.noise, self.noise_length)
        path = build_path(self.path)
        return Flow(backbone, self.prediction, path, self.time_shift, noise, self.residual)

    @property
    def frame(self) -> Frame | None:
        """Domain in its own units, if the model knows one region alone."""
        stored = self.card.get("frame")
        return None if stored is None else Frame.from_dict(stored)

    def observed_grid(self, count: int) -> tuple[int, ...]:
        """Return the grid whose cells so many observations are taken for, if nobody says.

        It is that of training, or finer by the least power of two that has as many cells.
        """
        return finer_shape(self.shape, count)

    def to_json(self) -> str:
        """Describe the model as JSON."""
        data = asdict(self) | {"format": FORMAT, "normalizer": self.normalizer.to_dict()}
        return dump_json(data, indent=2)

    @staticmethod
    def from_json(text: str) -> "ModelSpec":
        """Read what `to_json` wrote.

        Raises:
            InputError: The description is damaged or has another format.
        """
        data = parse_json(text, "the description of the model")
        if not isinstance(data, dict):
            raise InputError("the description of the model is damaged: it is no object")
        if data.pop("format", None) != FORMAT:
            raise InputError(f"unknown checkpoint format; this version reads format {FORMAT}")
        try:
            return _spec_from_dict(data)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = error if isinstance(error, InputError) else repr(error)
            raise InputError(f"the description of the model is damaged: {reason}") from error


def _spec_from_dict(data: dict[str, Any]) -> ModelSpec:
    normalizer = Normalizer.from_dict(data.pop("normalizer"))
    check_finite("the normalizer's numbers", torch.tensor([*normalizer.offset, *normalizer.scale]))
    shape = tuple(data.pop("shape"))
    spec = ModelSpec(**data, normalizer=normalizer, shape=shape)
    for name, kind in (
        ("model", str),
        ("settings", dict),
        ("prediction", str),
        ("time_shift", float),
        ("card", dict),
        ("path", str),
        ("noise", str),
        ("noise_length", float),
        ("residual", str),
    ):
        _check_kind(name, getattr(spec, name), kind)
    for size in shape:
        _check_kind("shape", size, int)
    if spec.frame is not None and spec.frame.dims != len(shape):
        raise InputError("the frame has other axes than the grid")
    if not shape:
        raise InputError("shape has no axis")
    _check_settings(spec.settings)
    return spec


def _check_kind(name: str, value: Any, kind: type) -> None:
    """Check the type of a value; whole numbers pass for real ones, as JSON does not tell."""
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise InputError(f"{name} is no {kind.__name__}")
    if isinstance(value, int | float) and not 0 < value < LARGEST:
        raise InputError(f"{name} is not above 0 and below {LARGEST:,}")


def _check_settings(settings: dict[str, Any]) -> None:
    """Refuse settings that no network has."""
    for key, value in settings.items():
        if isinstance(value, int | float) and not abs(value) < LARGEST:
            raise InputError(f"settings.{key} is larger than {LARGEST:,}")
        if isinstance(value, dict | list):
            raise InputError(f"settings.{key} is no single value")


def save_checkpoint(
    path: Path, spec: ModelSpec, weights: dict[str, torch.Tensor], dtype: torch.dtype | None = None
) -> None:
    """Write weights, their description and a hash of both atomically, as `dtype` if given.

    Raises:
        InputError: The file cannot be written, or a weight is not finite.
    """
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in weights.items()
    }
    for name, tensor in tensors.items():
        check_finite(f"{path} was not written: its weights {name}", tensor)
    text = spec.to_json()
    write_tensors(path, tensors, {"sparsefield": text, "sha256": _content_hash(text, tensors)})


def read_spec(path: Path) -> ModelSpec:
    """Read the description of a checkpoint without its weights.

    Raises:
        InputError: The file is missing, damaged or no checkpoint of this package.
    """
    with _opened(path) as file:
        return _read_spec(path, file)


def load_checkpoint(path: Path) -> tuple[Flow, ModelSpec]:
    """Load a flow in evaluation mode and its description.

    Bundled files are compared with the hash that was written when they were bundled, others with
    the hash that they carry; files of older versions carry none.

    Raises:
        InputError: The file is missing, damaged or no checkpoint of this package, or its weights
            are not finite or do not fit its settings.
    """
    if path.parent == BUNDLED:
        check_bundled(path)
    with _opened(path) as file:
        spec = _read_spec(path, file)
        # Before anything is allocated: a description can claim any size.
        _check_fit(path, spec, {name: file.get_slice(name).get_shape() for name in file.keys()})
        weights = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata()
    if metadata.get("sha256", "") not in ("", _content_hash(metadata["sparsefield"], weights)):
        raise InputError(f"{path} is damaged: its content does not have the hash that it carries")
    weights = {name: weight.float() for name, weight in weights.items()}
    for name, weight in weights.items():
        check_finite(f"{path} is damaged: its weights {name}", weight)
    flow = spec.build()
    flow.backbone.load_state_dict(weights)
    return flow.eval().requires_grad_(False), spec


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; whatever is wrong with it is one line."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"no checkpoint at {path}") from None
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error


def _read_spec(path: Path, file: Any) -> ModelSpec:
    metadata = file.metadata() or {}
    if "universal" in metadata:
        raise InputError(
            f"{path} is an interpolator of scattered points, not a flow; it serves load, "
            "reconstruct and evaluate"
        )
    if "sparsefield" not in metadata:
        raise InputError(f"{path} holds weights, but not of a sparsefield model")
    try:
        return ModelSpec.from_json(metadata["sparsefield"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _check_fit(path: Path, spec: ModelSpec, shapes: dict[str, list[int]]) -> None:
    """Check that a file holds the weights of its model, by building one without memory.

    Raises:
        InputError: It does not, or no model can be built from its settings.
    """
    for key, value in spec.settings.items():
        if re.search(REPEATED, key) and isinstance(value, int) and value > len(shapes):
            raise InputError(
                f"{path}: the weights do not fit the settings of model {spec.model}: there are "
                f"{len(shapes)} of them for {key}={value}"
            )
    try:
        with torch.device("meta"):
            expected = spec.build().backbone.state_dict()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # whatever settings of a stranger may cause in a constructor
        raise InputError(
            f"{path}: model {spec.model} cannot be built from its settings: {error}"
        ) from error
    wanted = {name: list(weight.shape) for name, weight in expected.items()}
    for name in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(name) != shapes.get(name):
            raise InputError(
                f"{path}: the weights do not fit the settings of model {spec.model}: {name} is "
                f"{_shown(shapes.get(name))}, not {_shown(wanted.get(name))}"
            )


def _shown(shape: list[int] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape)) or "a number"


def _content_hash(description: str, tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of a description and of tensors with their names, types and shapes."""
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_sums() -> None:
    """Write SHA256SUMS beside the bundled weights, in the form that `sha256sum -c` reads.

    Raises:
        InputError: The file cannot be written.
    """
    for folder, models in ((BUNDLED, bundled_models()), (INTERPOLATORS, bundled_interpolators())):
        lines = [f"{_file_hash(path)}  {path.name}\n" for path in models.values()]
        write_text(folder / SUMS, "".join(lines))


def check_bundled(path: Path) -> None:
    """Compare a bundled file with its line in the SHA256SUMS beside it.

    Raises:
        InputError: They differ, or there is no such line.
    """
    try:
        lines = (path.parent / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: value for value, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise InputError(f"{path.parent / SUMS} is missing or damaged; install again") from error
    if path.is_file() and sums.get(path.name) != _file_hash(path):
        raise InputError(f"{path} is damaged: it is not the file that was bundled; install again")


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve(name: str | Path) -> Path:
    """Find a checkpoint by bundled name, run folder or file.

    Raises:
        InputError: There is none.
    """
    bundled = bundled_models() | bundled_interpolators()
    if str(name) in bundled:
        return bundled[str(name)]
    path = Path(name)
    if "\0" in str(name):
        raise InputError("the name of a model holds no null character")
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
    """Return the checkpoints of flows that ship with the package, by name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.safetensors"))}


def bundled_interpolators() -> dict[str, Path]:
    """Return the interpolators that ship with the package, by name."""
    return {path.stem: path for path in sorted(INTERPOLATORS.glob("*.safetensors"))}
