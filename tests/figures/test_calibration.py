"""The figure of calibration shows the numbers it is given, and baselines where there are any."""

import numpy as np
import pytest

from sparsefield.figures.calibration import Ensemble, Reliability, plot_calibration

LEVELS = np.array([0.5, 0.6, 0.6])
SAMPLES = Reliability(
    LEVELS, np.array([0.4, 0.55, 0.7]), np.arange(2.0), np.array([1.0, 2.0]), np.array([0.8, 2.5])
)
KRIGING = Reliability(
    np.array([0.5, 0.8, 0.9]), np.array([0.6, 0.7, 0.8]), np.arange(2.0), np.ones(2), np.ones(2)
)
ENSEMBLE = Ensemble(
    np.array([3.0, 1.0, 1.0, 1.0, 4.0]),
    np.array([[0.3, 0.5], [0.5, 0.6], [0.6, 0.8]]),
    sizes=np.array([1, 2, 4]),
    ratios=np.array([2.1, 1.4, 1.3]),
    ratio_intervals=np.array([[2.0, 2.2], [1.3, 1.5], [1.2, 1.4]]),
)


def panels(figure):
    return {axes.get_title().split(" (")[0]: axes for axes in figure.axes}


def test_panels_show_the_numbers():
    figure = plot_calibration(SAMPLES, ENSEMBLE, {"kriging": KRIGING}, title="of noise")
    shown = panels(figure)
    heights = [bar.get_height() for bar in shown["Rank of the truth among the samples"].patches]
    assert heights == pytest.approx([1.5, 0.5, 0.5, 0.5, 2.0])
    coverage = shown["Coverage of central intervals"]
    lines = {line.get_label(): line for line in coverage.lines}
    assert lines["kriging"].get_ydata().tolist() == [0.6, 0.7, 0.8]
    points = coverage.containers[0].lines[0]
    assert points.get_xdata().tolist() == [0.5, 0.6, 0.6]
    assert points.get_ydata().tolist() == [0.4, 0.55, 0.7]
    averages = shown["Error of the average of M samples"].containers[0].lines[0]
    assert averages.get_ydata().tolist() == [2.1, 1.4, 1.3]
    distances = {line.get_label(): line for line in shown["RMSE and standard deviation"].lines}
    assert distances["standard deviation"].get_ydata().tolist() == [0.8, 2.5]
    assert "kriging error of the mean" in distances
    figure.draw_without_rendering()


def test_baselines_are_not_needed():
    figure = plot_calibration(SAMPLES, ENSEMBLE, {})
    labels = [line.get_label() for axes in figure.axes for line in axes.lines]
    assert not any("kriging" in label for label in labels)
