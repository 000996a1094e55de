"""The dial between price and quality: scores of samplers against evaluations of the network."""

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

from sparsefield.figures.comparison import plot_scores
from sparsefield.figures.field import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORES = {
    "psnr": "PSNR, dB",
    "crps": "CRPS",
    "speckle": "speckle energy",
}
# What the average of all draws scores, at the price of all.
OF_THE_AVERAGE = {"psnr": "psnr_average", "speckle": "speckle_average"}
# What the mean, as a draw without spread, scores where a draw has this score.
OF_THE_MEAN = {"psnr": "psnr", "crps": "mae", "speckle": "speckle"}
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888", "#995522")
RING: dict[str, Any] = {"markersize": 4, "fillstyle": "none", "markeredgewidth": 0.8}


def plot_dial(report: Mapping[str, Any]) -> "Figure":
    """Return a chart of PSNR, CRPS and speckle energy against evaluations, for every sampler.

    Lines are single draws; rings the average of all draws, at the price of all. The posterior
    mean is the point at one evaluation; its CRPS is its mean absolute error.

    Args:
        report: What `compare_samplers` returned.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure, grid = new_figure(1, len(SCORES))
    figure.set_size_inches(4 * len(SCORES), 3.4)
    for axes, (score, title) in zip(grid.flat, SCORES.items(), strict=True):
        _draw_score(axes, report, score)
        axes.set_title(title, fontsize=9)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    figure.suptitle(
        f"{report['model']} on {report['data']}: {report['n']:,} fields, {report['draws']} draws, "
        f"{report['density']:.0%} observed; 95 % intervals; rings: the average of all draws",
        fontsize=9,
    )
    return figure


def plot_samplers(report: Mapping[str, Any]) -> "Figure":
    """Return bars of the scores of samplers at one budget, with their intervals.

    Args:
        report: What `compare_samplers` returned.

    Raises:
        InputError: matplotlib is not installed.
    """
    rows = {row["sampler"]: row for row in report["rows"]}
    ranking = sorted(rows, key=lambda name: rows[name]["crps"])
    return plot_scores(
        {
            **report,
            "contestants": {n: {"kind": "model", "samples": row} for n, row in rows.items()},
            "differences": {n: row["differences"] for n, row in rows.items()},
            "ranking": ranking,
            "reference": report["rows"][0]["sampler"],
            "comparisons": len(rows) - 1,
        }
    )


def _draw_score(axes: "Axes", report: Mapping[str, Any], score: str) -> None:
    mean = report["mean"]
    if OF_THE_MEAN[score] in mean:
        axes.plot([1], [mean[OF_THE_MEAN[score]]], "k*", markersize=9, label="posterior mean")
    names = dict.fromkeys(row["sampler"] for row in report["rows"])
    for name, colour in zip(names, cycle(COLOURS), strict=False):
        rows = [row for row in report["rows"] if row["sampler"] == name and score in row]
        if not rows:  # no speckle but on images
            continue
        nfe, values = [row["nfe"] for row in rows], [row[score] for row in rows]
        ends = [row[f"{score}_ci"] for row in rows]
        axes.plot(nfe, values, "o-", color=colour, markersize=3, linewidth=1, label=name)
        axes.vlines(nfe, *zip(*ends, strict=True), color=colour, linewidth=1, alpha=0.5)
        if (average := OF_THE_AVERAGE.get(score)) in rows[0]:
            price = [report["draws"] * count for count in nfe]
            axes.plot(price, [row[average] for row in rows], "o", color=colour, **RING)
    axes.set_xscale("log")
    ticks = _ticks(report, paid_for_all=score in OF_THE_AVERAGE)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("evaluations of the network", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(report: Mapping[str, Any], paid_for_all: bool) -> list[int]:
    budgets = {row["budget"] for row in report["rows"]}
    dearest = {report["draws"] * max(budgets)} if paid_for_all else set()
    return sorted({1} | budgets | dearest)
