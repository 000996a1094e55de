"""Figures of a comparison: scores as bars with intervals, and fields beside their errors."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from sparsefield.evaluation.protocol import Task
from sparsefield.figures.field import Panel, decibels, draw_panel, keep, lay_out, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MODEL, REFERENCE, BASELINE = "#4477aa", "#cc6677", "#bbbbbb"
# Share of a panel's width that bars leave for the numbers at their ends.
MARGIN = 0.3
# Room for the colour bar of the errors.
BAR_INCHES = 0.9


class Bars(NamedTuple):
    """One panel of the chart.

    Attributes:
        part: Where the score is, "mean" or "samples".
        score: Its name there.
        title: What the panel is called.
        digits: Digits after the point.
        from_zero: Whether bars start at 0, or somewhat below the lowest score.
    """

    part: str
    score: str
    title: str
    digits: int
    from_zero: bool = True


BARS = (
    Bars("mean", "psnr", "PSNR of the mean, dB (higher is better)", 2, from_zero=False),
    Bars("mean", "ssim", "SSIM of the mean (higher is better)", 3, from_zero=False),
    Bars("mean", "speckle", "speckle energy of the mean (lower is better)", 5),
    Bars("samples", "psnr", "PSNR of one draw, dB (higher is better)", 2, from_zero=False),
    Bars("samples", "crps", "CRPS (lower is better)", 4),
    Bars("samples", "speckle", "speckle energy of one draw (lower is better)", 5),
)


def plot_scores(report: Mapping[str, Any]) -> "Figure":
    """Return a chart of the scores of a comparison, with their 95 % intervals.

    Args:
        report: What `Comparison.to_dict` returned.

    Raises:
        InputError: matplotlib is not installed.
    """
    rows = report["contestants"].values()
    shown = [bars for bars in BARS if any(_score(row, bars) is not None for row in rows)]
    columns = min(3, len(shown))
    names = [_ranked(report, bars.part) for bars in shown]
    heights = [0.7 + 0.24 * len(line) for line in names[::columns]]
    figure, grid = new_figure(len(heights), columns)
    figure.set_size_inches(1.2 + 3.3 * columns, 0.5 + sum(heights))
    grid[0, 0].get_gridspec().set_height_ratios(heights)
    for number, axes in enumerate(grid.flat):
        if number < len(shown):
            _draw_bars(axes, shown[number], names[number], report)
            axes.tick_params(labelleft=number % columns == 0)
        else:
            axes.set_axis_off()
    figure.suptitle(_caption(report), fontsize=9)
    return figure


def _ranked(report: Mapping[str, Any], part: str) -> list[str]:
    """Return who has scores of the mean or of draws, best PSNR first."""
    return [name for name in report["ranking"] if part in report["contestants"][name]]


def _score(row: Mapping[str, Any], bars: Bars) -> float | None:
    value = row.get(bars.part, {}).get(bars.score)
    return value if value is not None and math.isfinite(value) else None


def _caption(report: Mapping[str, Any]) -> str:
    return (
        f"{report['data']}, {report['n']:,} fields, {report['density']:.0%} observed; "
        f"95 % intervals over fields\n"
        f"red: the reference, {report['reference']}; * another PSNR than it "
        f"(paired, 5 % over {report['comparisons']} comparisons); grey: baselines"
    )


def _draw_bars(axes: "Axes", bars: Bars, names: Sequence[str], report: Mapping[str, Any]) -> None:
    """Draw one line per name, with a bar if it has the score."""
    rows = [report["contestants"][name] for name in names]
    places = [place for place, row in enumerate(rows) if _score(row, bars) is not None]
    values = np.array([_score(rows[place], bars) for place in places], dtype=float)
    ends = np.array([rows[place][bars.part][f"{bars.score}_ci"] for place in places])
    start, stop = _limits(ends, bars.from_zero)
    axes.barh(
        places,
        values - start,
        left=start,
        height=0.7,
        color=[_colour(report, names[place]) for place in places],
        xerr=np.abs(ends.T - values),
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    for place, value, end in zip(places, values, ends[:, 1], strict=True):
        axes.text(end, place, f"  {value:.{bars.digits}f}", va="center", fontsize=7)
    axes.set_xlim(start, stop)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [_mark(report, name) for name in names])
    axes.tick_params(labelsize=7)
    axes.locator_params(axis="x", nbins=5)
    axes.set_title(bars.title, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _limits(ends: np.ndarray, from_zero: bool) -> tuple[float, float]:
    """Return where an axis begins and ends, from intervals (K, 2)."""
    low, high = float(ends.min()), float(ends.max())
    start = min(0.0, low) if from_zero else low - 0.15 * (high - low or 1.0)
    return start, high + MARGIN * (high - start or 1.0)


def _colour(report: Mapping[str, Any], name: str) -> str:
    if name == report["reference"]:
        return REFERENCE
    return BASELINE if report["contestants"][name]["kind"] == "baseline" else MODEL


def _mark(report: Mapping[str, Any], name: str) -> str:
    significant = report["differences"].get(name, {}).get("significant", False)
    return f"{name} *" if significant else name


def plot_errors(
    task: Task, predictions: Mapping[str, Tensor], title: str, value_range: float = 1.0
) -> "Figure":
    """Return a figure of fields: truth, observations and predictions, with their errors below.

    Errors are averaged over channels and drawn on one scale.

    Args:
        task: Fields with what is observed of them.
        predictions: Predicted fields (B, L, C) by what their column is called.
        title: What is predicted.
        value_range: Range that PSNR refers to.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure, grid = new_figure(2 * len(task.items), 2 + len(predictions))
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + BAR_INCHES, height)
    errors = {name: (x - task.truth).abs().mean(-1) for name, x in predictions.items()}
    largest = max(float(error.quantile(0.995)) for error in errors.values()) or 1.0
    for row in range(len(task.items)):
        fields = {name: values[row] for name, values in predictions.items()}
        _draw_fields(grid[2 * row], task, row, fields, value_range)
        shown = {name: error[row] for name, error in errors.items()}
        image = _draw_errors(grid[2 * row + 1], task, shown, largest)
    for axes, name in zip(grid[0], ["truth", "observed", *predictions], strict=True):
        axes.set_title(name, fontsize=9)
    bar = figure.colorbar(image, ax=grid[:, -1], shrink=0.5, aspect=40, extend="max")
    bar.set_label("|prediction - truth|, mean over channels", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_fields(
    places: np.ndarray, task: Task, row: int, fields: Mapping[str, Tensor], value_range: float
) -> None:
    """Draw a row: a field, what is observed of it, and predictions with their PSNR."""
    truth = lay_out(task.truth[row], task.shape)
    observed = lay_out(keep(task.truth[row], ~task.missing[row]), task.shape)
    share = 1 - float(task.missing[row].double().mean())
    panels = [Panel(truth, f"field {task.items[row]}"), Panel(observed, f"{share:.0%}")]
    for values in fields.values():
        picture = lay_out(values, task.shape)
        panels.append(Panel(picture, decibels(picture, truth, value_range)))
    low = min(float(np.nanmin(panel.values)) for panel in panels)
    high = max(float(np.nanmax(panel.values)) for panel in panels)
    for axes, panel in zip(places, panels, strict=True):
        draw_panel(axes, panel, (low, high))


def _draw_errors(
    places: np.ndarray, task: Task, errors: Mapping[str, Tensor], largest: float
) -> "AxesImage":
    """Draw a row of error maps below the predictions; returns one for the colour bar."""
    for axes in places[:2]:
        axes.set_axis_off()
    places[1].text(1, 0.5, "error", ha="right", va="center", fontsize=9)
    for axes, error in zip(places[2:], errors.values(), strict=True):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        picture = lay_out(error[:, None], task.shape)[..., 0]
        image = axes.imshow(picture, cmap="magma", vmin=0, vmax=largest)
    return image
