import numpy as np
import pytest
import torch
from PIL import Image

from sparsefield.core.errors import InputError
from sparsefield.data.colour import match_channels
from sparsefield.data.observation import Observation

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 3), dtype=np.uint8)
COLOUR = Observation(torch.zeros(7, 2), PIXELS / np.float32(255), noise=0.1, grid=(3, 4))


def test_colours_become_grey_as_in_pillow():
    grey = match_channels(COLOUR, 1, "m")
    expected = np.asarray(Image.fromarray(PIXELS[None]).convert("L"))[0] / 255
    np.testing.assert_allclose(grey.values[:, 0], expected, atol=0.51 / 255)
    assert grey.grid == (3, 4)


def test_the_error_of_a_grey_is_that_of_independent_colours():
    rng = np.random.default_rng(0)
    grey = match_channels(COLOUR, 1, "m")
    errors = 0.1 * rng.standard_normal((100_000, 3)) @ [0.299, 0.587, 0.114]
    assert grey.noise[0, 0].item() == pytest.approx(errors.std(), rel=0.01)


def test_greys_become_colours_of_equal_channels():
    grey = match_channels(COLOUR, 1, "m")
    colour = match_channels(grey, 3, "m")
    assert torch.equal(colour.values, grey.values.expand(7, 3))
    assert torch.equal(colour.noise, grey.noise.expand(7, 3))
    assert match_channels(COLOUR, 3, "m") is COLOUR


def test_other_numbers_of_channels_name_model_and_image():
    with pytest.raises(InputError, match="model 'winds' has 2 channels, and a colour image has 3"):
        match_channels(COLOUR, 2, "winds")
