"""Work in a process of its own: answers, errors, and an end at any moment."""

import os
import time

import pytest

from sparsefield.core.errors import InputError
from sparsefield.web.aside import Aside


@pytest.fixture
def aside():
    aside = Aside()
    yield aside
    aside.close()


def nothing():
    pass


class Bored(Exception):
    pass


def bored_after(seconds):
    end = time.monotonic() + seconds

    def check():
        if time.monotonic() > end:
            raise Bored

    return check


def test_answers_come_from_one_other_process(aside):
    pids = {aside.call(nothing, os.getpid) for _ in range(3)}
    assert len(pids) == 1 and os.getpid() not in pids
    assert aside.call(nothing, divmod, 17, 5) == (3, 2)


def test_what_is_raised_there_is_raised_here(aside):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        aside.call(nothing, divmod, 1, 0)
    assert aside.call(nothing, abs, -2) == 2


def test_a_call_ends_within_a_moment_and_the_next_one_works(aside):
    before = aside.call(nothing, os.getpid)
    start = time.monotonic()
    with pytest.raises(Bored):
        aside.call(bored_after(0.2), time.sleep, 60)
    assert time.monotonic() - start < 5
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    assert aside.call(nothing, abs, -3) == 3


def test_a_process_that_was_killed_is_said_and_replaced(aside):
    with pytest.raises(InputError, match="memory"):
        aside.call(nothing, os._exit, 9)
    assert aside.call(nothing, abs, -4) == 4
