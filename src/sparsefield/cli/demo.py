"""sparsefield demo: the main job on real photographs."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import rich
from tyro.conf import arg

from sparsefield.cli import options
from sparsefield.cli.figures import need_matplotlib, write_figure
from sparsefield.cli.progress import count_fields, duration
from sparsefield.cli.tables import score_table
from sparsefield.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from sparsefield.data.dataset import FieldDataset
    from sparsefield.evaluation.protocol import Task
    from sparsefield.inference.reconstruction import Reconstruction

BASELINES = ("nearest", "linear", "tps", "kriging")
DRAWN_BASELINE = "tps"


def command(
    out: Annotated[Path, arg(metavar="DIR")] = Path("demo"),
    model: options.ModelName = "default",
    samples: options.Samples = 16,
) -> int:
    """Hide 80 % of the pixels of four photographs, reconstruct them, compare with baselines.

    Args:
        out: Folder for the figure, reconstruction.png.
    """
    from sparsefield.data.photographs import PHOTOGRAPHS, photographs
    from sparsefield.evaluation.protocol import Protocol, make_task
    from sparsefield.figures.field import plot_demo

    if samples < 2:
        raise InputError(f"a standard deviation needs at least 2 samples, not {samples}")
    need_matplotlib("the demo")
    start = time.monotonic()
    photos = photographs()
    task = make_task(photos, Protocol(), range(len(photos)))
    fields = _reconstruct(model, task, samples)
    size = " x ".join(map(str, photos.shape))
    print(f"{len(photos)} photographs of {size} pixels, 80 % of them hidden; means:")
    rich.print(score_table(_scores(model, fields, photos, task)))
    truth = task.truth.unflatten(1, task.shape).numpy()
    figure = plot_demo(truth, fields, _interpolate(task), "thin-plate spline", list(PHOTOGRAPHS))
    path = out / "reconstruction.png"
    write_figure(figure, path)
    print(f"{duration(time.monotonic() - start)} in all")
    return 0


def _reconstruct(name: str, task: "Task", samples: int) -> "list[Reconstruction]":
    from sparsefield.data.observation import Observation
    from sparsefield.inference.model import load
    from sparsefield.inference.reconstruction import reconstruct

    model = load(name)
    fields = []
    with count_fields("photos", len(task.truth)) as progress:
        for pair in zip(task.obs.coords, task.obs.values, strict=True):
            fields.append(reconstruct(model, Observation(*pair), task.shape, samples=samples))
            progress(1)
    return fields


def _scores(
    name: str, fields: "list[Reconstruction]", photos: "FieldDataset", task: "Task"
) -> dict[str, dict[str, float]]:
    """Return the mean scores of the model's mean, of one draw, and of the baselines."""
    import torch

    from sparsefield.evaluation.baseline_scores import evaluate_baselines
    from sparsefield.evaluation.protocol import Protocol, score

    means = torch.stack([field.mean for field in fields])
    draws = torch.stack([field.samples[0] for field in fields if field.samples is not None])
    rows = {f"{name}, mean": score(means, task), f"{name}, one sample": score(draws, task)}
    rows |= evaluate_baselines(photos, Protocol(), BASELINES, processes=1)
    kept = ("psnr", "psnr_missing", "ssim")
    return {row: {k: float(scores[k].mean()) for k in kept} for row, scores in rows.items()}


def _interpolate(task: "Task") -> "np.ndarray":
    """Return the photographs as the strongest baseline sees them, shape (B, H, W, C)."""
    import numpy as np

    from sparsefield.baselines.interpolators import reconstruct_baseline

    grid = task.coords[0].numpy()
    means = [
        reconstruct_baseline(DRAWN_BASELINE, coords.numpy(), values.numpy(), grid).mean
        for coords, values in zip(task.obs.coords, task.obs.values, strict=True)
    ]
    return np.stack(means).clip(0, 1).astype(np.float32).reshape(len(means), *task.shape, -1)
