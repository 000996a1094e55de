"""How pixels go missing."""

import numpy as np
import pytest

from sparsefield.data.damage import DAMAGES, SHARES, draw_damage

SHAPE = (24, 40)


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_damage_leaves_some_and_takes_some(kind):
    masks = [DAMAGES[kind](np.random.default_rng(seed), SHAPE) for seed in range(40)]
    assert {(mask.shape, mask.dtype) for mask in masks} == {(SHAPE, np.dtype(bool))}
    shares = [mask.mean() for mask in masks]
    assert 0 < np.mean(shares) < 1
    assert len(set(shares)) > 2


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_seed_says_which(kind):
    one, same, other = (
        draw_damage(np.random.default_rng(seed), SHAPE, {kind: 1.0}) for seed in (3, 3, 4)
    )
    assert (one == same).all()
    assert (one != other).any()
    assert 3 <= one.sum() < one.size


def test_all_kinds_have_a_share():
    assert SHARES.keys() == DAMAGES.keys()
