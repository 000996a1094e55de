"""The settings of a training run: TOML preset, then key=value, checked key by key."""

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.core.words import counted
from sparsefield.data.normalize import Normalizer
from sparsefield.flow.flow import PREDICTIONS
from sparsefield.flow.noise import NOISES
from sparsefield.flow.path import PATHS
from sparsefield.flow.residual import RESIDUALS
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.models import is_known, model_defaults, trust

PRESETS = Path(__file__).parent.parent / "presets"
PRESET_BYTES = 2**20
# No setting of a backbone is as large, and no other whole number.
LARGEST, LARGEST_INTEGER = 2**20, 2**63
OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True)
class FlowConfig:
    """How the backbone's prediction becomes a flow."""

    prediction: Annotated[str, PREDICTIONS] = "velocity"
    """What the backbone predicts."""
    path: Annotated[str, PATHS] = "linear"
    """Way from noise to data."""
    time_shift: float = 1.0
    """Moves times towards the data, see `Flow`; 1 leaves them uniform."""
    mean_fraction: float = 0.25
    """Fraction of steps spent at t = 0, where the minimiser is the posterior mean."""
    noise: Annotated[str, NOISES] = "lattice"
    """Source noise: a function of coordinates, or numbers independent from point to point."""
    noise_length: float = 1.0
    """Correlation length of lattice noise in observed cells; at 1 it is white on the cells."""
    residual: Annotated[str, RESIDUALS] = "none"
    """Interpolation of the observations whose residual is transported, see `Flow`."""
    contrast_weight: float = 0.0
    """Exponent p of the weight std^-p of a field, see `contrast_weights`; 0 weighs all equally."""


