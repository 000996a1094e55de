"""Large fields in parts: the same field, without seams, and with bounded memory."""

from functools import partial
from pathlib import Path

import pytest
import torch

from sparsefield.data.grids import cell_centres
from sparsefield.data.masks import observed_indices
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid, Points
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.model import CHUNK, Model, bounded_chunk, load
from sparsefield.profiling.timing import peak_memory

SIDE = 1024


def test_parts_of_any_size_make_the_same_field():
    settings = {"width": 16, "heads": 4, "features": 3, "flow_width": 8, "flow_layers": 1}
    spec = ModelSpec("hybrid", settings, "data", 1.0, Normalizer.unit_range(3), (32, 32))
    model = Model("small", spec.build().eval().requires_grad_(False), spec)
    torch.nn.init.normal_(model.flow.backbone.interpolator.head.weight)
    shape = (80, 101)
    seen = observed_indices(80 * 101, 0.1, 0, "validation", 0)
    obs = Observation(cell_centres(shape)[seen], torch.rand(len(seen), 3))
    whole, done = model.condition(obs).mean(Grid(*shape)), []
    for chunk in (1777, 5000):
        parts = model.condition(obs, chunk=chunk, progress=done.append).mean(Grid(*shape))
        torch.testing.assert_close(parts.mean, whole.mean, atol=1e-5, rtol=0)
    assert done == [1777] * 4 + [8080 - 4 * 1777] + [5000, 3080]
    assert whole.mean.std() > 0.05


def test_memory_is_bounded_where_points_are_independent_and_nowhere_else():
    model = load("default")
    assert bounded_chunk(model) == CHUNK
    spec = ModelSpec("transformer", {}, "data", 1.0, Normalizer.unit_range(3), (32, 32))
    with torch.device("meta"):
        other = Model("attends", spec.build(), spec)
    assert bounded_chunk(other) is None


def photograph():
    """A fifth of the pixels of a photograph of 1024 x 1024."""
    from importlib.util import find_spec

    from sparsefield.data.formats.images import load_image

    file = Path(find_spec("skimage").origin).parent / "data" / "retina.jpg"
    pixels = torch.from_numpy(load_image(file)[190:][:SIDE, 190:][:, :SIDE].copy())
    seen = observed_indices(SIDE**2, 0.2, 0, "validation", 0)
    return Observation(cell_centres((SIDE, SIDE))[seen], pixels.reshape(-1, 3)[seen]), pixels


def prepare_photograph():
    posterior = load("default").condition(photograph()[0])
    return partial(posterior.mean, Grid(SIDE, SIDE))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_large_photograph_has_no_seams():
    """Rows around the border of every part, computed on their own, are those of the whole."""
    done, (obs, pixels) = [], photograph()
    posterior = load("default").condition(obs, progress=done.append)
    field = posterior.mean(Grid(SIDE, SIDE))
    assert sum(done) == SIDE**2
    borders = torch.arange(CHUNK, SIDE**2, CHUNK)
    near = (borders[:, None] + torch.arange(-SIDE, SIDE)).flatten()
    near = near[near < SIDE**2]
    alone = posterior.mean(Points(field.coords[near])).mean
    torch.testing.assert_close(alone, field.mean[near], atol=1e-5, rtol=0)
    assert (field.mean - pixels.reshape(-1, 3)).square().mean() < 1e-3


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_large_photograph_needs_bounded_memory():
    peak = peak_memory(prepare_photograph)
    assert peak is None or peak < 3 * 2**30
