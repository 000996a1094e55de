"""Few experts with fixed weights, against the bank that they are chosen from."""

import numpy as np
import pytest

from sparsefield.nn.experts.few import choose
from sparsefield.nn.experts.groups import GROUPS, answer, listen
from sparsefield.nn.experts.kriging import Seen


def make(axes, count=60):
    rng = np.random.default_rng(axes)
    coords = 300 * rng.random((count, axes))
    values = np.sin(coords / 80).sum(1) + 0.2 * rng.standard_normal(count)
    noise = rng.uniform(0.5, 1.5, count)
    return Seen(coords, (values - values.mean()) / values.std(), noise), 300 * rng.random(
        (7, axes)
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("group", range(GROUPS))
def test_a_group_alone_says_what_it_says_in_the_bank(axes, group):
    seen, query = make(axes)
    heard = listen(seen)
    few = choose(heard, np.eye(GROUPS)[group])
    expected = answer(heard, query, 1.0)[:, group]
    np.testing.assert_allclose(few.forecast(seen, query, 1.0), expected, rtol=1e-6, atol=1e-6)


def test_other_places_decide_which_experts_count():
    """What is rough elsewhere is not smooth for all that one smooth place says."""
    seen, _ = make(2, 120)
    few = choose(listen(seen), np.full(GROUPS, 1 / GROUPS))
    rng = np.random.default_rng(0)
    rough = [seen._replace(values=rng.standard_normal(120)) for _ in range(3)]
    heeded = few.heeding(rough, 0.5)
    noise = few.weight @ few.bank.nugget, heeded.weight @ heeded.bank.nugget
    assert noise[1] > noise[0]
    assert heeded.weight.sum() == pytest.approx(1)