@dataclass(frozen=True)
class DataConfig:
    """What is observed, what is asked for, and where the fields come from."""

    paths: tuple[str, ...] = ()
    """Datasets, see `open_dataset`; set by --data."""
    split: Literal["train", "all"] = "train"
    """Which part of the data to learn from, where names tell parts apart."""
    channels: Literal["auto", "last", "none"] = "auto"
    """Whether the last axis of an array holds channels, see `understand_axes`."""
    values: tuple[str, ...] = ()
    """Variables of NetCDF files, or columns of tables, that are channels; all if empty."""
    period: tuple[str, ...] = ()
    """First and last time of the fields in NetCDF files, as 2019-03-01; all if empty."""
    coords: tuple[str, ...] = ()
    """Columns of tables with the coordinates; guessed by well-known names if empty."""
    item: str = ""
    """Column of tables that tells items apart, as the day; guessed if empty."""
    size: tuple[int, ...] = ()
    """Grid to which fields are area-averaged. If empty, images go to `image_size`, and other
    fields stay as they are."""
    image_size: tuple[int, ...] = ()
    """Grid to which images are area-averaged where it divides theirs; as they are if empty."""
    fine: tuple[int, ...] = ()
    """Finer grid from which `scales` above 1 take their truth, in the data sets that have it."""
    scales: tuple[int, ...] = (1,)
    """Cells asked for per observed cell along each axis, drawn for each step: 1 on the grid of
    `size`, others on `fine`, observed on a grid that is coarser by as much."""
    own_cells: float = 1.0
    """Share of the steps at scales above 1 that ask for means over the cells of `fine` themselves;
    the others ask for means over cells like those observed, at and between them."""
    limit: int = 0
    """Fields used of each dataset; all if 0."""
    validation: int = 0
    """Items held out of training to choose the best weights; 0 stands for 500, or a fifth of all
    where that is fewer. Of fields over time, the last whole days."""
    density: tuple[float, float] = (0.2, 0.2)
    """Range from which each batch's observed fraction is drawn, in (0, 1]: of a grid's cells, or
    of the points of a table's items; cells without a value do not count."""
    masks: Literal["fresh", "fixed"] = "fresh"
    """Draw a new mask at every visit, or keep one per field, so that a field's other points are
    never seen."""
    target: Literal["all", "disjoint"] = "all"
    """Supervise all points, or as many as are observed, none of them observed."""
    queries: int = 0
    """Points drawn from the targets in steps at t = 0; all if 0. Cheaper, and unbiased."""
    window: int = 0
    """Cells per axis of the block of points that other steps ask for; all targets if 0. Cheaper,
    for a model that decides locally."""
    flip: Literal["auto", True, False, "all"] = "auto"
    """Mirror half of the fields along the last axis; auto mirrors images and nothing else. All
    mirrors along every axis and swaps axes that have as many cells: of a square grid, all eight
    symmetries are as likely."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, or Muon with AdamW for what is no matrix, with warm-up and cosine decay."""

    name: Annotated[str, OPTIMIZERS] = "adamw"
    """adamw, or muon for the matrices between hidden layers, which multiplies in bfloat16."""
    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; biases, norms and scalars have none."""
    beta2: float = 0.99
    """Decay of the second moment."""
    warmup: int = 500
    """Steps over which the learning rate rises from 0."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Decay per step of the averaged weights that are evaluated and saved."""


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    model: dict[str, Any] = field(default_factory=lambda: {"name": "v2"})
    """Name of the backbone and its settings."""
    flow: FlowConfig = field(default_factory=FlowConfig)
    """The flow around it."""
    data: DataConfig = field(default_factory=DataConfig)
    """Data and masks."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimiser."""
    epochs: int = 100
    """Passes over the training fields."""
    steps: int = 0
    """Steps after which training ends, whatever the epochs; 0 leaves it to the epochs."""
    batch_size: int = 64
    """Fields per step."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast type; auto takes bfloat16 where the hardware multiplies in it."""
    recompute: bool = False
    """Keep less for the backward and compute it again: less memory, more time, same result."""
    eval_every: int = 1
    """Epochs between validations."""
    save_every: int = 10
    """Epochs between checkpoints that are kept, epoch_XXXX.safetensors."""
    visualize_every: int = 5
    """Epochs between figures."""
    resume_every: int = 60
    """Seconds between saves of the state from which a killed run resumes."""
    init: str = ""
    """Checkpoint from which matching weights are taken at the start."""
    freeze: tuple[str, ...] = ()
    """Prefixes of weights that stay as they are."""
    seed: int = 0
    """Seed of weights, order, masks and noise."""
    device: str = "auto"
    """cuda, cpu, or auto: cuda where there is one."""

    @property
    def length(self) -> str:
        """How long the run lasts, in words."""
        return counted(self.steps, "step") if self.steps else counted(self.epochs, "epoch")

    def spec(self, normalizer: Normalizer, shape: tuple[int, ...]) -> ModelSpec:
        """Describe the model for fields with these channels on a grid of this shape."""
        settings = {key: value for key, value in self.model.items() if key != "name"}
        return ModelSpec(
            model=self.model["name"],
            settings=settings | {"channels": normalizer.channels, "dims": len(shape)},
            prediction=self.flow.prediction,
            time_shift=self.flow.time_shift,
            normalizer=normalizer,
            shape=shape,
            path=self.flow.path,
            noise=self.flow.noise,
            noise_length=self.flow.noise_length,
            residual=self.flow.residual,
        )


