"""Long work says how far it is and about how long it takes, also where there is no terminal."""

import pytest

from sparsefield.cli.progress import LineCounter, LinePrinter, count_fields
from sparsefield.training.loop import Progress


class Clock:
    """A clock that goes when it is told to."""

    now = 100.0

    def __call__(self):
        """Return the time in seconds."""
        return self.now


def test_a_line_now_and_then_tells_what_is_done_and_what_is_left(capsys):
    clock = Clock()
    count = LineCounter("fields", 1200, clock)
    for _ in range(120):
        clock.now += 1.0
        count(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "fields 50/1,200  about 1 min 55 s left",
        "fields 350/1,200  about 1 min 25 s left",
        "fields 650/1,200  about 55 s left",
        "fields 950/1,200  about 25 s left",
    ]


def test_short_work_prints_nothing(capsys):
    with count_fields("fields", 3) as count:
        for _ in range(3):
            count(1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("step", [1, 9])
def test_training_says_at_its_first_and_last_step_how_long_it_takes(capsys, step):
    LinePrinter()(Progress(step, 9, 1, 0.5, 30.0, 100.0, None))
    expected = f"step {step}/9  epoch 1  loss 0.5000  30 images/s  1 min 40 s left\n"
    assert capsys.readouterr().out == expected
