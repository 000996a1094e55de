"""The card of a bundled model quotes what evaluations measured."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bundle(monkeypatch):
    """The script that bundles models."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("bundle_model")


@pytest.fixture
def reports(tmp_path):
    """A report of means on many fields, and one of samples on few."""
    head = {"data": "photos", "density": 0.2, "seed": 0, "commit": "abc"}
    kriging = {"psnr": 21.0, "crps": 0.06, "crps_ci": [0.05, 0.07]}
    baselines = {"tps": {"psnr": 22.0}, "kriging": kriging}
    average = {"draws": 4, "mse": 0.1, "ratio": 1.26, "ratio_ci": [1.2, 1.3], "expected": 1.25}
    samples = {
        "n": 9, "draws": 8, "sampler": "heun", "steps": 5, "crps": 0.04, "crps_ci": [0.03, 0.05],
        "coverage90": 0.75, "coverage90_ci": [0.7, 0.8], "coverage90_level": 7 / 9,
        "calibration": {"averages": [average], "ranks": [1.0] * 9, "by_distance": []},
    }  # fmt: skip
    many = head | {"n": 500, "mean": {"psnr": 23.0}, "baselines": baselines}
    few = head | {"n": 9, "mean": {"psnr": 24.0}, "samples": samples, "floors": baselines}
    paths = tmp_path / "many.json", tmp_path / "few.json"
    for path, content in zip(paths, (many, few), strict=True):
        path.write_text(json.dumps(content))
    return paths


def test_means_come_from_the_first_report_and_calibration_from_the_first_with_samples(
    bundle, reports
):
    card = bundle.read_scores(reports)
    assert card["scores"]["n"] == 500
    assert card["scores"]["mean"]["psnr"] == 23
    assert card["calibration"]["n"] == 9
    assert card["calibration"]["samples"]["coverage90"] == 0.75
    assert card["calibration"]["baselines"].keys() == {"kriging"}
    assert "calibration" not in bundle.read_scores(reports[:1])


def test_the_card_shows_calibration_beside_kriging_and_what_would_be_ideal(bundle, reports):
    text = "\n".join(bundle.render_calibration(bundle.read_scores(reports)["calibration"]))
    assert "8 samples (heun, 5 steps) of 9 fields of photos, 20% observed" in text
    assert "| calibration | this model | kriging | ideal |" in text
    assert "| CRPS | 0.0400 [0.0300, 0.0500] | 0.0600 [0.0500, 0.0700] |  |" in text
    assert "| coverage of 90% intervals | 0.750 [0.700, 0.800] |  | 0.778 |" in text
    assert "| 4 | 1.260 [1.200, 1.300] | 1.250 |" in text
