"""The list of runs."""

import json
from types import SimpleNamespace

import pytest

from sparsefield.cli import main
from sparsefield.cli.runs import BARS, WIDTH, sparkline


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([3.0], BARS[0]),
        ([0.0, 7.0, 3.0], BARS[0] + BARS[7] + BARS[3]),
        ([5.0, 5.0], BARS[0] * 2),
        ([-1.0, -8.0], BARS[7] + BARS[0]),
    ],
)
def test_bars_go_from_the_lowest_to_the_highest(values, expected):
    assert sparkline(values) == expected


def test_long_courses_are_averaged_to_the_width():
    falling = [float(100 - k) for k in range(100)]
    line = sparkline(falling)
    assert len(line) == WIDTH
    assert [BARS.index(bar) for bar in line] == sorted(map(BARS.index, line), reverse=True)
    assert sparkline([0.0, 2.0, 6.0, 8.0], 2) == BARS[0] + BARS[7]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_course_of_the_loss_stands_beside_a_run(encoding, monkeypatch, capsys, tmp_path):
    from sparsefield.cli import runs

    lines = [{"epoch": k + 1, "step": 8 * k, "loss": loss} for k, loss in enumerate([9.0, 3.0, 2])]
    status = SimpleNamespace(
        run=SimpleNamespace(name="mine"),
        config=SimpleNamespace(model={"name": "v1"}, steps=0, epochs=3),
        state="finished",
        metrics=json.loads(json.dumps(lines)),
        last=lines[-1],
        best_psnr=None,
        epoch=3,
        saved_step=16,
    )
    monkeypatch.setattr(runs, "Status", lambda run: status)
    monkeypatch.setattr("sparsefield.training.run.find_runs", lambda root: [None])
    monkeypatch.setattr(runs.Console, "encoding", encoding)
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["runs", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "mine" in out and "2.0000" in out
    assert (sparkline([9.0, 3.0, 2.0]) in out) == (encoding == "utf-8")
