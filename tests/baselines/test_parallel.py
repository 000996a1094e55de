"""Parts of a work in worker processes: every part once, whatever the processes."""

import pytest

from sparsefield.baselines.parallel import share_out

PARTS = [range(0, 3), range(3, 6), range(6, 7)]


def squares(items):
    """Return the squares of a range."""
    return [item**2 for item in items]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_part_comes_with_its_result(processes):
    found = dict(share_out(squares, PARTS, processes))
    assert found == {PARTS[0]: [0, 1, 4], PARTS[1]: [9, 16, 25], PARTS[2]: [36]}


def test_no_parts_need_no_process():
    assert list(share_out(squares, [], None)) == []
