"""Cells of two sizes: what was observed of the coarser ones holds for the finer ones."""

import pytest
import torch

from sparsefield.data.cells import CellGrids, keep_means
from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation

C = 2


def inside(coords, centre, observed):
    """Which points lie in the cell around a centre."""
    return ((coords - centre).abs() * torch.tensor(observed) < 1).all(-1)


@pytest.mark.parametrize(("observed", "times"), [((7,), 4), ((5, 6), 3), ((2, 3, 4), 2)])
def test_all_parts_of_an_observed_cell_move_alike_and_no_others(observed, times):
    shape = tuple(times * n for n in observed)
    grids, coords = CellGrids(observed, shape), cell_centres(shape)[None]
    given = torch.randn(1, coords.shape[1], C)
    centres = cell_centres(observed)[[1, 4]]
    between = centres[:1] + 0.1 / observed[0]
    obs = Observation(torch.cat([centres, between])[None], torch.randn(1, 3, C))
    kept = keep_means(given, coords, obs, grids)
    for index in range(2):
        parts = inside(coords[0], centres[index], observed)
        assert parts.sum() == times ** len(observed)
        moved = (kept - given)[0, parts]
        torch.testing.assert_close(kept[0, parts].mean(0), obs.values[0, index])
        torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=1e-5, rtol=0)
    assert (kept != given).any(-1).sum() == 2 * times ** len(observed)
    assert grids.side == pytest.approx(1 / times)
    assert grids.nested


@pytest.mark.parametrize("mean", [0.0, 0.03, 0.5, 1.0])
def test_means_are_kept_within_the_range_of_values(mean):
    observed, shape = (3, 2), (9, 6)
    coords, given = cell_centres(shape)[None], 2 * torch.rand(1, 54, C) - 0.5
    centre = cell_centres(observed)[3:4]
    obs = Observation(centre[None], torch.full((1, 1, C), mean))
    kept = keep_means(given, coords, obs, CellGrids(observed, shape), lambda x: x.clamp(0, 1))
    parts = kept[0, inside(coords[0], centre[0], observed)]
    assert 0 <= parts.min() <= parts.max() <= 1
    torch.testing.assert_close(parts.mean(0), obs.values[0, 0], atol=1e-6, rtol=0)
    if 0 < mean < 1:
        assert parts.std() > 0


def test_every_field_keeps_its_own_and_padding_counts_for_nothing():
    observed, shape = (4, 5), (8, 10)
    coords, given = cell_centres(shape).expand(2, -1, -1), torch.randn(2, 80, C)
    at = cell_centres(observed)
    fields = [
        Observation(at[[0, 7, 13]], torch.randn(3, C)),
        Observation(at[[2]], torch.randn(1, C)),
    ]
    together = keep_means(given, coords, Observation.stack(fields), CellGrids(observed, shape))
    for index, obs in enumerate(fields):
        item = slice(index, index + 1)
        alone = keep_means(given[item], coords[item], obs.batched(), CellGrids(observed, shape))
        torch.testing.assert_close(together[item], alone)
        assert (alone != given[item]).any(-1).sum() == 4 * obs.count


def test_repeated_observations_of_a_cell_are_averaged():
    coords, centre = cell_centres((4,))[None], cell_centres((2,))[:1]
    obs = Observation(centre.expand(1, 2, 1), torch.tensor([[[1.0], [4.0]]]))
    kept = keep_means(torch.zeros(1, 4, 1), coords, obs, CellGrids((2,), (4,)))
    torch.testing.assert_close(kept[0, :, 0], torch.tensor([2.5, 2.5, 0, 0]))


def test_grids_that_cut_cells_are_not_nested():
    assert not CellGrids((4, 4), (6, 8)).nested
    assert CellGrids((4, 9), (6, 6)).side == pytest.approx(1)
