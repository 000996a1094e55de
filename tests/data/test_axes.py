"""Which axis of an array is what."""

import numpy as np
import pytest

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import open_dataset


def saved(folder, *shape, dtype=np.float32):
    path = folder / "a.npy"
    np.save(path, np.ones(shape, dtype))
    return path


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_short_last_axis_holds_channels_and_is_said_to(tmp_path, count):
    dataset = open_dataset(saved(tmp_path, 7, 6, 5, count))
    assert (len(dataset), dataset.shape, dataset.channels) == (7, (6, 5), count)
    said = f"read as 7 items on a grid of 6 x 5 cells, channels in the last axis ({count})"
    assert dataset.remarks[0].endswith(said)


@pytest.mark.parametrize("shape", [(384, 33, 49), (7, 6, 5, 8), (60, 28, 28), (9, 8, 7, 6, 5)])
@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_a_long_last_axis_is_refused_until_it_is_named(tmp_path, shape, dtype):
    path = saved(tmp_path, *shape, dtype=dtype)
    with pytest.raises(InputError, match="or on one of.*channels=last.*channels=none"):
        open_dataset(path)
    without = open_dataset(path, channels="none")
    assert (without.shape, without.channels) == (shape[1:], 1)
    last = open_dataset(path, channels="last")
    assert (last.shape, last.channels) == (shape[1:-1], shape[-1])
    np.testing.assert_array_equal(without.values[..., 0], last.values)


def test_lines_without_channels_are_read_when_named(tmp_path):
    path = saved(tmp_path, 9, 40)
    with pytest.raises(InputError, match="channels=none"):
        open_dataset(path)
    assert open_dataset(path, channels="none").values.shape == (9, 40, 1)


def test_one_image_is_not_many_lines(tmp_path):
    path = saved(tmp_path, 24, 32, 3, dtype=np.uint8)
    with pytest.raises(InputError, match="looks like one image of 24 x 32 pixels"):
        open_dataset(path)
    assert open_dataset(path, channels="last").shape == (32,)


@pytest.mark.parametrize("channels", ["auto", "last", "none"])
def test_arrays_without_a_grid_are_refused(tmp_path, channels):
    for shape in ((), (3,), (0, 3, 4, 1)):
        with pytest.raises(InputError, match=r"\(N, \*grid, C\)"):
            open_dataset(saved(tmp_path, *shape), channels=channels)


def test_encoded_images_need_no_word_on_channels(tmp_path):
    from PIL import Image

    Image.new("RGB", (33, 49)).save(tmp_path / "a.png")
    assert open_dataset(tmp_path / "a.png").values.shape == (1, 49, 33, 3)
