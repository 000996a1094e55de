"""The figure of a super-resolution: fields with a part magnified, and radial spectra."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsefield.evaluation.superres import BICUBIC, BICUBIC_KEPT, Enlargement
from sparsefield.figures.field import Panel, decibels, draw_panel, keep, lay_out, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The magnified part is this fraction of a field's side.
ZOOM = 4
FRAME = "#cc3311"
# Rows of panels that the charts below the fields take.
CHART_ROWS = 2
# Methods whose spectra stand out: colour, width and dashes.
STYLES: dict[str, dict[str, Any]] = {
    "truth": {"color": "black", "linewidth": 1.6},
    "mean": {"color": "#cc3311", "linewidth": 1.6},
    "samples": {"color": "#ee7733", "linewidth": 1.2},
    BICUBIC: {"color": "#cc3311", "linewidth": 1.0, "linestyle": "--"},
    BICUBIC_KEPT: {"color": "#cc3311", "linewidth": 1.0, "linestyle": ":"},
}
COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#aa3377", "#bbbbbb")


class Window(NamedTuple):
    """A square part of a picture: its first row, first column and side, in cells."""

    row: int
    column: int
    side: int

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Return the part of a picture (H, W, C)."""
        rows = slice(self.row, self.row + self.side)
        return picture[rows, self.column : self.column + self.side]


def plot_superres(
    enlargement: Enlargement,
    items: Sequence[int],
    fields: Mapping[str, Tensor],
    report: Mapping[str, Any],
) -> "Figure":
    """Return a figure of fields at one size, with a part magnified, and the spectra at all sizes.

    Args:
        enlargement: Fields and what is observed of them.
        items: Numbers of the fields that are drawn.
        fields: Predictions (B, n n, C) for these items by method, the model's called "mean".
        report: What `superres_report` returned.

    Raises:
        InputError: matplotlib is not installed.
    """
    task, titles = enlargement.task(items), ["truth", "observed", *map(_title, fields)]
    figure, grid = new_figure(2 * len(items) + CHART_ROWS, len(titles))
    for row, item in enumerate(items):
        truth = lay_out(task.truth[row], task.shape)
        pictures = [truth, _observed(enlargement, item)]
        pictures += [lay_out(values[row], task.shape) for values in fields.values()]
        _draw_field(grid[2 * row : 2 * row + 2], pictures, item, enlargement.value_range)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    _draw_spectra(figure, grid[-CHART_ROWS:], report)
    figure.suptitle(
        f"{report['model']}: {enlargement.fine.name} at {enlargement.size} x {enlargement.size} "
        f"from {report['density']:.0%} of {enlargement.side} x {enlargement.side} cells",
        fontsize=10,
    )
    return figure


def _title(name: str) -> str:
    own = {BICUBIC: "model 32, bicubic", BICUBIC_KEPT: "the same, means kept"}
    return ({"mean": "model"} | own).get(name, name)


def _observed(enlargement: Enlargement, item: int) -> np.ndarray:
    """Return the observed coarse cells of a field at the size of the fine ones."""
    task = enlargement.coarse_task([item])
    picture = lay_out(keep(task.truth[0], ~task.missing[0]), task.shape)
    times = enlargement.size // enlargement.side
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def _draw_field(
    places: np.ndarray, pictures: Sequence[np.ndarray], item: int, value_range: float
) -> None:
    """Draw a row of pictures of one field, and below it the same part of each, magnified."""
    truth, _, *predictions = pictures
    captions = [f"field {item}", ""] + [decibels(x, truth, value_range) for x in predictions]
    limits = float(min(map(np.nanmin, pictures))), float(max(map(np.nanmax, pictures)))
    window = liveliest_window(truth)
    for column, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        whole, part = places[:, column]
        draw_panel(whole, Panel(picture), limits)
        draw_panel(part, Panel(window.cut(picture), caption), limits)
        _frame(whole, window)


def liveliest_window(picture: np.ndarray) -> Window:
    """Return the part of a picture (n, n, C), a quarter as wide, in which values vary most."""
    side = max(1, len(picture) // ZOOM)
    step = max(1, side // 2)
    values = torch.tensor(picture).double().movedim(-1, 0)[None]
    mean, square = (F.avg_pool2d(x, side, step) for x in (values, values.square()))
    variance = (square - mean.square()).sum(dim=1)[0]
    row, column = divmod(int(variance.argmax()), variance.shape[1])
    return Window(row * step, column * step, side)


def _frame(axes: "Axes", window: Window) -> None:
    from matplotlib.patches import Rectangle

    corner = (window.column - 0.5, window.row - 0.5)
    square = Rectangle(corner, window.side, window.side, fill=False, edgecolor=FRAME, linewidth=1)
    axes.add_patch(square)


def _draw_spectra(figure: "Figure", places: np.ndarray, report: Mapping[str, Any]) -> None:
    """Replace rows of panels by one chart per size."""
    whole = places[0, 0].get_gridspec()[-len(places) :, :]
    charts = whole.subgridspec(1, len(report["sizes"]))
    for axes in places.flat:
        axes.remove()
    for number, (size, part) in enumerate(report["sizes"].items()):
        axes = figure.add_subplot(charts[0, number])
        _draw_spectrum(axes, part["spectrum"], report["observed"])
        axes.set_title(f"energy per ring, {size} x {size}", fontsize=8)
        if number == 0:
            axes.legend(fontsize=6, loc="lower left")


def _draw_spectrum(axes: "Axes", rings: Mapping[str, Sequence[float]], lattice: int) -> None:
    """Draw energies over frequencies; lines mark what the observed grid can show, and its own."""
    colours = cycle(COLOURS)
    for name, energy in rings.items():
        style = STYLES.get(name) or {"color": next(colours), "linewidth": 0.9}
        axes.loglog(range(1, len(energy) + 1), energy, label=_title(name), **style)
    real = np.array(rings["truth"])
    if (real > 0).any():
        axes.set_ylim(bottom=real[real > 0].min() / 1e3)
    for mark in (lattice / 2, *range(lattice, len(real) + 1, lattice)):
        axes.axvline(mark, color="#999999", linewidth=0.7, linestyle=":")
    axes.set_xlabel("cycles per image", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.spines[["top", "right"]].set_visible(False)
