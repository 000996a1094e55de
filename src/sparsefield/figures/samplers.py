"""Scores of samplers against evaluations of the network: the trade-off of accuracy and cost."""

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

from sparsefield.figures.panels import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888", "#995522")
RING: dict[str, Any] = {"markersize": 4, "fillstyle": "none", "markeredgewidth": 0.8}


class Curve(NamedTuple):
    """A score of one sampler at several budgets.

    Attributes:
        label: What the sampler is called.
        nfe: Evaluations per sample at each budget.
        values: Score of single samples at each budget.
        intervals: Ends of its confidence interval at each budget.
        average_nfe: Evaluations that all samples of a field take, empty without `average`.
        average: Score of the average of all samples at each budget.
    """

    label: str
    nfe: Sequence[int]
    values: Sequence[float]
    intervals: Sequence[tuple[float, float]]
    average_nfe: Sequence[int] = ()
    average: Sequence[float] = ()


class TradeOff(NamedTuple):
    """One panel: a score against evaluations.

    Attributes:
        title: What the score is called.
        curves: A sampler each.
        mean: Score of the posterior mean, which takes one evaluation; None if it has none.
        ticks: Numbers of evaluations to mark.
    """

    title: str
    curves: Sequence[Curve]
    mean: float | None
    ticks: Sequence[int]


def plot_trade_off(panels: Sequence[TradeOff], title: str) -> "Figure":
    """Return charts of scores against evaluations.

    Lines are single samples; rings are the average of all samples, at the cost of all. The
    posterior mean is the point at one evaluation.

    Args:
        panels: A chart each.
        title: What is compared.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure, grid = new_figure(1, len(panels))
    figure.set_size_inches(4 * len(panels), 3.4)
    for axes, panel in zip(grid.flat, panels, strict=True):
        _show_panel(axes, panel)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


def _show_panel(axes: "Axes", panel: TradeOff) -> None:
    if panel.mean is not None:
        axes.plot([1], [panel.mean], "k*", markersize=9, label="posterior mean")
    for curve, colour in zip(panel.curves, cycle(COLOURS), strict=False):
        _show_curve(axes, curve, colour)
    axes.set_title(panel.title, fontsize=9)
    axes.set_xscale("log")
    axes.set_xticks(panel.ticks, [str(tick) for tick in panel.ticks])
    axes.minorticks_off()
    axes.set_xlabel("evaluations of the network", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _show_curve(axes: "Axes", curve: Curve, colour: str) -> None:
    if not curve.nfe:  # no such score but on images
        return
    axes.plot(
        curve.nfe, curve.values, "o-", color=colour, markersize=3, linewidth=1, label=curve.label
    )
    lows, highs = zip(*curve.intervals, strict=True)
    axes.vlines(curve.nfe, lows, highs, color=colour, linewidth=1, alpha=0.5)
    if curve.average:
        axes.plot(curve.average_nfe, curve.average, "o", color=colour, **RING)
