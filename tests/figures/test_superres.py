"""The figure of a super-resolution."""

import numpy as np
import pytest
import torch

from sparsefield.figures.panels import Scene
from sparsefield.figures.superres import Spectra, liveliest_window, plot_superres

SIDE, SIZE, C = 8, 24, 3


def figure(items, sizes, names=("tps", "model")):
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.random((items, SIZE**2, C), np.float32))
    scene = Scene((SIZE, SIZE), range(items), truth, torch.ones(items, SIZE**2, dtype=bool))
    observed = [np.where(rng.random((SIZE, SIZE, 1)) < 0.2, scene.picture(0), np.nan)] * items
    guesses = {name: rng.random((items, SIZE, SIZE, C), np.float32) for name in names}
    rings = {"truth": np.array([1.0, 0.5, 0.1]), "model": np.array([1.0, 0.4, 0.01])}
    spectra = [Spectra(size, rings | {"tps": np.array([0.9, 0.1, 0.0])}) for size in sizes]
    return plot_superres(scene, observed, guesses, spectra=spectra, side=SIDE)


@pytest.mark.parametrize("sizes", [[24], [16, 24, 32, 40, 48, 56]])
def test_every_method_and_size_is_shown(sizes, tmp_path):
    shown = figure(2, sizes)
    assert [axes.get_title() for axes in shown.axes[:4]] == ["truth", "observed", "tps", "model"]
    assert len(shown.axes) == 2 * 2 * 4 + len(sizes)
    lines = {line.get_label(): line.get_ydata() for line in shown.axes[-1].lines}
    np.testing.assert_array_equal(lines["model"], [1.0, 0.4, 0.01])
    shown.savefig(tmp_path / "figure.png")


def test_below_each_field_stands_the_same_part_magnified():
    shown = figure(1, [24], names=("model",))
    pictures = [np.asarray(axes.images[0].get_array()) for axes in shown.axes[:6]]
    frames = [axes.patches[0] for axes in shown.axes[:3]]
    for whole, part, frame in zip(pictures[:3], pictures[3:], frames, strict=True):
        column, row = (round(x + 0.5) for x in frame.get_xy())
        np.testing.assert_array_equal(part, whole[row : row + 6, column : column + 6])
        assert part.shape == (6, 6, C)


def test_the_magnified_part_is_where_the_truth_varies_most():
    picture = np.zeros((32, 32, 2))
    picture[17:22, 9:14, 1] = np.random.default_rng(0).random((5, 5))
    row, column, side = liveliest_window(picture)
    assert side == 8
    assert row <= 17 < 22 <= row + side
    assert column <= 9 < 14 <= column + side
