"""Figures: what they show, for every dimension, and what happens without matplotlib."""

import sys

import numpy as np
import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation
from sparsefield.evaluation.protocol import Protocol
from sparsefield.figures.field import UNKNOWN, plot_reconstruction, plot_training
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.model import Model
from sparsefield.inference.reconstruction import Reconstruction


def reconstruction(shape, channels=3, draws=2, grid=None):
    coords = cell_centres(shape)
    samples = torch.rand(draws, len(coords), channels) if draws else None
    places = coords if grid is None else cell_centres(grid)
    obs = Observation(places[::3], torch.rand(len(places[::3]), channels))
    return Reconstruction(
        mean=torch.rand(len(coords), channels),
        std=samples.std(0) if draws else None,
        samples=samples,
        coords=coords,
        shape=shape,
        nfe=1,
        seconds=0.0,
        obs=obs,
    )


def picture(figure, column):
    return np.asarray(figure.axes[column].images[0].get_array())


@pytest.mark.parametrize("shape", [(7,), (8, 9), (3, 5, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_fields_of_any_dimension_are_drawn(shape, channels, tmp_path):
    figure = plot_reconstruction(reconstruction(shape, channels))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["observed", "mean", "one sample", "standard deviation"]
    figure.savefig(tmp_path / "figure.png")


def test_without_draws_there_are_two_panels():
    assert len(plot_reconstruction(reconstruction((8, 9), draws=0)).axes) == 2


def test_unobserved_pixels_are_light_grey():
    field = reconstruction((8, 9))
    drawn = picture(plot_reconstruction(field), 0).reshape(-1, 3)
    seen = np.arange(72) % 3 == 0
    assert np.allclose(drawn[seen], field.obs.values)
    assert np.allclose(drawn[~seen], UNKNOWN)


def test_observed_pixels_of_a_coarse_image_stay_pixels_in_a_fine_one():
    field = reconstruction((24, 33), grid=(8, 11))
    assert picture(plot_reconstruction(field), 0).shape == (8, 11, 3)


def test_scalar_fields_share_their_limits():
    figure = plot_reconstruction(reconstruction((8, 9), channels=1))
    limits = {axes.images[0].get_clim() for axes in figure.axes[:3]}
    assert len(limits) == 1


def test_free_points_have_no_picture():
    field = reconstruction((8, 9))
    object.__setattr__(field, "shape", None)
    with pytest.raises(InputError, match="pass shape="):
        plot_reconstruction(field)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"sparsefield\[plot\]"):
        plot_reconstruction(reconstruction((8, 9)))


@pytest.mark.parametrize("target", ["all", "disjoint"])
def test_a_training_figure_is_written_for_either_target(target, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3), dtype=np.uint8)
    fields = FieldDataset(images)
    settings = {"width": 16, "layers": 1, "state": 4, "heads": 2, "features": 4}
    spec = ModelSpec("v1", settings, "velocity", 1.0, fields.normalizer, fields.shape)
    model = Model("tiny", spec.build().eval().requires_grad_(False), spec)
    plot_training(model, fields, Protocol(0.3), target, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
