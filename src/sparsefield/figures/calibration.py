"""A figure of calibration: how far the spread of a model's draws can be trusted."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.evaluation.calibration import LEVELS
from sparsefield.figures.comparison import BASELINE, MODEL
from sparsefield.figures.field import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IDEAL = "#222222"
INCHES = (8.8, 7.0)
# How far the error of averages may be from theory.
TOLERANCE = 0.1
# Score -> what to call it, digits.
CAPTIONS = {
    "delta_cal": ("variance / error²", 2),
    "spread_skill": ("spread / skill", 2),
    "gap_db": ("draw above mean, dB", 2),
    "crps": ("CRPS", 4),
}


def plot_calibration(report: Mapping[str, Any]) -> "Figure":
    """Return a figure of four panels, on the unobserved points of all fields.

    The rank of the truth among the draws; how often central intervals hold the truth; the error
    of averages of M draws beside the theory, `1 + 1/M` times that of the posterior mean; error
    and spread by distance to the nearest observation. Probabilistic baselines are grey.

    Args:
        report: What `Evaluation.to_dict` returned, with draws.

    Raises:
        InputError: There are no draws or no unobserved points, or matplotlib is not installed.
    """
    samples = report.get("samples", {})
    if not samples.get("calibration", {}).get("averages"):
        raise InputError("calibration is that of draws at unobserved points; there are none")
    baselines = {
        name: baseline
        for name, baseline in report.get("baselines", {}).items()
        if "calibration" in baseline
    }
    figure, ((ranks, coverage), (averages, distance)) = new_figure(2, 2)
    figure.set_size_inches(INCHES)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    _draw_ranks(ranks, samples["calibration"]["ranks"])
    _draw_coverage(coverage, samples, baselines)
    _draw_averages(averages, samples["calibration"]["averages"])
    _draw_distances(distance, samples, baselines)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.suptitle(_caption(report), fontsize=8)
    return figure


def _caption(report: Mapping[str, Any]) -> str:
    samples = report["samples"]
    scores = []
    for name, (title, digits) in CAPTIONS.items():
        low, high = samples[f"{name}_ci"]
        scores.append(f"{title} {samples[name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
    return (
        f"{report['model']}: {samples['draws']} draws ({samples['sampler']}, {samples['steps']} "
        f"steps) of {report['n']:,} fields of {report['data']}, {report['density']:.0%} observed\n"
        f"{', '.join(scores)}"
    )


def _draw_ranks(axes: "Axes", counts: Sequence[float]) -> None:
    """Draw the rank histogram in units of a flat one."""
    heights = np.array(counts) * len(counts) / sum(counts)
    axes.bar(range(len(counts)), heights, width=0.9, color=MODEL)
    axes.axhline(1, color=IDEAL, linewidth=1, linestyle="--")
    axes.set_title("Rank of the truth among the draws (calibrated: flat)", fontsize=9)
    axes.set_xlabel("draws below the truth", fontsize=8)
    axes.set_ylabel("frequency / that of a flat histogram", fontsize=8)
    axes.locator_params(axis="x", integer=True)


def _draw_coverage(
    axes: "Axes", samples: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]
) -> None:
    """Draw observed coverage over that of calibrated draws, which few draws keep below nominal."""
    axes.plot([0, 1], [0, 1], color=IDEAL, linewidth=1, linestyle="--", label="calibrated")
    for name, baseline in baselines.items():
        observed = [baseline[level] for level in LEVELS]
        axes.plot([*LEVELS.values()], observed, "s-", color=BASELINE, label=name)
    levels = [samples[f"{name}_level"] for name in LEVELS]
    values = [samples[name] for name in LEVELS]
    _draw_intervals(axes, levels, values, [samples[f"{name}_ci"] for name in LEVELS])
    lowest = min(*levels, *values, *(baseline["coverage50"] for baseline in baselines.values()))
    start = max(0.0, lowest - 0.1)
    axes.set(xlim=(start, 1), ylim=(start, 1))
    axes.set_title("Coverage of central intervals", fontsize=9)
    axes.set_xlabel("coverage of calibrated draws", fontsize=8)
    axes.set_ylabel("observed coverage", fontsize=8)
    axes.legend(fontsize=8, frameon=False)


def _draw_averages(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the error of averages of M draws beside 1 + 1/M, on logarithmic draws."""
    sizes = [row["draws"] for row in rows]
    smooth = np.geomspace(1, sizes[-1], 100)
    theory = 1 + 1 / smooth
    low, high = (1 - TOLERANCE) * theory, (1 + TOLERANCE) * theory
    axes.fill_between(smooth, low, high, color=IDEAL, alpha=0.1, linewidth=0)
    axes.plot(smooth, theory, "--", color=IDEAL, linewidth=1, label=f"1 + 1/M, ± {TOLERANCE:.0%}")
    ratios = [row["ratio"] for row in rows]
    _draw_intervals(axes, sizes, ratios, [row["ratio_ci"] for row in rows])
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_title("Error of the average of M draws", fontsize=9)
    axes.set_xlabel("draws M in the average", fontsize=8)
    axes.set_ylabel("MSE / MSE of the posterior mean", fontsize=8)
    axes.legend(fontsize=8, frameon=False)


def _draw_intervals(
    axes: "Axes",
    places: Sequence[float],
    values: Sequence[float],
    ends: Sequence[Sequence[float]],
) -> None:
    """Draw scores of the draws with their intervals."""
    lengths = np.abs(np.array(ends).T - values)
    axes.errorbar(
        places, values, lengths, fmt="o-", color=MODEL, capsize=2, markersize=5, label="draws"
    )


def _draw_distances(
    axes: "Axes", samples: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]
) -> None:
    """Draw error and spread over the distance; for a calibrated method they are one line."""
    methods = [(name, baseline, BASELINE) for name, baseline in baselines.items()] + [
        ("", samples, MODEL)
    ]
    for name, scores, colour in methods:
        rows = scores["calibration"]["by_distance"]
        where, error, spread = (
            [row[key] for row in rows] for key in ("distance", "rmse", "spread")
        )
        axes.plot(where, error, "o-", color=colour, label=f"{name} error of the mean".strip())
        label = f"{name} spread".strip()
        axes.plot(where, spread, "o:", color=colour, markerfacecolor="white", label=label)
    axes.set_ylim(bottom=0)
    axes.set_title("Root mean square error and spread (calibrated: equal)", fontsize=9)
    axes.set_xlabel("distance to the nearest observation, cells", fontsize=8)
    axes.set_ylabel("units of the values", fontsize=8)
    axes.legend(fontsize=8, frameon=False)
