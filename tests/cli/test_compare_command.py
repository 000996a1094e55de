"""Comparison through the command line: its JSON, its figures, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsefield.data.dataset import FieldDataset
from sparsefield.evaluation.charts import scene
from sparsefield.evaluation.task import Protocol, make_task
from sparsefield.figures.comparison import plot_errors

HEAD = {
    "data", "n", "density", "split", "seed", "device", "commit", "reference", "ranking",
    "comparisons", "contestants", "differences", "baseline",
}  # fmt: skip
DATA = ("--data", "data.npy")


@pytest.fixture
def two(checkpoint):
    """Two models with different weights."""
    torch.manual_seed(1)
    first = checkpoint("a.safetensors")
    return first, checkpoint("b.safetensors")


def compare(cli, *arguments):
    seen = cli("compare", *arguments, *DATA, "--json", "out.json")
    assert seen.code == 0, seen.err
    return json.loads(Path("out.json").read_text()), seen.out


def test_models_samples_and_baselines_in_one_report(cli, two):
    result, text = compare(
        cli, f"a={two[0]}", f"b={two[1]}", "--samples", 2, "--steps", 2, "--samples-limit", 4,
        "--baselines", "nearest,kriging", "--reference", "b",
    )  # fmt: skip
    assert result.keys() >= HEAD
    assert result["n"] == 12
    assert result["reference"] == "b"
    assert result["contestants"].keys() == {"a", "b", "nearest", "kriging"}
    assert result["differences"].keys() == {"a", "nearest", "kriging"}
    row = result["contestants"]["a"]
    assert row["kind"] == "model"
    assert row["model"] == "tiny"
    assert row["parameters"] > 0
    assert row["nfe"] == 1 + 2 * 2
    assert row["samples"]["n"] == 4
    assert row["samples"].keys() >= {"psnr", "crps", "coverage90", "delta_cal", "speckle_ci"}
    assert row["mean"].keys() >= {"psnr", "psnr_missing", "ssim", "speckle", "speckle_ci"}
    entry = result["differences"]["a"]
    assert entry["psnr_ci"][0] <= entry["psnr"] <= entry["psnr_ci"][1]
    assert {"significant", "crps", "sample_psnr", "sample_speckle_ratio"} <= entry.keys()
    assert "crps" in result["differences"]["kriging"]
    psnr = {name: row["mean"]["psnr"] for name, row in result["contestants"].items()}
    assert result["ranking"] == sorted(psnr, key=lambda name: -psnr[name])
    for words in ("PSNR - b", "CRPS", "3 comparisons", "best baseline", "has the highest PSNR"):
        assert words in text


def test_scores_are_those_that_evaluate_writes(cli, two):
    setting = ["--samples", 2, "--steps", 2, "--limit", 5, "--seed", 4, "--baselines", "tps"]
    result, _ = compare(cli, f"a={two[0]}", f"b={two[1]}", *setting)
    for name, path in zip("ab", two, strict=True):
        assert cli("evaluate", path, *DATA, *setting, "--json", "one.json").code == 0
        alone = json.loads(Path("one.json").read_text())
        row = result["contestants"][name]
        assert row["mean"] == alone["mean"]
        assert row["samples"] == {"n": 5} | alone["samples"]
        assert row["nfe"] == alone["nfe"]
    assert result["contestants"]["tps"]["mean"]["psnr"] == alone["baselines"]["tps"]["psnr"]


def test_a_model_against_itself_does_not_differ(cli, two):
    result, text = compare(cli, f"one={two[0]}", f"same={two[0]}", "--baselines", "none")
    entry = result["differences"]["same"]
    assert entry["psnr"] == 0
    assert entry["psnr_ci"] == [0, 0]
    assert entry["significant"] is False
    assert "baseline" not in result
    assert "Not told apart from one: same (+0.00 [+0.00, +0.00] dB)" in text


def test_figures_are_written(cli, two):
    arguments = [f"a={two[0]}", f"b={two[1]}", "--baselines", "nearest", "--limit", 4]
    seen = cli("compare", *arguments, *DATA, "--samples", 2, "--steps", 2, "--figures", "shown")
    assert seen.code == 0, seen.err
    assert {path.name for path in Path("shown").iterdir()} == {
        "scores.png", "means.png", "samples.png",
    }  # fmt: skip
    for path in Path("shown").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("shape", "channels"), [((9,), 1), ((8, 9), 3), ((3, 4, 5), 2)])
def test_errors_share_one_scale_in_any_dimension(shape, channels):
    values = np.random.default_rng(0).random((2, *shape, channels), np.float32)
    task = make_task(FieldDataset(values), Protocol(0.3), [0, 1])
    guesses = {"good": task.truth, "bad": task.truth + 0.5}
    figure = plot_errors(scene(task), guesses, "guesses")
    maps = [axes.images[0] for axes in figure.axes if len(axes.images) == 1]
    errors = [image for image in maps if image.get_cmap().name == "magma"]
    assert len(errors) == 2 * 2
    assert len({image.get_clim() for image in errors}) == 1
    assert np.allclose(errors[0].get_array(), 0)
    assert np.allclose(errors[1].get_array(), 0.5)
    figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.safetensors", "a.safetensors"], ["two methods", "LABEL="]),
        (["tps=a.safetensors"], ["'tps' is a baseline"]),
        (["a.safetensors", "--baselines", "none"], ["at least two"]),
        (["--baselines", "none"], ["at least two"]),
        (["a.safetensors", "nowhere"], ["no model 'nowhere'"]),
        (["a.safetensors", "--reference", "c"], ["unknown method 'c'", "tps"]),
        (["a.safetensors", "--samples", "1"], ["at least 2 samples"]),
        (["a.safetensors", "--samples", "2", "--sampler", "hen"], ["'hen'", "heun"]),
        (["a.safetensors", "--samples", "2", "--samples-limit", "0"], ["samples-limit", "0"]),
        (["a.safetensors", "--baselines", "spline"], ["'spline'", "kriging"]),
        (["a.safetensors", "grey.safetensors"], ["grey.safetensors", "1 channel;", "of 3"]),
        (["a.safetensors", "cube.safetensors"], ["cube.safetensors", "3-D fields", "2-D"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_compared_is_refused_in_one_line(cli, checkpoint, arguments, words):
    checkpoint("a.safetensors")
    checkpoint("grey.safetensors", channels=1)
    checkpoint("cube.safetensors", shape=(3, 4, 5))
    seen = cli("compare", *arguments, *DATA)
    assert seen.code == 2, seen.err
    assert seen.err.startswith("sparsefield: error: ")
    assert seen.err.count("\n") == 1
    for word in words:
        assert word in seen.err


def test_figures_without_matplotlib_are_refused_before_the_work(cli, two, monkeypatch):
    monkeypatch.setattr("sparsefield.cli.figures.find_spec", lambda name: None)
    seen = cli("compare", *two, *DATA, "--figures", "shown")
    assert seen.code == 2
    assert "needs matplotlib" in seen.err
