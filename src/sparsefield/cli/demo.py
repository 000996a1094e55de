"""sparsefield demo: the main job on real photographs."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import rich
from tyro.conf import arg

from sparsefield.cli import options
from sparsefield.cli.figures import need_matplotlib, write_figure
from sparsefield.cli.progress import count_fields, duration
from sparsefield.cli.tables import FORMATS, score_table
from sparsefield.core.errors import InputError
from sparsefield.core.words import counted

if TYPE_CHECKING:
    from sparsefield.data.dataset import FieldDataset
    from sparsefield.evaluation.task import Task
    from sparsefield.figures.field import DemoRow
    from sparsefield.inference.field import Field

BASELINES = ("nearest", "linear", "tps", "kriging")
SHOWN_BASELINE = "tps"
COLUMNS = ("psnr", "psnr_missing", "ssim")


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
    from sparsefield.evaluation.task import Protocol, make_task
    from sparsefield.figures.field import plot_demo

    if samples < 2:
        raise InputError(f"a standard deviation needs at least 2 samples, not {samples}")
    need_matplotlib("the demo")
    start = time.monotonic()
    photos = photographs()
    task = make_task(photos, Protocol(), range(len(photos)))
    fields = _reconstruct(model, task, samples)
    size = " x ".join(map(str, photos.shape))
    print(f"{counted(len(photos), 'photograph')} of {size} pixels, 80 % of them hidden; means:")
    rich.print(score_table(_scores(model, fields, photos, task)))
    figure = plot_demo(_rows(photos, task, fields, list(PHOTOGRAPHS)), "thin-plate spline")
    write_figure(figure, out / "reconstruction.png")
    print(f"{duration(time.monotonic() - start)} in all")
    return 0


def _reconstruct(name: str, task: "Task", samples: int) -> "list[Field]":
    from sparsefield.data.observation import Observation
    from sparsefield.data.query import Grid
    from sparsefield.inference.model import load

    model = load(name)
    fields = []
    with count_fields("photos", len(task.truth)) as progress:
        for pair in zip(task.obs.coords, task.obs.values, strict=True):
            posterior, grid = model.condition(Observation(*pair)), Grid(*task.shape)
            fields.append(posterior.sample(grid, samples) if samples else posterior.mean(grid))
            progress(1)
    return fields


def _scores(
    name: str, fields: "list[Field]", photos: "FieldDataset", task: "Task"
) -> dict[str, dict[str, str]]:
    """Return the mean scores of the model's mean, of one sample, and of the baselines."""
    import torch

    from sparsefield.evaluation.methods import evaluate_baselines
    from sparsefield.evaluation.scorers import score_field
    from sparsefield.evaluation.task import Protocol

    means = torch.stack([field.mean for field in fields])
    samples = torch.stack([field.samples[0] for field in fields if field.samples is not None])
    rows = {f"{name}, mean": score_field(means, task)}
    rows[f"{name}, one sample"] = score_field(samples, task)
    baselines = evaluate_baselines(photos, Protocol(), BASELINES, processes=1)
    rows |= {baseline: result.scores for baseline, result in baselines.items()}
    return {
        row: {column: format(scores[column].mean(), FORMATS[column]) for column in COLUMNS}
        for row, scores in rows.items()
    }


def _rows(
    photos: "FieldDataset", task: "Task", fields: "list[Field]", names: list[str]
) -> "list[DemoRow]":
    """Return the photographs as they are, and as the strongest baseline and the model see them."""
    from sparsefield.evaluation.predictors import Baseline
    from sparsefield.figures.field import DemoRow

    truth = task.images(task.truth).numpy()
    baseline = task.images(Baseline(SHOWN_BASELINE, photos.normalizer)(task).mean).numpy()
    rows = []
    for name, real, classical, field in zip(names, truth, baseline, fields, strict=True):
        assert field.samples is not None and field.std is not None
        shown = (field.mean, field.samples[0], field.std)
        rows.append(DemoRow(name, real, field.obs, classical, *shown))
    return rows
