"""Models that make samples on the observed grid, and what is asked of them elsewhere."""

import pytest
import torch

from sparsefield.data.grids import cell_centres
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid, Points
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.model import Model
from sparsefield.samplers import Heun

SHAPE = (6, 9)
SETTINGS = {"widths": "8,12", "blocks": "1,1", "flow_widths": "8,12", "flow_blocks": "1,1"}


@pytest.fixture
def posterior():
    torch.manual_seed(0)
    spec = ModelSpec("unet", SETTINGS, "data", 3.0, Normalizer.unit_range(3), (8, 8))
    flow = spec.build().eval().requires_grad_(False)
    for weight in flow.parameters():
        weight.add_(0.05 * torch.randn_like(weight))
    seen = torch.randperm(54)[:20]
    obs = Observation(cell_centres(SHAPE)[seen], torch.rand(20, 3), grid=SHAPE)
    return Model("tiny", flow, spec).condition(obs)


def test_a_finer_grid_shows_the_same_samples(posterior):
    ask = {"n": 3, "sampler": Heun(2), "seed": 1}
    own, fine = (posterior.sample(Grid(*shape), **ask) for shape in (SHAPE, (18, 27)))
    shared = fine.samples.view(3, 18, 27, 3)[:, 1::3, 1::3].flatten(1, 2)
    torch.testing.assert_close(shared, own.samples, atol=1e-4, rtol=0)
    assert own.samples.std(0).max() > 0.01


def test_points_show_the_samples_of_the_grid(posterior):
    own = posterior.sample(Grid(*SHAPE), 2, sampler=Heun(2))
    some = torch.tensor([3, 17, 40])
    at = posterior.sample(Points(cell_centres(SHAPE)[some]), 2, sampler=Heun(2))
    torch.testing.assert_close(at.samples, own.samples[:, some], atol=1e-4, rtol=0)


def test_what_was_observed_is_in_every_sample(posterior):
    obs = posterior.obs
    field = posterior.sample(Points(obs.coords), 4, sampler=Heun(2))
    torch.testing.assert_close(field.samples, obs.values.expand(4, -1, -1))


def test_means_are_a_function_of_the_coordinates(posterior):
    points = torch.rand(40, 2) * 1.8 - 0.9
    together = posterior.mean(Points(points)).mean
    alone = torch.cat([posterior.mean(Points(point[None])).mean for point in points])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    near = posterior.mean(Points(points + 1e-5)).mean
    assert (near - together).abs().max() < 1e-2
