"""The figure of a super-resolution: fields with a part magnified, and radial spectra."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from sparsefield.figures.panels import Panel, Scene, new_figure, shared_limits, show_panel

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
    "model": {"color": "#cc3311", "linewidth": 1.6},
    "samples": {"color": "#ee7733", "linewidth": 1.2},
    "model 32, bicubic": {"color": "#cc3311", "linewidth": 1.0, "linestyle": "--"},
    "the same, data-consistent": {"color": "#cc3311", "linewidth": 1.0, "linestyle": ":"},
}
COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#aa3377", "#bbbbbb")


class Spectra(NamedTuple):
    """Energy over frequencies at one size.

    Attributes:
        size: Cells per axis n.
        rings: Energy in rings of frequencies (n // 2,) of "truth" and of each method.
    """

    size: int
    rings: Mapping[str, np.ndarray]


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
    scene: Scene,
    observed: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[np.ndarray]],
    *,
    spectra: Sequence[Spectra],
    side: int,
    title: str = "",
) -> "Figure":
    """Return a figure of fields at one size, with a part magnified, and the spectra at all sizes.

    Args:
        scene: Fields on the fine grid (n, n).
        observed: What is observed of each (n, n, C), NaN elsewhere.
        predictions: A picture (n, n, C) of each field by method.
        spectra: Energy over frequencies, one chart per size.
        side: Cells per axis of the observed grid.
        title: What was measured.

    Raises:
        InputError: matplotlib is not installed.
    """
    titles = ["truth", "observed", *predictions]
    figure, grid = new_figure(2 * len(scene.items) + CHART_ROWS, len(titles))
    for row in range(len(scene.items)):
        guesses = [pictures[row] for pictures in predictions.values()]
        _show_field(grid[2 * row : 2 * row + 2], scene, row, observed[row], guesses)
    for axes, name in zip(grid[0], titles, strict=True):
        axes.set_title(name, fontsize=9)
    _show_spectra(figure, grid[-CHART_ROWS:], spectra, side)
    figure.suptitle(title, fontsize=10)
    return figure


def _show_field(
    places: np.ndarray,
    scene: Scene,
    row: int,
    observed: np.ndarray,
    predictions: Sequence[np.ndarray],
) -> None:
    """Show a row of pictures of one field, and below it the same part of each, magnified."""
    truth = scene.picture(row)
    captions = [f"field {scene.items[row]}", "", *(scene.decibels(x, row) for x in predictions)]
    pictures = [truth, observed, *predictions]
    limits, window = shared_limits(pictures), liveliest_window(truth)
    for column, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        whole, part = places[:, column]
        show_panel(whole, Panel(picture), limits)
        show_panel(part, Panel(window.cut(picture), caption), limits)
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


def _show_spectra(
    figure: "Figure", places: np.ndarray, spectra: Sequence[Spectra], side: int
) -> None:
    """Replace rows of panels by one chart per size."""
    whole = places[0, 0].get_gridspec()[-len(places) :, :]
    charts = whole.subgridspec(1, len(spectra))
    for axes in places.flat:
        axes.remove()
    for number, each in enumerate(spectra):
        axes = figure.add_subplot(charts[0, number])
        _show_spectrum(axes, each.rings, side)
        axes.set_title(f"energy per ring, {each.size} x {each.size}", fontsize=8)
        if number == 0:
            axes.legend(fontsize=6, loc="lower left")


def _show_spectrum(axes: "Axes", rings: Mapping[str, np.ndarray], lattice: int) -> None:
    """Show energies over frequencies; lines mark what the observed grid can show, and its own."""
    colours = cycle(COLOURS)
    for name, energy in rings.items():
        style = STYLES.get(name) or {"color": next(colours), "linewidth": 0.9}
        axes.loglog(range(1, len(energy) + 1), energy, label=name, **style)
    real = rings["truth"]
    if (real > 0).any():
        axes.set_ylim(bottom=real[real > 0].min() / 1e3)
    for mark in (lattice / 2, *range(lattice, len(real) + 1, lattice)):
        axes.axvline(mark, color="#999999", linewidth=0.7, linestyle=":")
    axes.set_xlabel("cycles per image", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.spines[["top", "right"]].set_visible(False)
