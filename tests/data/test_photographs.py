"""The photographs of scikit-image: whole squares, the same at every size."""

import numpy as np
import pytest

from sparsefield.core.errors import InputError
from sparsefield.data import photographs
from sparsefield.data.photographs import FINEST, PHOTOGRAPHS, SCENES, scenes


def test_squares_lie_within_their_photographs_and_do_not_overlap():
    for squares in (PHOTOGRAPHS, SCENES):
        for image, (*_, side) in zip(photographs._cut(squares), squares.values(), strict=True):
            assert image.shape == (side, side, 3)
    seen = {}
    for file, top, left, side in SCENES.values():
        for other_top, other_left, other in seen.setdefault(file, []):
            apart = top >= other_top + other or other_top >= top + side
            assert apart or left >= other_left + other or other_left >= left + side
        seen[file].append((top, left, side))


def test_cells_are_averages_of_what_they_cover():
    image = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    fine = image.repeat(4, axis=0).repeat(4, axis=1).astype(float)  # 40 pixels: 4 cells of 10
    expected = fine.reshape(4, 10, 4, 10, 3).mean((1, 3))
    np.testing.assert_allclose(photographs._average(image, 4), expected, atol=0.501)
    np.testing.assert_array_equal(photographs._average(image, 10), image)


def test_scenes_are_images_of_one_size():
    small = scenes(5)
    assert small.values.shape == (len(SCENES), 5, 5, 3)
    assert small.values.dtype == np.uint8
    assert len(np.unique(small.values.reshape(len(SCENES), -1), axis=0)) == len(SCENES)


@pytest.mark.parametrize("side", [0, FINEST + 1])
def test_sizes_that_photographs_cannot_show_are_refused(side):
    with pytest.raises(InputError, match=f"up to {FINEST} x {FINEST}"):
        scenes(side)
