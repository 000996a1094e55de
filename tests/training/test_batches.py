"""Training batches as a function of the step."""

import dataclasses

import numpy as np
import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.grids import cell_centres
from sparsefield.training.batches import TrainingBatches
from sparsefield.training.config import config_from_dict, load_config, preset_names

N, SHAPE, C, B = 10, (5, 6), 2, 4
POINTS = 30


@pytest.fixture
def fields():
    """Fields in which every value names its field, point and channel."""
    return FieldDataset(np.arange(N * POINTS * C, dtype=np.float32).reshape(N, *SHAPE, C))


def batches(fields, flow=None, **data):
    config = config_from_dict(
        {"model": {"name": "v1"}, "batch_size": B, "data": data, "flow": flow or {}}
    )
    return TrainingBatches(fields, config)


def points(fields, values):
    """Return which field and point each normalised value (B, Q, C) came from, as (B, Q)."""
    physical = fields.normalizer.invert(values.double())[..., 0]
    return (physical / C).round().long() % (N * POINTS)


def assert_equal(a, b):
    for name in ("x_0", "x_1", "u", "coords"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert torch.equal(a.obs.coords, b.obs.coords)
    assert torch.equal(a.obs.values, b.obs.values)


@pytest.mark.parametrize("masks", ["fresh", "fixed"])
def test_batch_of_a_step_does_not_depend_on_what_was_drawn_before(fields, masks):
    history = batches(fields, masks=masks)
    drawn = [history(step) for step in range(5)]
    fresh = batches(fields, masks=masks)
    for step in (4, 0, 3):
        assert_equal(fresh(step), drawn[step])
    assert not torch.equal(drawn[0].x_0, drawn[1].x_0)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_finds_what_it_asks_for(name):
    config = load_config(name, [f"batch_size={B}", "data.validation=0"])
    coarse, fine = (
        FieldDataset(np.random.default_rng(0).random((N, *(shape or SHAPE), C), np.float32))
        for shape in (config.data.size or config.data.image_size, config.data.fine)
    )
    draw = TrainingBatches(coarse, config, fine if config.data.fine else None)
    batches = [draw(step) for step in range(40 if config.data.fine else 2)]
    assert {round(1 / float(batch.cell[0])) for batch in batches} == {1, *config.data.scales}
    for batch in batches:
        assert len(batch.x_1) == B
        assert batch.x_1.std() > 0
        assert batch.obs.values.std() > 0


def test_an_epoch_visits_every_field_once(fields):
    draw = batches(fields, flip=False)
    assert draw.steps_per_epoch == 2
    seen = torch.cat([points(fields, draw(step).x_1)[:, 0] // POINTS for step in range(2)])
    assert len(seen.unique()) == 2 * B
    later = torch.cat([points(fields, draw(step).x_1)[:, 0] // POINTS for step in (2, 3)])
    assert not torch.equal(seen, later)


def test_values_belong_to_their_coordinates(fields):
    batch = batches(fields, flip=False)(0)
    for values, coords in ((batch.x_1, batch.coords), (batch.obs.values, batch.obs.coords)):
        point = points(fields, values) % POINTS
        torch.testing.assert_close(coords, fields.coords[point])


def test_flipping_mirrors_the_last_axis_of_about_half_of_the_fields(fields):
    draw = batches(fields, flip=True)
    mirrored = 0
    for step in range(25):
        batch = draw(step)
        straight = fields.coords[points(fields, batch.x_1) % POINTS]
        same = torch.isclose(batch.coords, straight).all(-1).all(-1)
        turned = torch.isclose(batch.coords, straight * torch.tensor([1.0, -1.0])).all(-1).all(-1)
        assert (same ^ turned).all()
        mirrored += int(turned.sum())
    assert 35 <= mirrored <= 65


@pytest.mark.parametrize("density", [0.2, [0.1, 0.7]])
@pytest.mark.parametrize("masks", ["fresh", "fixed"])
def test_disjoint_targets_are_never_observed(fields, masks, density):
    draw = batches(fields, masks=masks, target="disjoint", density=density)
    for step in range(20):
        batch = draw(step)
        assert batch.x_1.shape[1] > 0
        for item in range(B):
            observed = set(points(fields, batch.obs.values)[item].tolist())
            assert not observed & set(points(fields, batch.x_1)[item].tolist())


def test_fixed_masks_show_the_same_points_of_a_field_at_every_visit_mirrored_or_not(fields):
    draw = batches(fields, masks="fixed", target="disjoint", flip=True)
    seen = {}
    for step in range(30):
        batch = draw(step)
        for item in range(B):
            both = torch.cat([batch.obs.values, batch.x_1], dim=1)
            shown = frozenset(points(fields, both)[item].tolist())
            field = next(iter(shown)) // POINTS
            assert seen.setdefault(field, shown) == shown
    assert len(seen) == N


def test_fresh_masks_differ_between_visits(fields):
    draw = batches(fields, target="disjoint", flip=False)
    shown = {frozenset(points(fields, draw(s).obs.values)[0].tolist()) for s in range(10)}
    assert len(shown) == 10


def test_all_points_are_targets_by_default_and_a_sample_of_them_for_the_mean(fields):
    assert batches(fields)(0).x_1.shape == (B, POINTS, C)
    only_mean = batches(fields, flow={"mean_fraction": 1.0}, queries=7)(0)
    assert only_mean.x_1.shape == (B, 7, C)
    assert not only_mean.u.any()
    no_mean = batches(fields, flow={"mean_fraction": 0.0}, queries=7)(0)
    assert no_mean.x_1.shape == (B, POINTS, C)


def test_times_are_spread_over_the_unit_interval(fields):
    draw = batches(fields, flow={"mean_fraction": 0.0})
    for step in range(20):
        u = draw(step).u.sort().values
        assert 0 <= u.min() <= u.max() < 1
        torch.testing.assert_close(u.diff(), torch.full((B - 1,), 1 / B), atol=1e-3, rtol=0)


def test_density_is_drawn_anew_for_every_batch(fields):
    draw = batches(fields, density=[0.1, 0.9])
    counts = {draw(step).obs.count for step in range(30)}
    assert len(counts) > 8
    assert min(counts) >= 3
    assert max(counts) <= 27


def test_seed_changes_everything(fields):
    config = config_from_dict({"model": {"name": "v1"}, "batch_size": B})
    other = dataclasses.replace(config, seed=1)
    first, second = TrainingBatches(fields, config)(0), TrainingBatches(fields, other)(0)
    assert not torch.equal(first.x_0, second.x_0)
    assert not torch.equal(first.x_1, second.x_1)


def test_too_few_fields_is_an_error(fields):
    with pytest.raises(InputError, match="3 training fields are fewer than batch_size=4"):
        batches(fields.subset([0, 1, 2]))


def test_a_window_asks_for_a_whole_block_of_cells(fields):
    batch = batches(fields, flow={"mean_fraction": 0.0}, window=3)(0)
    for coords in batch.coords:
        for axis, cells in enumerate(SHAPE):
            assert len(coords[:, axis].unique()) == 3
            assert coords[:, axis].max() - coords[:, axis].min() == pytest.approx(4 / cells)
    with pytest.raises(InputError, match=r"data.window=6 does not fit into a grid of \(5, 6\)"):
        batches(fields, window=6)


FINE = (12, 24)


def sloped(shape):
    """Fields that are linear, and even along the last axis: means over cells are known."""
    coords = cell_centres(shape)
    values = torch.stack([4 + coords[:, 0] + 2 * coords[:, 1].abs(), 3 * coords[:, 0]], dim=1)
    steps = 1 + torch.arange(N)[:, None, None]
    return FieldDataset((steps * values).reshape(N, *shape, C).numpy())


def multiscale(*scales, **data):
    """Batches of fields on 6 x 12 and 12 x 24 cells."""
    settings = {"scales": list(scales), "fine": list(FINE), "density": 0.3, **data}
    config = config_from_dict({"model": {"name": "v1"}, "batch_size": B, "data": settings})
    return TrainingBatches(sloped((6, 12)), config, sloped(FINE))


@pytest.mark.parametrize("scale", [2, 4])
def test_finer_cells_are_asked_for_where_coarser_ones_were_observed(scale):
    draw, coarse = multiscale(scale), tuple(n // scale for n in FINE)
    inverse = draw.fields.normalizer.invert
    for step in range(4):
        batch = draw(step)
        assert batch.obs.count == int(0.3 * np.prod(coarse))
        assert (batch.cell == 1 / scale).all()
        for coords, values, grid in (
            (batch.obs.coords, batch.obs.values, coarse),
            (batch.coords, batch.x_1, FINE),
        ):
            assert torch.cdist(coords[0], cell_centres(grid)).min(1).values.max() < 2e-3
            shape = 4 + coords[..., :1] + 2 * coords[..., 1:].abs()
            steps = inverse(values)[..., :1] / shape
            torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-3, rtol=1e-3)


def test_cells_like_those_observed_are_asked_for_at_and_between_them():
    draw, coarse = multiscale(2, own_cells=0, flip=False), cell_centres((6, 12))
    scale, batch = draw.fields.normalizer, draw(0)
    assert (batch.cell == 1).all()
    assert batch.coords.shape == (B, 11 * 23, 2)
    x = batch.coords[0, :, 0]
    values = scale.invert(batch.x_1)
    torch.testing.assert_close(values[..., 1] / values[:, :1, 1], (x / x[0]).expand(B, -1))
    at = torch.cdist(coarse, batch.coords[0]).min(1)
    assert at.values.max() < 2e-3
    both = torch.cdist(batch.coords[0], batch.obs.coords[0]) < 2e-3
    asked, seen = both.nonzero().unbind(-1)
    assert len(seen) == batch.obs.count
    torch.testing.assert_close(batch.x_1[0, asked], batch.obs.values[0, seen])


def test_windows_and_mirrors_of_means_between_cells():
    draw = multiscale(4, own_cells=0, window=5, flip=True)
    mirrored, sizes = 0, set()
    for step in range(8):
        batch = draw(step)
        sizes.add(batch.coords.shape[1])
        x = batch.coords[..., 0]
        first = draw.fields.normalizer.invert(batch.x_1)[..., 1]
        torch.testing.assert_close(first * x[:, :1], first[:, :1] * x, atol=1e-3, rtol=1e-3)
        mirrored += int((batch.coords[:, 1, 1] < batch.coords[:, 0, 1]).sum())
    assert 4 <= mirrored <= 28
    assert sizes == {9 * 21, 25}
    with pytest.raises(InputError, match=r"data.window=4 does not fit into a grid of \(1, 13\)"):
        multiscale(1, 12, own_cells=0.5, window=4)


def test_own_cells_is_the_share_of_steps_that_ask_for_finer_cells():
    draw = multiscale(2, own_cells=0.25)
    own = sum(float(draw(step).cell[0]) == 0.5 for step in range(80))
    assert 10 <= own <= 30


def test_scales_take_turns_and_the_observed_grid_is_one_of_them():
    draw = multiscale(1, 2)
    cells = {float(draw(step).cell[0]) for step in range(12)}
    assert cells == {0.5, 1.0}
    for step in range(6):
        batch = draw(step)
        points = {1.0: 72, 0.5: 288}[float(batch.cell[0])]
        assert batch.coords.shape[1] == points


def test_finer_windows_and_queries_are_as_large_as_any():
    narrow = multiscale(2, queries=7, window=4)
    sizes = {narrow(step).coords.shape[1] for step in range(12)}
    assert sizes == {7, 16}


def test_scales_without_finer_fields_are_an_error(fields):
    with pytest.raises(InputError, match="data.scales of 2 needs data.fine"):
        batches(fields, scales=[1, 2])
    with pytest.raises(InputError, match="data.scales of 5 needs data.fine"):
        multiscale(1, 5)
