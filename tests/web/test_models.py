"""Models loaded aside: once, for all who ask, and left behind at any moment."""

import threading
import time

import pytest

from sparsefield.core.errors import InputError
from sparsefield.web.models import KEPT, Models


class Bored(Exception):
    pass


def nothing():
    pass


def leave():
    raise Bored


def test_a_model_is_loaded_once_and_old_ones_go():
    asked = []
    models = Models(lambda name: asked.append(name) or object())
    first = models.get("a", nothing)
    assert models.get("a", leave) is first and asked == ["a"]
    for number in range(KEPT):
        models.get(str(number), nothing)
    assert models.get("a", nothing) is not first


def test_who_loses_interest_leaves_at_once_and_the_next_one_gets_the_model():
    gate, asked = threading.Event(), []

    def load(name):
        asked.append(name)
        gate.wait(30)
        return name

    models = Models(load)
    start = time.monotonic()
    with pytest.raises(Bored):
        models.get("slow", leave)
    assert time.monotonic() - start < 5
    gate.set()
    assert models.get("slow", nothing) == "slow" and asked == ["slow"]


def test_a_failure_is_raised_where_somebody_waits_and_tried_again():
    answers = iter([InputError("damaged"), "mended"])

    def load(name):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    models = Models(load)
    with pytest.raises(InputError, match="damaged"):
        models.get("a", nothing)
    assert models.get("a", nothing) == "mended"
