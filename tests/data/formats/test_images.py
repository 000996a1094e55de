import numpy as np
import pytest

from sparsefield.core.errors import InputError
from sparsefield.data.formats.images import load_image, save_image


def test_saved_image_is_read_back(tmp_path):
    image = np.random.default_rng(0).random((5, 7, 3))
    save_image(tmp_path / "a.png", image)
    np.testing.assert_allclose(load_image(tmp_path / "a.png"), image, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_grey_images_are_written_and_read_as_rgb(tmp_path, shape):
    save_image(tmp_path / "a.png", np.full(shape, 2.0))
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), np.ones((5, 7, 3)))


def test_what_is_no_image_is_an_error(tmp_path):
    with pytest.raises(InputError, match="shape"):
        save_image(tmp_path / "a.png", np.zeros((5, 7, 2)))
    with pytest.raises(InputError, match="unknown image suffix"):
        save_image(tmp_path / "a.xyz", np.zeros((5, 7)))
    with pytest.raises(InputError, match="not a readable image"):
        load_image(tmp_path / "absent.png")