def load_config(preset: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a preset by name or path and apply `section.key=value` overrides.

    A preset may name a backbone of another package as `module:Class`. Whoever names the preset
    trusts it: the module is imported.

    Raises:
        InputError: The preset or a key is unknown, or a value has the wrong type.
    """
    data = _read_preset(preset)
    for override in overrides:
        _apply_override(data, override)
    model = data.get("model")
    if isinstance(model, dict):
        trust(model.get("name"))
    return config_from_dict(data)


def config_from_dict(data: Any) -> TrainConfig:
    """Build a configuration from nested tables, checking every key and value.

    The settings of a backbone of another package are checked if its module is imported; none is
    imported here, because the tables may come from a file of a stranger.

    Raises:
        InputError: A key is unknown, or a value has the wrong type or is out of range.
    """
    if not isinstance(data, dict):
        raise InputError(f"settings must be tables of keys and values, not {_shorten(data)}")
    try:
        config: TrainConfig = _build(TrainConfig, data, "")
    except RecursionError as error:
        raise InputError("the settings are nested too deeply") from error
    _check_ranges(config)
    _check_model(config.model)
    return config


def _check_model(model: dict[str, Any]) -> None:
    name = model.get("name")
    if not isinstance(name, str):
        raise InputError(f"model.name must be the name of a model, not {_shorten(name)}")
    if not is_known(name):
        return
    defaults = model_defaults(name)
    for key, value in model.items():
        if key == "name":
            continue
        if key not in defaults:
            raise unknown_name("key", f"model.{key}", [f"model.{name}" for name in defaults])
        if isinstance(defaults[key], bool | int | float | str):
            _convert(type(defaults[key]), value, f"model.{key}")
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and (value or defaults[key] != 0):  # what is 0 by default may be 0
            _check_positive(f"model.{key}", value)


def _check_positive(key: str, value: float) -> None:
    if not 0 < value < LARGEST:
        raise InputError(f"{key} must be above 0 and below {LARGEST:,}, not {_shorten(value)}")


def _check_ranges(config: TrainConfig) -> None:
    _check_numbers(config)
    for key in ("epochs", "batch_size", "eval_every", "save_every", "visualize_every"):
        if getattr(config, key) < 1:
            raise InputError(f"{key} must be at least 1, not {getattr(config, key)}")
    low, high = config.data.density
    if not 0 < low <= high <= 1:
        raise InputError(f"data.density must be a range within (0, 1], not [{low}, {high}]")
    if config.data.target == "disjoint" and high == 1:
        raise InputError("data.density of 1 observes every point and leaves no disjoint target")
    if config.data.target == "disjoint" and config.data.window:
        raise InputError("data.window asks for whole blocks; it needs data.target=all")
    if not config.data.scales or min(config.data.scales) < 1:
        raise InputError(f"data.scales must be at least 1, not {list(config.data.scales)}")
    if max(config.data.scales) > 1 and config.data != replace(
        config.data, masks="fresh", target="all"
    ):
        raise InputError("data.scales above 1 need data.masks=fresh and data.target=all")
    if not 0 <= config.data.own_cells <= 1:
        raise InputError(f"data.own_cells must be from 0 to 1, not {config.data.own_cells}")
    if config.flow.prediction in ("noise", "score") and config.flow.mean_fraction > 0:
        raise InputError(
            f"flow.prediction={config.flow.prediction} says nothing of the data at t = 0; "
            "set flow.mean_fraction=0"
        )


def _check_numbers(config: TrainConfig) -> None:
    """Refuse numbers with which training would fail later, or succeed at nothing."""
    positive = {
        "flow.time_shift": config.flow.time_shift,
        "flow.noise_length": config.flow.noise_length,
        "optimizer.lr": config.optimizer.lr,
        "optimizer.clip": config.optimizer.clip,
    }
    below_one = {"optimizer.ema": config.optimizer.ema, "optimizer.beta2": config.optimizer.beta2}
    not_negative = below_one | {
        "seed": config.seed,
        "steps": config.steps,
        "resume_every": config.resume_every,
        "data.limit": config.data.limit,
        "data.validation": config.data.validation,
        "data.queries": config.data.queries,
        "data.window": config.data.window,
        "flow.mean_fraction": config.flow.mean_fraction,
        "flow.contrast_weight": config.flow.contrast_weight,
        "optimizer.warmup": config.optimizer.warmup,
        "optimizer.weight_decay": config.optimizer.weight_decay,
    }
    rules = (
        (positive, lambda x: x > 0, "above 0"),
        (not_negative, lambda x: x >= 0, "at least 0"),
        (below_one, lambda x: x < 1, "below 1"),
        ({"flow.mean_fraction": config.flow.mean_fraction}, lambda x: x <= 1, "at most 1"),
    )
    for settings, holds, rule in rules:
        for key, value in settings.items():
            if not holds(value):
                raise InputError(f"{key} must be {rule}, not {value}")


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration as nested tables, ready for JSON."""
    return dataclasses.asdict(config)


# Settings that are left to the data, and what stands for that.
LEFT_TO_DATA: dict[str, Any] = {"size": (), "validation": 0, "flip": "auto"}


def follow_run(config: TrainConfig, recorded: TrainConfig) -> TrainConfig:
    """Return the configuration with what it leaves to the data as an earlier run settled it."""
    settled = {
        key: getattr(recorded.data, key)
        for key, left in LEFT_TO_DATA.items()
        if getattr(config.data, key) == left
    }
    return replace(config, data=replace(config.data, **settled))


def preset_names() -> list[str]:
    """Return the presets that ship with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def _read_preset(preset: str) -> dict[str, Any]:
    path = PRESETS / f"{preset}.toml"
    if preset not in preset_names():
        path = Path(preset)
        if "\0" in preset or path.suffix != ".toml" or not path.is_file():
            raise unknown_name("preset", preset, preset_names())
    try:
        with path.open("rb") as file:
            content = file.read(PRESET_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > PRESET_BYTES:
        raise InputError(f"{path} is no preset: it is larger than {PRESET_BYTES:,} bytes")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"'{override}' is not a setting; write section.key=value")
    *sections, last = key.split(".")
    table = data
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise InputError(f"unknown key '{key}': '{section}' is a value, not a section")
    table[last] = _parse(text)


def _parse(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def _build(kind: type[Any], data: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(kind, include_extras=True)
    for key in data:
        if key not in hints:
            raise unknown_name("key", prefix + key, [prefix + name for name in hints])
    return kind(**{key: _convert(hints[key], data[key], prefix + key) for key in data})


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Return the value as the hinted type, or raise with the key's full name."""
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _build(typing.cast(type, hint), value, key + ".")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        if not isinstance(value, str) or value not in arguments[1]:
            raise unknown_name(f"value of {key}", _shorten(value).strip("'"), list(arguments[1]))
        return value
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in arguments):
            choices = [str(choice).lower() for choice in arguments]
            raise unknown_name(f"value of {key}", _shorten(value).strip("'"), choices)
        return value
    if origin is tuple:
        return _convert_tuple(arguments, value, key)
    if origin is types.UnionType:
        return value if value is None else _convert(arguments[0], value, key)
    return _convert_plain(origin or hint, value, key)


def _convert_plain(expected: type, value: Any, key: str) -> Any:
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < LARGEST_INTEGER else math.inf
    if not isinstance(value, expected) or (expected is not bool and isinstance(value, bool)):
        name = "a table" if dataclasses.is_dataclass(expected) else expected.__name__
        raise InputError(f"{key} must be {name}, not {_shorten(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{key} must be a finite number, not {value}")
    if isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
        raise InputError(f"{key} must be below 2^63, not {_shorten(value)}")
    if isinstance(value, str) and "\0" in value:
        raise InputError(f"{key} must hold no null character")
    return value


def _shorten(value: Any) -> str:
    """Show a value in no more than a line; a number may have more digits than Python prints."""
    if isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
        return "a larger number"
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else text[:60] + "..."


def _convert_tuple(arguments: tuple[Any, ...], value: Any, key: str) -> tuple[Any, ...]:
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    if arguments[-1] is Ellipsis:
        return tuple(_convert(arguments[0], item, key) for item in items)
    if len(items) == 1:
        items = items * len(arguments)
    if len(items) != len(arguments):
        raise InputError(f"{key} takes {len(arguments)} values, not {len(items)}")
    return tuple(_convert(hint, item, key) for hint, item in zip(arguments, items, strict=True))
