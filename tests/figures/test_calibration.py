"""The figure of calibration shows the report's numbers, and baselines where there are any."""

import copy

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation
from sparsefield.evaluation.calibration import (
    LEVELS,
    calibrate_draws,
    calibrate_gaussian,
    distance_in_cells,
)
from sparsefield.evaluation.report import summarise
from sparsefield.figures.calibration import plot_calibration

B, SHAPE, C, S = 4, (8, 9), 2, 5


@pytest.fixture(scope="module")
def report():
    """The report of draws from the truth's distribution, and of the Gaussian itself."""
    torch.manual_seed(0)
    coords = cell_centres(SHAPE).expand(B, -1, -1)
    obs = Observation(coords[:, ::7], torch.zeros(B, len(coords[0, ::7]), C))
    missing = torch.arange(72).expand(B, -1) % 7 > 0
    distance = distance_in_cells(coords, obs, SHAPE)
    truth, mean, draws = torch.randn(B, 72, C), torch.zeros(B, 72, C), torch.randn(S, B, 72, C)
    scene = (truth, missing, distance)
    scores = calibrate_draws(draws, mean, *scene)
    forecast = calibrate_gaussian(mean, torch.ones_like(mean), *scene)
    samples, kriging = (
        summarise({"crps": values["mse_mean"].numpy()} | {k: v.numpy() for k, v in values.items()})
        for values in (scores, forecast)
    )
    how = {"draws": S, "sampler": "heun", "steps": 3}
    head = {"model": "ours", "data": "noise", "n": B, "density": 0.15}
    return head | {
        "samples": how | samples,
        "baselines": {"kriging": kriging, "tps": {"psnr": 1.0}},
    }


def panels(figure):
    return {axes.get_title().split(" (")[0]: axes for axes in figure.axes}


def test_panels_show_what_the_report_says(report):
    figure = plot_calibration(report)
    shown, samples = panels(figure), report["samples"]
    heights = [bar.get_height() for bar in shown["Rank of the truth among the draws"].patches]
    assert len(heights) == S + 1
    assert sum(heights) == pytest.approx(S + 1)
    coverage = {line.get_label(): line for line in shown["Coverage of central intervals"].lines}
    assert coverage["kriging"].get_xdata().tolist() == list(LEVELS.values())
    assert "tps" not in coverage
    drawn = shown["Coverage of central intervals"].containers[0].lines[0]
    assert drawn.get_xdata().max() == pytest.approx((S - 1) / (S + 1))
    assert drawn.get_ydata().tolist() == [samples[name] for name in LEVELS]
    ratios = shown["Error of the average of M draws"].containers[0].lines[0].get_ydata()
    assert ratios.tolist() == [row["ratio"] for row in samples["calibration"]["averages"]]
    distance = shown["Root mean square error and spread"]
    labels = {line.get_label() for line in distance.lines}
    assert {"error of the mean", "spread", "kriging error of the mean"} <= labels
    figure.draw_without_rendering()


def test_baselines_are_not_needed(report):
    alone = {name: part for name, part in report.items() if name != "baselines"}
    labels = [line.get_label() for axes in plot_calibration(alone).axes for line in axes.lines]
    assert not any("kriging" in label for label in labels)


def test_without_draws_or_unobserved_points_there_is_no_figure(report):
    empty = copy.deepcopy(report)
    del empty["samples"]["calibration"]
    for lacking in (empty, {"model": "baselines"}):
        with pytest.raises(InputError, match="there are none"):
            plot_calibration(lacking)
