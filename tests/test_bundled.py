"""What bundled models promise on any grid."""

import pytest
import torch

from sparsefield.data.observation import Observation
from sparsefield.data.photographs import example
from sparsefield.data.query import Grid
from sparsefield.inference.checkpoint import bundled_models, read_spec
from sparsefield.inference.model import load

SIDE = 32


def on_shared_points(field, values):
    """Values (..., 32, 32, C) of a grid an odd number of times finer, at the centres of cells."""
    step = field.shape[0] // SIDE
    return torch.from_numpy(field.on_grid(values)[..., step // 2 :: step, step // 2 :: step, :])


def rms(values):
    return float(values.square().mean().sqrt())


def of_colour_images():
    """Return the bundled models that take the example, a photograph."""
    return [n for n, path in bundled_models().items() if read_spec(path).normalizer.channels == 3]


@pytest.mark.parametrize("name", of_colour_images())
def test_means_of_all_grids_agree_at_shared_points(name):
    model, obs = load(name), Observation(*example())
    posterior = model.condition(obs)
    coarse = posterior.mean()
    for size in (96, 160):
        fine = posterior.mean(Grid(size, size))
        shared = on_shared_points(fine, fine.mean)
        torch.testing.assert_close(shared.flatten(0, 1), coarse.mean, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_draw_on_a_finer_grid_is_nearly_the_same_draw():
    """Draws of a seed differ less between 32 and 96 than half of what draws of two seeds do."""
    model, obs = load("default"), Observation(*example())
    coarse, fine = (model.condition(obs).sample(Grid(n, n), 6) for n in (SIDE, 96))
    shared = on_shared_points(fine, fine.samples).flatten(1, 2)
    apart = rms(coarse.samples - coarse.samples.roll(1, 0))
    assert rms(shared - coarse.samples) < 0.5 * apart
    spread = rms(coarse.samples - coarse.mean)
    assert 0.8 * spread < rms(shared - coarse.mean) < 1.25 * spread
