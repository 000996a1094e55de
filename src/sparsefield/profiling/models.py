"""Speed and memory of whole models: one evaluation per grid, and a training step."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sparsefield.core.devices import autocast_type, choose_device
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.grids import cell_centres
from sparsefield.data.masks import observed_indices
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Query
from sparsefield.flow.flow import Flow
from sparsefield.models import FITTED
from sparsefield.profiling.timing import Work, compare, environment
from sparsefield.training.config import TrainConfig, load_config, preset_names
from sparsefield.training.data import TrainingData
from sparsefield.training.loop import Trainer
from sparsefield.training.run import Run

SIZES = (32, 64)
CHANNELS = 3


def measure_models(
    presets: Sequence[str],
    settings: Sequence[str],
    batch_size: int,
    precision: Literal["auto", "float32", "bfloat16"],
    device: str,
    rounds: tuple[int, float],
    announce: Callable[[str], None],
) -> dict[str, Any]:
    """Measure one forward per grid and a training step of every preset.

    Args:
        presets: Presets or TOML files; all presets if there are none.
        settings: Settings in place of the presets', as in `load_config`.
        batch_size: Fields per training step.
        precision: Autocast type, see `TrainConfig`.
        device: Where the models run.
        rounds: Repeats and patience, see `compare`.
        announce: Called with a description of what is measured next.

    Returns:
        The environment and `rows`, one per preset.
    """
    place = choose_device(device)
    configs = {
        name: dataclasses.replace(
            load_config(name, settings), batch_size=batch_size, precision=precision, device=device
        )
        for name in presets or sorted(set(preset_names()) - set(FITTED))
    }
    rows: dict[str, dict[str, Any]] = {
        name: {
            "preset": name,
            "parameters": _parameters(config),
            "autocast": str(autocast_type(precision, place) or torch.float32)[len("torch.") :],
            "density": _density(config),
        }
        for name, config in configs.items()
    }
    for size in SIZES:
        announce(f"forward at {size} x {size}")
        setups = {name: partial(prepare_forward, c, size) for name, c in configs.items()}
        for name, result in compare(setups, *rounds).items():
            rows[name][f"forward_{size}"] = result
    announce("training")
    setups = {name: partial(prepare_training, c) for name, c in configs.items()}
    for name, result in compare(setups, *rounds).items():
        if "seconds" in result:
            result["images_per_second"] = batch_size / result["seconds"]
        rows[name]["training"] = result
    head = {"benchmark": "model", **environment(place), "repeats": rounds[0]}
    head |= {"batch_size": batch_size, "settings": list(settings)}
    return head | {"rows": list(rows.values())}


def prepare_forward(config: TrainConfig, size: int) -> Work:
    """Return one evaluation on a grid that is observed as in training, as a sampler makes it.

    Presets that are trained at t = 0 only are evaluated there, all others at t = 1/2.
    """
    device = choose_device(config.device)
    flow = _build_flow(config).eval().to(device)
    coords = cell_centres((size, size))[None]
    seen = observed_indices(size * size, _density(config), 0, "validation", 0)
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(1, size * size, CHANNELS, generator=generator).to(device)
    values = torch.randn(1, len(seen), CHANNELS, generator=generator)
    obs = Observation(coords[:, torch.from_numpy(seen)], values).to(device, torch.float32)
    t = torch.full((1,), 0.0 if config.flow.mean_fraction == 1 else 0.5, device=device)
    dtype, query = autocast_type(config.precision, device), Query(coords.to(device), obs)

    def work() -> None:
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            flow.denoise(x_t, t, query)
        _wait(device)

    return work


def prepare_training(config: TrainConfig) -> Work:
    """Return one training step on random images of the preset's grids."""
    size = config.data.size or config.data.image_size or (SIZES[0],) * 2
    images = _random_images(config.batch_size, size)
    finer = _random_images(config.batch_size, config.data.fine) if config.data.fine else None
    nowhere = Run(Path(os.devnull))  # nothing is saved
    trainer = Trainer(config, nowhere, TrainingData(images, images, finer), lambda progress: None)

    def work() -> None:
        trainer.run_step()
        _wait(trainer.device)

    return work


def _random_images(count: int, shape: tuple[int, ...]) -> FieldDataset:
    pixels = np.random.default_rng(0).random((count, *shape, CHANNELS))
    return FieldDataset((255 * pixels).astype(np.uint8), "noise")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _density(config: TrainConfig) -> float:
    return sum(config.data.density) / 2


def _build_flow(config: TrainConfig) -> Flow:
    return config.spec(Normalizer.unit_range(CHANNELS), (SIZES[0],) * 2).build()


def _parameters(config: TrainConfig) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in _build_flow(config).parameters())
