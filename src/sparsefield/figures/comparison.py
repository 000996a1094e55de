"""Figures of a comparison: scores as bars with intervals, and fields beside their errors."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from sparsefield.figures.panels import (
    Panel,
    Scene,
    lay_out,
    new_figure,
    shared_limits,
    show_panel,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MODEL, REFERENCE, BASELINE = "#4477aa", "#cc6677", "#bbbbbb"
# Share of a panel's width that bars leave for the numbers at their ends.
MARGIN = 0.3
# Room for the colour bar of the errors.
BAR_INCHES = 0.9


class Bar(NamedTuple):
    """One score of a method.

    Attributes:
        label: What the method is called.
        value: The score, NaN if the method has none.
        interval: Ends of its confidence interval.
        colour: MODEL, REFERENCE or BASELINE.
    """

    label: str
    value: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)
    colour: str = MODEL


class Chart(NamedTuple):
    """One panel of bars.

    Attributes:
        title: What the panel is called.
        digits: Digits after the point.
        bars: A line each, from above.
        from_zero: Whether bars start at 0, or somewhat below the lowest score.
    """

    title: str
    digits: int
    bars: Sequence[Bar]
    from_zero: bool = True


def plot_scores(charts: Sequence[Chart], title: str) -> "Figure":
    """Return charts of scores with their intervals, three side by side.

    Args:
        charts: The panels; those of one column have the same labels.
        title: What is compared.

    Raises:
        InputError: matplotlib is not installed.
    """
    columns = min(3, len(charts))
    heights = [0.7 + 0.24 * len(chart.bars) for chart in charts[::columns]]
    figure, grid = new_figure(len(heights), columns)
    figure.set_size_inches(1.2 + 3.3 * columns, 0.5 + sum(heights))
    grid[0, 0].get_gridspec().set_height_ratios(heights)
    for axes in grid.flat[len(charts) :]:
        axes.set_axis_off()
    for number, (axes, chart) in enumerate(zip(grid.flat, charts, strict=False)):
        _show_bars(axes, chart)
        axes.tick_params(labelleft=number % columns == 0)
    figure.suptitle(title, fontsize=9)
    return figure


def _show_bars(axes: "Axes", chart: Chart) -> None:
    """Show one line per method, with a bar if it has the score."""
    known = {place: bar for place, bar in enumerate(chart.bars) if math.isfinite(bar.value)}
    values = np.array([bar.value for bar in known.values()])
    ends = np.array([bar.interval for bar in known.values()])
    shown = np.where(np.isnan(ends), values[:, None], ends)
    start, stop = _limits(shown, chart.from_zero)
    axes.barh(
        list(known),
        values - start,
        left=start,
        height=0.7,
        color=[bar.colour for bar in known.values()],
        xerr=np.abs(ends.T - values),
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    for place, value, end in zip(known, values, shown[:, 1], strict=True):
        axes.text(end, place, f"  {value:.{chart.digits}f}", va="center", fontsize=7)
    axes.set_xlim(start, stop)
    axes.set_ylim(len(chart.bars) - 0.4, -0.6)
    axes.set_yticks(range(len(chart.bars)), [bar.label for bar in chart.bars])
    axes.tick_params(labelsize=7)
    axes.locator_params(axis="x", nbins=5)
    axes.set_title(chart.title, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _limits(ends: np.ndarray, from_zero: bool) -> tuple[float, float]:
    """Return where an axis begins and ends, from intervals (K, 2)."""
    low, high = float(ends.min()), float(ends.max())
    start = min(0.0, low) if from_zero else low - 0.15 * (high - low or 1.0)
    return start, high + MARGIN * (high - start or 1.0)


def plot_errors(scene: Scene, predictions: Mapping[str, Tensor], title: str) -> "Figure":
    """Return a figure of fields: truth, observations and predictions, with their errors below.

    Errors are averaged over channels and shown on one scale.

    Args:
        scene: Fields with what is observed of them.
        predictions: Predicted fields (B, L, C) by what their column is called.
        title: What is predicted.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure, grid = new_figure(2 * len(scene.items), 2 + len(predictions))
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + BAR_INCHES, height)
    errors = {name: (x - scene.truth).abs().mean(-1) for name, x in predictions.items()}
    largest = max(float(error.quantile(0.995)) for error in errors.values()) or 1.0
    for row in range(len(scene.items)):
        _show_fields(grid[2 * row], scene, row, [values[row] for values in predictions.values()])
        shown = [error[row] for error in errors.values()]
        image = _show_errors(grid[2 * row + 1], scene, shown, largest)
    for axes, name in zip(grid[0], ["truth", "observed", *predictions], strict=True):
        axes.set_title(name, fontsize=9)
    bar = figure.colorbar(image, ax=grid[:, -1], shrink=0.5, aspect=40, extend="max")
    bar.set_label("|prediction - truth|, mean over channels", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    return figure


def _show_fields(
    places: np.ndarray, scene: Scene, row: int, predictions: Sequence[Tensor]
) -> None:
    """Show a field, what is observed of it, and predictions with their PSNR."""
    share = float(scene.observed[row].double().mean())
    panels = [
        Panel(scene.picture(row), f"field {scene.items[row]}"),
        Panel(scene.observed_picture(row), f"{share:.0%}"),
    ]
    pictures = [lay_out(values, scene.shape) for values in predictions]
    panels += [Panel(picture, scene.decibels(picture, row)) for picture in pictures]
    limits = shared_limits([panel.values for panel in panels])
    for axes, panel in zip(places, panels, strict=True):
        show_panel(axes, panel, limits)


def _show_errors(
    places: np.ndarray, scene: Scene, errors: Sequence[Tensor], largest: float
) -> "AxesImage":
    """Show a row of error maps below the predictions; return one for the colour bar."""
    for axes in places[:2]:
        axes.set_axis_off()
    places[1].text(1, 0.5, "error", ha="right", va="center", fontsize=9)
    for axes, error in zip(places[2:], errors, strict=True):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        picture = lay_out(error[:, None], scene.shape)[..., 0]
        image = axes.imshow(picture, cmap="magma", vmin=0, vmax=largest)
    return image
