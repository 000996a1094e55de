"""Figures. The functions return them and never show them; matplotlib is an optional extra.

Fields of three channels in [0, 1] are drawn as colours, others by their first channel. What was
not observed is light grey, and all pictures of a field share their limits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.files import write_atomically
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.masks import Target, target_indices
from sparsefield.evaluation.protocol import Protocol, Task, data_range, make_task
from sparsefield.inference.model import Model
from sparsefield.inference.reconstruction import Reconstruction
from sparsefield.metrics import psnr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNKNOWN = (0.88, 0.88, 0.88)
PANEL_INCHES = 1.55
TRAINING_ROWS = 4
DPI = 130


class Panel(NamedTuple):
    """One picture of a figure.

    Args:
        values: What to draw, shape (H, W, C); NaN where it is unknown.
        caption: Text below it.
        kind: A field, or the standard deviation of one.
    """

    values: np.ndarray
    caption: str = ""
    kind: Literal["field", "spread"] = "field"


def plot_reconstruction(reconstruction: Reconstruction) -> "Figure":
    """Return a figure of what was observed, the mean, one draw and the standard deviation.

    Args:
        reconstruction: A field reconstructed on a grid.

    Raises:
        InputError: The points form no grid, or matplotlib is not installed.
    """
    field = reconstruction
    panels = {
        "observed": Panel(_observed(field), f"{field.obs.count} points"),
        "mean": Panel(_picture(field, field.mean)),
    }
    if field.samples is not None:
        panels["one sample"] = Panel(_picture(field, field.samples[0]))
    if field.std is not None:
        panels["standard deviation"] = _spread(field)
    return _draw([list(panels.values())], list(panels))


def plot_demo(
    truth: np.ndarray,
    fields: Sequence[Reconstruction],
    baseline: np.ndarray,
    baseline_title: str,
    names: Sequence[str],
) -> "Figure":
    """Return a figure of one row per picture: truth, observed, baseline, mean, draw and deviation.

    Args:
        truth: True pictures (B, H, W, C).
        fields: Reconstructions of the B pictures, with draws.
        baseline: Pictures by a classical method (B, H, W, C).
        baseline_title: What to call that method.
        names: What to call the pictures.

    Raises:
        InputError: matplotlib is not installed.
    """
    rows = []
    for real, field, classical, name in zip(truth, fields, baseline, names, strict=True):
        assert field.samples is not None
        mean, draw = _picture(field, field.mean), _picture(field, field.samples[0])
        rows.append(
            [
                Panel(real, name),
                Panel(
                    _observed(field), f"{field.obs.count / len(field.coords):.0%} of the pixels"
                ),
                Panel(classical, decibels(classical, real)),
                Panel(mean, decibels(mean, real)),
                Panel(draw, decibels(draw, real)),
                _spread(field),
            ]
        )
    titles = ["truth", "observed", baseline_title, "mean", "one sample", "standard deviation"]
    return _draw(rows, titles)


def plot_training(
    model: Model, fields: FieldDataset, protocol: Protocol, target: Target, path: Path
) -> None:
    """Write a figure of some fields: truth, observations, targets, predicted targets, full field.

    Args:
        model: The model in training.
        fields: Validation fields.
        protocol: What is observed of them.
        target: Which points are supervised, see `target_indices`.
        path: Where to write the PNG.

    Raises:
        InputError: The file cannot be written, or matplotlib is not installed.
    """
    task = make_task(fields, protocol, range(min(TRAINING_ROWS, len(fields))))
    full = task.mean(model)
    rows = []
    for item, values in enumerate(full):
        key = (fields.points, protocol.density, protocol.seed, protocol.split, item)
        targets = torch.from_numpy(target_indices(*key, target))
        rows.append(_training_row(task, item, targets, values, data_range(fields)))
    figure = _draw(rows, ["truth", "observed", "targets", "predicted targets", "full field"])
    save_figure(figure, path)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG, whole or not at all.

    Raises:
        InputError: The file cannot be written.
    """
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI))


def _training_row(
    task: Task, item: int, targets: Tensor, full: Tensor, value_range: float
) -> list[Panel]:
    truth, observed = task.truth[item], ~task.missing[item]
    asked = torch.zeros_like(observed).index_fill(0, targets, True)
    real, whole = lay_out(truth, task.shape), lay_out(full, task.shape)
    return [
        Panel(real),
        Panel(lay_out(keep(truth, observed), task.shape)),
        Panel(lay_out(keep(truth, asked), task.shape)),
        Panel(lay_out(keep(full, asked), task.shape)),
        Panel(whole, decibels(whole, real, value_range)),
    ]


