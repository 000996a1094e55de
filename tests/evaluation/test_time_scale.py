"""The exchange rate between time and space, fitted on held-out measurements."""

from pathlib import Path

import numpy as np
import pytest
import torch

import sparsefield as sf
from sparsefield.cli import main
from sparsefield.core.errors import InputError
from sparsefield.evaluation.time_scale import fit_time_scale

RATE = 25.0  # kilometres that count as much as an hour


@pytest.fixture(scope="module")
def model():
    return sf.load("universal")


def waves(count=100):
    """Return places in hours and kilometres, and a field that is isotropic in (RATE t, x)."""
    rng = np.random.default_rng(0)
    places = rng.uniform([0, 0], [8, 8 * RATE], (count, 2))
    direction = rng.uniform(0, 2 * np.pi, 60)
    waves = np.stack([np.cos(direction), np.sin(direction)]) * rng.gamma(4, 1 / 4, 60) / 25
    phase = (places * [RATE, 1]) @ waves + rng.uniform(0, 2 * np.pi, 60)
    return places, np.cos(phase).sum(1, keepdims=True) / 60**0.5


def observed(**options):
    places, values = waves(**options)
    units = ("hours since 2019-03-01", "km")
    return sf.Observation.at(places, values, names=("time", "x"), units=units)


def test_the_rate_of_a_field_is_found_from_any_start_and_in_any_unit(model):
    obs = observed(count=100)
    fitted, found = fit_time_scale(model, obs.scaled(time=8 * RATE))
    assert RATE / 2 <= found.scale <= 2 * RATE
    assert fitted.frame.scales == (found.scale, 1)
    assert torch.equal(fitted.coords, obs.coords)
    assert found.held == 100
    assert found.scores[found.scale] == min(found.scores.values()) < 0.5 * found.scores[8 * RATE]
    assert "one hour of time counts" in str(found) and "lower than with 200" in str(found)
    places, values = waves()
    far = sf.Observation.at(places, 280 + 1e3 * values, frame=obs.frame).scaled(time=2 * RATE)
    assert fit_time_scale(model, far)[1].scale == pytest.approx(found.scale)


def test_the_command_says_the_scale_that_it_found_and_holds_stations_back(tmp_path, capsys):
    places, values = waves(45)
    stations = np.arange(45) % 9
    places[:, 1] = 7 + 23 * stations
    start = np.datetime64("2019-03-01T00:00")
    lines = [
        f"{start + np.timedelta64(int(60 * t), 'm')},{x:.3f},{v:.5f},s{k}"
        for (t, x), v, k in zip(places, values[:, 0], stations, strict=True)
    ]
    Path(tmp_path / "a.csv").write_text("\n".join(["time,x [km],v,station", *lines]))
    call = ["reconstruct", str(tmp_path / "a.csv"), "--out", str(tmp_path / "o.npz"), "--size",
            "3", "4", "--value", "v", "--time-scale", "fit"]  # fmt: skip
    assert main([*call, "--group", "station"]) == 0
    said = capsys.readouterr().out
    assert "one hour of time counts" in said and "CRPS of 45 held-out measurements" in said
    assert "of 9 groups, each held back" in said


def test_what_has_no_such_scale_is_refused(model, tmp_path):
    places, values = waves()
    flat = sf.Observation.at(places, values, names=("y", "x"))
    for obs in (flat, sf.Observation([[0.0, 0.1]], [[1.0]])):
        with pytest.raises(InputError, match="needs an axis of times beside one of space"):
            fit_time_scale(model, obs)
    with pytest.raises(InputError, match="'default' knows no distances"):
        fit_time_scale(sf.load("default"), observed())
    with pytest.raises(InputError, match="10 measurements at least are needed, not 7"):
        fit_time_scale(model, observed(count=7))
    (tmp_path / "a.csv").write_text("time,x,v\n2019-01-01,1,2\n")
    with pytest.raises(InputError, match=r"a time scale is a number, not 'fit'"):
        sf.read(tmp_path / "a.csv", time_scale="fit")
