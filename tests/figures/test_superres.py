"""The figure of a super-resolution."""

import numpy as np
import pytest
import torch

from sparsefield.data.dataset import FieldDataset
from sparsefield.evaluation.protocol import Protocol
from sparsefield.evaluation.superres import Enlargement
from sparsefield.figures.superres import liveliest_window, plot_superres


@pytest.fixture
def enlargement():
    values = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    fine = FieldDataset(values)
    return Enlargement(fine.resized((8, 8)), fine, Protocol(0.25))


def report(sizes):
    rings = {"truth": [1.0, 0.5, 0.1], "mean": [1.0, 0.4, 0.01], "tps": [0.9, 0.1, 0.0]}
    parts = {size: {"spectrum": rings} for size in sizes}
    return {"model": "m", "density": 0.25, "observed": 8, "sizes": parts}


@pytest.mark.parametrize("sizes", [["24"], ["16", "24", "32", "40", "48", "56"]])
def test_every_method_and_size_is_drawn(enlargement, sizes, tmp_path):
    fields = {name: torch.rand(2, 576, 3) for name in ("tps", "mean")}
    figure = plot_superres(enlargement, range(2), fields, report(sizes))
    assert [axes.get_title() for axes in figure.axes[:4]] == ["truth", "observed", "tps", "model"]
    assert len(figure.axes) == 2 * 2 * 4 + len(sizes)
    figure.savefig(tmp_path / "figure.png")


def test_below_each_field_stands_the_same_part_magnified(enlargement):
    fields = {"mean": torch.rand(1, 576, 3)}
    figure = plot_superres(enlargement, range(1), fields, report(["24"]))
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes[:6]]
    frames = [axes.patches[0] for axes in figure.axes[:3]]
    for whole, part, frame in zip(pictures[:3], pictures[3:], frames, strict=True):
        column, row = (round(x + 0.5) for x in frame.get_xy())
        np.testing.assert_array_equal(part, whole[row : row + 6, column : column + 6])
        assert part.shape == (6, 6, 3)


def test_the_magnified_part_is_where_the_truth_varies_most():
    picture = np.zeros((32, 32, 2))
    picture[17:22, 9:14, 1] = np.random.default_rng(0).random((5, 5))
    row, column, side = liveliest_window(picture)
    assert side == 8
    assert row <= 17 < 22 <= row + side
    assert column <= 9 < 14 <= column + side
