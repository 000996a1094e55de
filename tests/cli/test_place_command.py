"""sparsefield place: a table of places, and what may not be chosen."""

import csv

import numpy as np
import pytest

from sparsefield.cli import main


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    places = rng.uniform(-0.95, -0.1, (25, 2))  # the other three quarters are unknown
    rows = np.column_stack([places, np.sin(3 * places).sum(1)])
    path = tmp_path / "seen.csv"
    np.savetxt(path, rows, delimiter=",", header="y,x,t", comments="", fmt="%.6f")
    return path


def chosen(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def run(table, *more):
    out = table.parent / "next.csv"
    base = ["place", str(table), "--out", str(out), "--size", "12", "10", "--samples", "60"]
    return main([*base, *more]), out


def test_places_are_where_nothing_is_known_best_first(table, capsys):
    code, out = run(table, "--k", "3")
    assert code == 0
    rows = chosen(out)
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert all(float(row["y"]) > -0.1 or float(row["x"]) > -0.1 for row in rows)
    stds = [float(row["expected_std"]) for row in rows]
    assert stds == sorted(stds, reverse=True)
    assert "3 places of 120; expected standard deviation" in capsys.readouterr().out


def test_nothing_is_placed_in_excluded_regions(table, tmp_path):
    free = chosen(run(table, "--k", "2")[1])
    _, out = run(table, "--k", "2", "--exclude", "y=-0.2:1,x=-1:1", "x=0.5:1")
    for row in chosen(out):
        assert float(row["y"]) < -0.2 and float(row["x"]) < 0.5
    mask = np.ones((12, 10))
    mask[:, 3] = 0
    np.save(tmp_path / "mask.npy", mask)
    _, out = run(table, "--k", "2", "--exclude", str(tmp_path / "mask.npy"))
    assert {float(row["x"]) for row in chosen(out)} == {-0.3}
    assert free != chosen(out)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--k", "0"], "at least 1 place"),
        (["--exclude", "lon=0:1"], "y=LOW:HIGH,x=LOW:HIGH or a .npy file, not 'lon=0:1'"),
        (["--exclude", "y=a:b"], "not 'y=a:b'"),
        (["--exclude", "y=-1:1"], "of 0 candidates"),
    ],
)
def test_bad_options_are_said_in_a_line(table, capsys, more, message):
    assert run(table, *more)[0] == 2
    assert message in capsys.readouterr().err


def test_only_a_table_is_written_and_masks_fit_the_grid(table, tmp_path, capsys):
    assert main(["place", str(table), "--out", str(tmp_path / "next.png")]) == 2
    assert "ends in .csv" in capsys.readouterr().err
    np.save(tmp_path / "mask.npy", np.ones((3, 3)))
    assert run(table, "--exclude", str(tmp_path / "mask.npy"))[0] == 2
    assert "has the shape (3, 3), and the grid (12, 10)" in capsys.readouterr().err


def test_places_are_chosen_from_a_table_of_candidates_in_its_units(tmp_path):
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.uniform(50, 54, 20), rng.uniform(-5, 0, 20), rng.random(20)])
    np.savetxt(tmp_path / "seen.csv", rows, delimiter=",", header="lat,lon,t", comments="")
    sites = np.array([[50.5, -4.5], [53.5, -0.5], [52.0, -2.0]])
    np.savetxt(tmp_path / "sites.csv", sites, delimiter=",", header="lat,lon", comments="")
    code, out = run(tmp_path / "seen.csv", "--k", "2", "--candidates", str(tmp_path / "sites.csv"))
    assert code == 0
    found = {(float(row["lat"]), float(row["lon"])) for row in chosen(out)}
    assert len(found) == 2 and found < {tuple(site) for site in sites}
    _, out = run(
        tmp_path / "seen.csv", "--k", "2", "--candidates", str(tmp_path / "sites.csv"),
        "--exclude", "lat=53:54,lon=-1:0",
    )  # fmt: skip
    assert {float(row["lat"]) for row in chosen(out)} == {50.5, 52.0}
