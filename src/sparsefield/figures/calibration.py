"""A figure of calibration: how far the standard deviation of posterior samples can be trusted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparsefield.figures.comparison import BASELINE, MODEL
from sparsefield.figures.panels import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IDEAL = "#222222"
INCHES = (8.8, 7.0)
# How far the error of averages may be from theory.
TOLERANCE = 0.1


class Reliability(NamedTuple):
    """How well a method knows its own error, on unobserved points.

    Attributes:
        levels: Coverage of K central intervals if the method is calibrated.
        coverage: Observed coverage (K,).
        distance: Mean distance of the points of each bin to the nearest observation, in cells.
        rmse: Error of the mean in each bin.
        std: Root of the mean variance in each bin.
    """

    levels: np.ndarray
    coverage: np.ndarray
    distance: np.ndarray
    rmse: np.ndarray
    std: np.ndarray


class Ensemble(NamedTuple):
    """What posterior samples have beyond the `Reliability` of any forecast.

    Attributes:
        ranks: Counts (S + 1,) of the rank of the truth among the S samples.
        coverage: Confidence intervals of the coverage (K, 2).
        sizes: How many samples are averaged.
        ratios: Squared error of such averages over that of the posterior mean.
        ratio_intervals: Their confidence intervals.
    """

    ranks: np.ndarray
    coverage: np.ndarray
    sizes: np.ndarray
    ratios: np.ndarray
    ratio_intervals: np.ndarray


def plot_calibration(
    samples: Reliability,
    ensemble: Ensemble,
    baselines: Mapping[str, Reliability],
    *,
    title: str = "",
) -> "Figure":
    """Return a figure of four panels, on the unobserved points of all fields.

    The rank of the truth among the samples; how often central intervals hold the truth; the error
    of averages of M samples beside the theory, `1 + 1/M` times that of the posterior mean; error
    and standard deviation by distance to the nearest observation. Baselines are grey.

    Args:
        samples: Calibration of the posterior samples.
        ensemble: What they have beyond that of a forecast.
        baselines: Calibration of probabilistic baselines by name.
        title: What was measured.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure, ((ranks, coverage), (averages, distance)) = new_figure(2, 2)
    figure.set_size_inches(INCHES)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    _show_ranks(ranks, ensemble.ranks)
    _show_coverage(coverage, samples, ensemble, baselines)
    _show_averages(averages, ensemble)
    _show_distances(distance, samples, baselines)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=8)
    return figure


def _show_ranks(axes: "Axes", counts: np.ndarray) -> None:
    """Show the rank histogram in units of a flat one."""
    axes.bar(range(len(counts)), counts * len(counts) / counts.sum(), width=0.9, color=MODEL)
    axes.axhline(1, color=IDEAL, linewidth=1, linestyle="--")
    axes.set_title("Rank of the truth among the samples (calibrated: flat)", fontsize=9)
    axes.set_xlabel("samples below the truth", fontsize=8)
    axes.set_ylabel("frequency / that of a flat histogram", fontsize=8)
    axes.locator_params(axis="x", integer=True)


def _show_coverage(
    axes: "Axes",
    samples: Reliability,
    ensemble: Ensemble,
    baselines: Mapping[str, Reliability],
) -> None:
    """Show observed coverage over that of calibrated samples, which few keep below nominal."""
    axes.plot([0, 1], [0, 1], color=IDEAL, linewidth=1, linestyle="--", label="calibrated")
    for name, baseline in baselines.items():
        axes.plot(baseline.levels, baseline.coverage, "s-", color=BASELINE, label=name)
    _show_intervals(axes, samples.levels, samples.coverage, ensemble.coverage)
    shown = [samples.levels, samples.coverage, *(each.coverage for each in baselines.values())]
    start = max(0.0, min(float(values.min()) for values in shown) - 0.1)
    axes.set(xlim=(start, 1), ylim=(start, 1))
    axes.set_title("Coverage of central intervals", fontsize=9)
    axes.set_xlabel("coverage of calibrated samples", fontsize=8)
    axes.set_ylabel("observed coverage", fontsize=8)
    axes.legend(fontsize=8, frameon=False)


def _show_averages(axes: "Axes", ensemble: Ensemble) -> None:
    """Show the error of averages of M samples beside 1 + 1/M, over the logarithm of M."""
    sizes = ensemble.sizes
    smooth = np.geomspace(1, sizes[-1], 100)
    theory = 1 + 1 / smooth
    low, high = (1 - TOLERANCE) * theory, (1 + TOLERANCE) * theory
    axes.fill_between(smooth, low, high, color=IDEAL, alpha=0.1, linewidth=0)
    axes.plot(smooth, theory, "--", color=IDEAL, linewidth=1, label=f"1 + 1/M, ± {TOLERANCE:.0%}")
    _show_intervals(axes, sizes, ensemble.ratios, ensemble.ratio_intervals)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_title("Error of the average of M samples", fontsize=9)
    axes.set_xlabel("samples M in the average", fontsize=8)
    axes.set_ylabel("MSE / MSE of the posterior mean", fontsize=8)
    axes.legend(fontsize=8, frameon=False)


def _show_intervals(
    axes: "Axes", places: np.ndarray, values: np.ndarray, intervals: np.ndarray
) -> None:
    """Show scores of the samples with their intervals."""
    lengths = np.abs(intervals.T - values)
    axes.errorbar(
        places, values, lengths, fmt="o-", color=MODEL, capsize=2, markersize=5, label="samples"
    )


def _show_distances(
    axes: "Axes", samples: Reliability, baselines: Mapping[str, Reliability]
) -> None:
    """Show error and deviation over the distance; for a calibrated method they are one line."""
    for name, method in {**baselines, "": samples}.items():
        colour = BASELINE if name else MODEL
        label = f"{name} error of the mean".strip()
        axes.plot(method.distance, method.rmse, "o-", color=colour, label=label)
        label = f"{name} standard deviation".strip()
        axes.plot(
            method.distance, method.std, "o:", color=colour, label=label, markerfacecolor="white"
        )
    axes.set_ylim(bottom=0)
    axes.set_title("RMSE and standard deviation (calibrated: equal)", fontsize=9)
    axes.set_xlabel("distance to the nearest observation, cells", fontsize=8)
    axes.set_ylabel("units of the values", fontsize=8)
    axes.legend(fontsize=8, frameon=False)
