"""Figures: what they show, for every dimension, and what happens without matplotlib."""

import sys

import numpy as np
import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation
from sparsefield.figures.field import DemoRow, plot_demo, plot_field
from sparsefield.figures.panels import UNKNOWN, Scene
from sparsefield.figures.training import plot_training


def observe(shape, channels=3):
    places = cell_centres(shape)[::3]
    return Observation(places, torch.rand(len(places), channels))


def plot(shape, channels=3, *, samples=True, grid=None):
    points = int(np.prod(shape))
    mean, sample, std = torch.rand(3, points, channels)
    extra = {"sample": sample, "std": std} if samples else {}
    return plot_field(observe(grid or shape, channels), shape, mean, **extra)


def picture(figure, column):
    return np.asarray(figure.axes[column].images[0].get_array())


@pytest.mark.parametrize("shape", [(7,), (8, 9), (3, 5, 7), (2, 3, 4, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_fields_of_any_dimension_are_shown(shape, channels, tmp_path):
    figure = plot(shape, channels)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["observed", "mean", "one sample", "standard deviation"]
    figure.savefig(tmp_path / "figure.png")


def test_without_samples_there_are_two_panels():
    assert len(plot((8, 9), samples=False).axes) == 2


def test_unobserved_pixels_are_light_grey():
    obs = observe((8, 9))
    shown = picture(plot_field(obs, (8, 9), torch.rand(72, 3)), 0).reshape(-1, 3)
    seen = np.arange(72) % 3 == 0
    assert np.allclose(shown[seen], obs.values)
    assert np.allclose(shown[~seen], UNKNOWN)


def test_observed_pixels_of_a_coarse_image_stay_pixels_in_a_fine_one():
    assert picture(plot((24, 33), grid=(8, 11)), 0).shape == (8, 11, 3)


def test_scalar_fields_share_their_limits():
    limits = {axes.images[0].get_clim() for axes in plot((8, 9), channels=1).axes[:3]}
    assert len(limits) == 1


def test_free_points_have_no_picture():
    with pytest.raises(InputError, match="ask for the field at a Grid"):
        plot_field(observe((8, 9)), None, torch.rand(72, 3))


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"sparsefield\[plot\]"):
        plot((8, 9))


def test_the_demo_has_a_row_per_picture_with_the_error_of_each_method():
    truth = np.random.default_rng(0).random((8, 9, 3), np.float32)
    exact = torch.from_numpy(truth).flatten(0, 1)
    row = DemoRow("cat", truth, observe((8, 9)), truth - 0.1, exact + 0.01, exact + 0.1, exact)
    figure = plot_demo([row, row], "spline")
    captions = [axes.get_xlabel() for axes in figure.axes[:6]]
    assert captions[:2] == ["cat", "33% of the pixels"]
    assert captions[2:5] == ["20.0 dB", "40.0 dB", "20.0 dB"]
    assert len(figure.axes) == 12


def test_a_training_figure_shows_targets_where_they_are():
    truth, predicted = torch.rand(2, 3, 72, 3)
    observed, targets = torch.rand(2, 3, 72) < 0.3
    scene = Scene((8, 9), range(3), truth, observed)
    figure = plot_training(scene, targets, predicted)
    shown = picture(figure, 5 * 1 + 3).reshape(72, 3)  # second row, predicted targets
    assert np.allclose(shown[targets[1]], predicted[1][targets[1]])
    assert np.allclose(shown[~targets[1]], UNKNOWN)
