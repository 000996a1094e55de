"""Measurements held back: the scores, the verdict, and what may not leak."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sparsefield.cli import main
from sparsefield.core.errors import InputError
from sparsefield.data.observation import Observation
from sparsefield.evaluation.check import check_model

RNG = np.random.default_rng(0)
PLACES = RNG.uniform(-0.95, 0.95, (80, 2))
PLANE = 3 * PLACES[:, :1] - 2 * PLACES[:, 1:]


class Model:
    """Predicts by a function of what it was given and where it is asked."""

    name = "mine"

    def __init__(self, predict):
        self.predict, self.given = predict, []

    def condition(self, obs):
        self.given.append(obs)

        def mean(at):
            return SimpleNamespace(
                mean=torch.as_tensor(self.predict(obs, at.within(obs.frame).coords))
            )

        return SimpleNamespace(mean=mean)


def plane(obs, at):
    return (3 * at[:, :1] - 2 * at[:, 1:]).double()


def constant(obs, at):
    return obs.values.mean(0).double().expand(len(at), 1)


def test_a_better_model_is_called_better_and_by_how_much():
    check = check_model(Model(plane), Observation(PLACES, PLANE), baselines=["nearest", "idw"])
    assert len(check.block) == 8 and check.of == 80
    assert check.model.rmse < 1e-6
    assert check.gain.value == pytest.approx(check.baselines[0].rmse, abs=1e-6)
    assert check.baselines[0].rmse <= check.baselines[1].rmse
    assert "8 of 80 measurements held back" in str(check)
    assert "mine is better than the best baseline" in str(check)


def test_a_baseline_that_wins_is_named():
    check = check_model(Model(constant), Observation(PLACES, PLANE))
    assert check.baselines[0].name in ("linear", "tps", "kriging")
    assert f"a baseline is better: the RMSE of {check.baselines[0].name}" in str(check)
    assert check.gain.high < 0


def test_equal_methods_are_not_told_apart():
    """Of white noise, the value nearby is as good as another value at random."""
    rng = np.random.default_rng(3)
    places, values = rng.uniform(-1, 1, (400, 2)), rng.standard_normal((400, 1))
    luck = Model(lambda obs, at: torch.from_numpy(rng.standard_normal((len(at), 1))))
    check = check_model(luck, Observation(places, values), baselines=["nearest"])
    assert check.gain.low < 0 < check.gain.high
    assert "within chance" in str(check)


def test_what_is_held_back_is_not_given():
    model = Model(constant)
    check_model(model, Observation(PLACES, PLANE), baselines=["nearest"], share=0.25)
    (given,) = model.given
    assert given.count == 60
    rows = {tuple(row) for row in given.coords.double().tolist()}
    assert len(rows & {tuple(row) for row in PLACES.tolist()}) == 60


def test_a_group_is_never_predicted_from_itself():
    groups = np.array([f"track {i % 23}" for i in range(80)])
    by_place = {tuple(p): g for p, g in zip(PLACES.tolist(), groups, strict=True)}
    parts = []

    def predict(obs, at):
        inside = {by_place[tuple(p)] for p in obs.coords.double().tolist()}
        asked = {by_place[tuple(p)] for p in nearest_rows(at).tolist()}
        assert not inside & asked
        parts.append(len(at))
        return constant(obs, at)

    def nearest_rows(at):  # points are float32
        gap = np.abs(PLACES[:, None] - at.double().numpy()).max(-1)
        return PLACES[gap.argmin(0)]

    obs = Observation(PLACES, PLANE)
    check = check_model(Model(predict), obs, groups=groups, baselines=["nearest"])
    assert len(parts) == 10 and sum(parts) == 80
    assert check.block.max() == 22
    assert "80 of 80 measurements of 23 groups, each held back" in str(check)


def test_intervals_of_groups_are_wider_than_those_of_points():
    """Errors that a group shares are one error, however many points it has."""
    groups = np.repeat(np.arange(8), 10)
    shared = np.repeat(np.random.default_rng(1).standard_normal(8), 10)[:, None]
    obs = Observation(PLACES, shared)
    model = Model(lambda obs, at: torch.zeros(len(at), 1).double())
    check = check_model(model, obs, groups=groups, baselines=["idw"])
    alone = check.__class__(check.model, check.baselines, check.of, np.arange(80))
    wide, narrow = (each.gain.high - each.gain.low for each in (check, alone))
    assert wide > 1.5 * narrow


def test_places_on_the_sphere_are_compared_there_and_the_unit_is_said():
    """Two stations at the pole are near, whatever their longitudes."""
    rng = np.random.default_rng(0)
    places = np.column_stack([rng.uniform(84, 89.9, 60), rng.uniform(-180, 180, 60)])
    ring, east = np.cos(np.radians(places[:, 0])), np.radians(places[:, 1])
    values = (100 * ring * np.cos(east))[:, None]
    obs = Observation.at(places, values, names=("lat", "lon")).labelled(("t2m", "K"))
    check = check_model(Model(lambda rest, at: torch.zeros(len(at), 1).double()), obs)
    assert {"tps", "linear"} <= {each.name for each in check.baselines}
    assert check.baselines[0].rmse < 0.5
    assert " K" in str(check) and check.unit == "K"


def test_linear_interpolation_is_compared_on_a_sphere_with_times():
    """Cubic is not, which knows no more than the plane."""
    rng = np.random.default_rng(0)
    places = rng.uniform([0, -80, -180], [9, 80, 180], (200, 3))
    obs = Observation.at(places, places[:, :1], names=("time", "lat", "lon")).scaled(time=500.0)
    check = check_model(Model(lambda rest, at: torch.zeros(len(at), 1).double()), obs)
    errors = {each.name: each.rmse for each in check.baselines}
    assert "cubic" not in errors and errors["linear"] < errors["nearest"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.5}, "share of 1.5"),
        ({"groups": np.zeros(80)}, "two groups at least"),
        ({"groups": np.zeros(7)}, "one for each of 80 rows"),
    ],
)
def test_bad_input_is_said_in_a_line(options, message):
    with pytest.raises(InputError, match=message):
        check_model(Model(constant), Observation(PLACES, PLANE), **options)


def test_the_command_says_which_is_better(tmp_path, capsys):
    table = tmp_path / "t.csv"
    colours = np.column_stack([PLACES, *[(PLANE[:, 0] + 5) / 10] * 3])
    np.savetxt(table, colours, delimiter=",", header="y,x,r,g,b", comments="", fmt="%.6f")
    out = tmp_path / "t.npz"
    assert main(["reconstruct", str(table), "--out", str(out), "--size", "8", "8", "--check"]) == 0
    said = capsys.readouterr().out
    assert "check: 8 of 80 measurements held back" in said
    assert "universal" in said and "kriging" in said and "better" in said


def test_the_command_holds_back_whole_groups(tmp_path, capsys):
    table, out = tmp_path / "t.csv", tmp_path / "t.npz"
    lines = [f"{y:.5f},{x:.5f},{v:.5f},track {i % 4}" for i, ((y, x), v) in
             enumerate(zip(PLACES[:40], PLANE[:40, 0], strict=True))]  # fmt: skip
    lines[7] = f"0.1,0.2,,track {7 % 4}"  # not observed
    table.write_text("\n".join(["y,x,t,track", *lines]))
    words = ["reconstruct", str(table), "--out", str(out), "--value", "t", "--size", "5", "4"]
    assert main([*words, "--group", "track"]) == 0
    assert "39 of 39 measurements of 4 groups, each held back" in capsys.readouterr().out
    assert main([*words, "--group", "cruise"]) == 2
    assert "no column 'cruise'; its columns are: y, x, t, track" in capsys.readouterr().err
