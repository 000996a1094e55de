"""Tables of scattered points through the command line, and the scores it writes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sparsefield.cli import main

BASELINES = "nearest,idw,linear,kriging"


def write(path, rows, names, split=None):
    lines = [",".join([*names, *(["split"] if split else [])])]
    for number, row in enumerate(rows):
        cells = ["" if np.isnan(x) else repr(float(x)) for x in row]
        lines.append(",".join([*cells, *([split[number]] if split else [])]))
    Path(path).write_text("\n".join(lines) + "\n")


def table(count=40, seed=0):
    """Return rows x, y, value in metres and kelvins."""
    rng = np.random.default_rng(seed)
    coords = rng.uniform([1e5, 2e5], [1.4e5, 2.3e5], (count, 2))
    unit = (coords - [1e5, 2e5]) / 3e4
    return np.column_stack([coords, 280 + np.sin(3 * unit).sum(1) + 0.1 * rng.normal(size=count)])


def evaluate(tmp_path, *arguments):
    out = tmp_path / "out.json"
    assert main(["evaluate", *map(str, arguments), "--json", str(out)]) == 0
    return json.loads(out.read_text())


def intervals(report):
    """Return every interval in a report."""
    if not isinstance(report, dict):
        return []
    own = [each for name, each in report.items() if name.endswith("_ci")]
    return own + [each for part in report.values() for each in intervals(part)]


def test_one_hidden_row_has_scores_without_intervals(tmp_path, capsys):
    rows, path = table(12), tmp_path / "t.csv"
    write(path, rows, ("x", "y", "t2m"), ["test", *["train"] * 11])
    found = evaluate(
        tmp_path, "universal", "--data", path, "--value", "t2m", "--baselines", "kriging"
    )
    assert found["mean"]["rmse"] == found["mean"]["mae"] > 0
    assert intervals(found) and all(each == [None, None] for each in intervals(found))
    assert "nan" not in capsys.readouterr().out


def test_a_split_is_scored_in_the_units_of_the_data(tmp_path):
    rows, path = table(), tmp_path / "t.csv"
    split = ["test" if n % 4 == 0 else "train" for n in range(len(rows))]
    write(path, rows, ("x", "y", "t2m"), split)
    found = evaluate(
        tmp_path, "universal", "--data", path, "--value", "t2m", "--baselines", BASELINES
    )
    assert found.keys() >= {"mean", "predictive", "baselines", "n_train", "n_test", "seconds"}
    assert found["mean"].keys() >= {"rmse", "mae"}
    assert found["predictive"].keys() >= {"crps", "log_score", "coverage50", "coverage90"}
    assert found["baselines"]["kriging"].keys() >= {"rmse", "mae", "crps", "coverage90", "seconds"}
    assert (found["n_train"], found["n_test"]) == (30, 10)
    # The nearest training value, found by hand.
    hidden = np.arange(len(rows)) % 4 == 0
    gap = np.linalg.norm(rows[hidden, None, :2] - rows[None, ~hidden, :2], axis=-1)
    error = rows[~hidden, 2][gap.argmin(1)] - rows[hidden, 2]
    nearest = found["baselines"]["nearest"]
    assert nearest["rmse"] == pytest.approx(math.sqrt((error**2).mean()))
    assert nearest["mae"] == nearest["crps"] == pytest.approx(np.abs(error).mean())
    assert "coverage90" not in nearest
    ratio = found["mean"]["rmse"] / found["baselines"]["kriging"]["rmse"]
    assert found["baselines"]["kriging"]["rmse_ratio"] == pytest.approx(ratio)
    assert ratio < 1.3


def test_folds_hide_every_known_row_once(tmp_path):
    rows, path = table(23), tmp_path / "t.csv"
    rows[4, 2] = np.nan
    write(path, rows, ("x", "y", "t2m"))
    found = evaluate(
        tmp_path, "baselines", "--data", path, "--value", "t2m", "--baselines", "idw", "--folds", 4
    )
    assert found["n_test"] == 22
    assert found["n_train"] == 16
    assert found["folds"] == 4
    assert "mean" not in found


def test_units_change_scores_by_their_factor_alone(tmp_path):
    rows, path = table(24), tmp_path / "t.csv"
    write(path, rows, ("x", "y", "t"))
    plain = evaluate(tmp_path, "universal", "--data", path, "--value", "t", "--baselines", "none")
    rows[:, :2] /= 1e3
    rows[:, 2] = 1e3 * (rows[:, 2] - 273.15)
    write(path, rows, ("x", "y", "t"))
    moved = evaluate(tmp_path, "universal", "--data", path, "--value", "t", "--baselines", "none")
    assert moved["mean"]["rmse"] == pytest.approx(1e3 * plain["mean"]["rmse"], rel=1e-2)
    assert moved["predictive"]["crps"] == pytest.approx(
        1e3 * plain["predictive"]["crps"], rel=1e-2
    )


def test_degrees_are_on_the_sphere(tmp_path):
    """A table and the same one turned across the date line score alike."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.uniform(20, 40, 30), rng.uniform(50, 70, 30), rng.normal(size=30)])
    rows[:, 2] += np.sin(rows[:, 0] / 3)
    scores = []
    for turn in (0, 150):
        rows[:, 0] = (rows[:, 0] + turn + 180) % 360 - 180
        write(tmp_path / "t.csv", rows, ("longitude", "latitude", "v"))
        found = evaluate(
            tmp_path, "universal", "--data", tmp_path / "t.csv", "--value", "v",
            "--baselines", "nearest,linear",
        )  # fmt: skip
        scores.append([found["mean"]["rmse"], *(b["rmse"] for b in found["baselines"].values())])
    assert scores[0] == pytest.approx(scores[1], rel=1e-2)


@pytest.mark.parametrize("width", [10, 170])
def test_all_baselines_that_know_a_third_axis_score_depths_on_the_sphere(tmp_path, width):
    """A narrow region is scored on a plane at its middle, a wide one in space."""
    rng = np.random.default_rng(0)
    rows = rng.uniform([-width / 3, -width, 0], [width / 3, width, 50], (40, 3))
    write(tmp_path / "t.csv", np.c_[rows, rows[:, :1]], ("lat", "lon", "depth", "v"))
    found = evaluate(
        tmp_path, "baselines", "--data", tmp_path / "t.csv", "--value", "v",
        "--coords", "lat", "lon", "depth", "--baselines", "all",
    )  # fmt: skip
    assert found["baselines"].keys() == {"nearest", "idw", "linear", "tps", "kriging"}
    assert all(np.isfinite(each["rmse"]) for each in found["baselines"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("universal", "--value", "no"), "no column 'no'"),
        (("default", "--value", "t"), "is a flow"),
        (("universal", "--value", "t", "--folds", "1"), "folds"),
        (("universal", "--value", "t", "--coords", "lon"), "no column 'lon'"),
        (("baselines", "--value", "t", "--baselines", "biharmonic"), "there are nearest, idw"),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path, capsys, arguments, message):
    write(tmp_path / "t.csv", table(10), ("x", "y", "t"))
    assert main(["evaluate", *arguments, "--data", str(tmp_path / "t.csv")]) == 2
    assert message in capsys.readouterr().err
