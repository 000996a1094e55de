"""Predictions where those from several places meet."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from sparsefield.inference.interpolation import interpolate
from sparsefield.inference.interpolator import load_interpolator
from sparsefield.inference.measurements import Measurements, shares_of_leaves

STEPS = 400  # of a walk that crosses gaps


@pytest.fixture(scope="module")
def tracks():
    """Return measurements on two tracks that no place sees both of, unlike each other."""
    along = np.linspace(0, 1, 300)
    places = [np.stack([along, np.full(300, y)], 1) for y in (0.0, 0.5)]
    values = [np.sin(9 * along), 3 + np.cos(30 * along)]
    return Measurements(np.concatenate(places), np.concatenate(values), 0.01)


@pytest.mark.parametrize(("start", "stop"), [((0.47, 0.01), (0.52, 0.49)), ((0, 0.2), (1, 0.22))])
def test_a_walk_across_borders_has_no_jump(tracks, start, stop):
    """A step twice as fine is a change half as large, if there is no jump."""
    changes = []
    for steps in (STEPS, 4 * STEPS):
        walk = np.linspace(start, stop, steps)
        found = interpolate(load_interpolator(), tracks, walk)
        lines = found.value.mean.numpy(), found.value.std.numpy(), found.field_std.numpy()
        changes.append([np.abs(np.diff(line)).max() for line in lines])
    coarse, fine = np.array(changes)
    assert (fine < 0.5 * coarse).all()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_shares_are_continuous_and_whole(axes):
    rng = np.random.default_rng(axes)
    coords, leaf = rng.random((200, axes)), np.repeat(np.arange(20), 10)
    walk = np.linspace(np.full(axes, -0.5), np.full(axes, 1.5), 20_001)
    said = shares_of_leaves(cKDTree(coords), leaf, walk)
    share = np.zeros((len(walk), 20))
    share[said.asked, said.leaf] = said.share
    np.testing.assert_allclose(share.sum(1), 1)
    assert np.abs(np.diff(share, axis=0)).max() < 0.1
    nearest = leaf[cKDTree(coords).query(walk)[1]]
    assert (share[np.arange(len(walk)), nearest] == share.max(1)).all()


def test_places_measured_often_are_answered():
    """So many measurements at one place fill several leaves."""
    coords = np.repeat([[0.0, 0.0], [1.0, 0.0]], 40, axis=0)
    said = shares_of_leaves(cKDTree(coords), np.repeat(np.arange(8), 10), coords[:1] + 0.0)
    assert said.share.sum() == pytest.approx(1)