def _draw(rows: Sequence[Sequence[Panel]], titles: Sequence[str]) -> "Figure":
    """Return a figure of rows of panels; the first fields of a row set the row's limits."""
    figure, grid = new_figure(len(rows), len(titles))
    for axes, panels in zip(grid, rows, strict=True):
        known = [panel.values for panel in panels if panel.kind == "field"]
        low, high = min(map(np.nanmin, known)), max(map(np.nanmax, known))
        for place, panel in zip(axes, panels, strict=True):
            draw_panel(place, panel, (float(low), float(high)))
    for place, title in zip(grid[0], titles, strict=True):
        place.set_title(title, fontsize=9)
    return figure


def new_figure(rows: int, columns: int) -> tuple["Figure", np.ndarray]:
    """Return an empty figure and its panels (rows, columns).

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("figures need matplotlib: install sparsefield[plot]") from error
    size = (PANEL_INCHES * columns, (PANEL_INCHES + 0.15) * rows + 0.25)
    figure = Figure(figsize=size)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.05, hspace=0, wspace=0)
    return figure, figure.subplots(rows, columns, squeeze=False)


def draw_panel(axes: "Axes", panel: Panel, limits: tuple[float, float]) -> None:
    """Draw a picture whose values lie within `limits`."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_xlabel(panel.caption, fontsize=8, labelpad=2)
    if panel.kind == "spread":
        axes.imshow(panel.values[..., 0], cmap="magma", vmin=0)
    elif panel.values.shape[-1] == 3 and limits[0] >= 0 and limits[1] <= 1:
        axes.imshow(np.where(np.isnan(panel.values), UNKNOWN, panel.values))
    else:
        axes.set_facecolor(UNKNOWN)
        axes.imshow(panel.values[..., 0], cmap="viridis", vmin=limits[0], vmax=limits[1])


def _spread(field: Reconstruction) -> Panel:
    """Return the standard deviation, averaged over channels."""
    assert field.std is not None
    values = _picture(field, field.std).mean(axis=-1, keepdims=True)
    return Panel(values, f"0 to {values.max():.2g}", "spread")


def _picture(field: Reconstruction, values: Tensor) -> np.ndarray:
    if field.shape is None:
        raise InputError("free points have no picture; pass shape= to reconstruct")
    return lay_out(values, field.shape)


def lay_out(values: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Return values (L, C) as a picture (H, W, C): a strip in 1-D, the middle slice in 3-D."""
    picture = values.reshape(*shape, -1).numpy()
    while picture.ndim > 3:
        picture = picture[len(picture) // 2]
    return picture[None] if picture.ndim == 2 else picture


def _observed(field: Reconstruction) -> np.ndarray:
    """Return the observations as a picture, on the grid that they come from if there is one.

    Cells are as wide as the least distance between observations along an axis, but no smaller
    than those of the reconstruction: pixels of a coarse image stay visible in a fine one.
    """
    if field.shape is None:
        raise InputError("free points have no picture; pass shape= to reconstruct")
    coords = field.obs.coords[field.obs.valid].numpy()
    widths = [_spacing(x) * n / 2 for x, n in zip(coords.T, field.shape, strict=True)]
    shape = tuple(round(n / max(1.0, min(widths))) for n in field.shape)
    cell = np.floor((coords + 1) / 2 * shape).astype(int).clip(0, np.array(shape) - 1)
    picture = np.full((*shape, field.obs.channels), np.nan, np.float32)
    picture[tuple(cell.T)] = field.obs.values[field.obs.valid].numpy()
    return lay_out(torch.from_numpy(picture.reshape(-1, field.obs.channels)), shape)


def _spacing(positions: np.ndarray) -> float:
    """Return the least distance between different positions along an axis, 0 if all are one."""
    gaps = np.diff(np.unique(positions.round(5)))
    return float(gaps.min()) if gaps.size else 0.0


def keep(values: Tensor, where: Tensor) -> Tensor:
    """Return values (L, C) with NaN except `where` (L,)."""
    return values.masked_fill(~where[:, None], torch.nan)


def decibels(picture: np.ndarray, truth: np.ndarray, value_range: float = 1.0) -> str:
    """Return the PSNR of a picture as a caption."""
    prediction, target = (torch.from_numpy(x).flatten(0, 1)[None] for x in (picture, truth))
    return f"{psnr(prediction, target, data_range=value_range).item():.1f} dB"
