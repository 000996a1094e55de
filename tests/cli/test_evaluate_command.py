"""Evaluation through the command line, and the JSON it writes."""

import json
from pathlib import Path

import numpy as np
import pytest

MEAN = {"psnr", "psnr_missing", "ssim", "mse", "mae", "speckle"}
SAMPLES = {"psnr", "speckle", "crps", "coverage50", "coverage90", "delta_cal", "spread_skill"}
HEAD = {"model", "data", "n", "density", "nfe", "seconds", "device", "commit", "seed"}


def report(cli, *arguments):
    seen = cli("evaluate", *arguments, "--json", "out.json")
    assert seen.code == 0, seen.err
    return json.loads(Path("out.json").read_text()), seen.out


def test_model_samples_and_floors_in_one_report(cli, checkpoint):
    result, text = report(
        cli, checkpoint(), "--data", "data.npy", "--limit", 5, "--samples", 3, "--steps", 4,
        "--floors", "nearest,kriging",
    )  # fmt: skip
    assert result.keys() >= HEAD | {"mean", "samples", "floors"}
    assert result["n"] == 5
    assert result["samples"]["nfe"] == 7
    assert result["nfe"] == 1 + 3 * 7
    assert result["mean"].keys() == MEAN | {f"{name}_ci" for name in MEAN}
    assert result["samples"].keys() >= SAMPLES | {f"{name}_ci" for name in SAMPLES}
    assert "crps" in result["floors"]["kriging"]
    assert "crps" not in result["floors"]["nearest"]
    low, high = result["mean"]["psnr_ci"]
    assert low <= result["mean"]["psnr"] <= high
    assert "PSNR" in text


def test_the_same_command_gives_the_same_figures(cli, checkpoint):
    call = (checkpoint(), "--data", "data.npy", "--limit", 3, "--floors", "tps", "--samples", 2)
    first, second = report(cli, *call)[0], report(cli, *call)[0]
    for part in ("mean", "samples"):
        assert first[part] == second[part]
    assert first["floors"]["tps"]["psnr"] == second["floors"]["tps"]["psnr"]


def test_floors_alone_have_no_mean(cli):
    result, _ = report(cli, "floors", "--data", "data.npy", "--floors", "nearest,tps")
    assert "mean" not in result
    assert "samples" not in result
    assert result["floors"].keys() == {"nearest", "tps"}
    assert result["nfe"] == 0


def test_fully_observed_fields_are_perfect(cli, checkpoint):
    result, _ = report(
        cli, checkpoint(), "--data", "data.npy", "--density", 1.0, "--floors", "nearest"
    )
    for scores in (result["mean"], result["floors"]["nearest"]):
        assert scores["psnr"] == float("inf")
        assert scores["ssim"] == pytest.approx(1)
        assert "psnr_missing" not in scores


def test_size_averages_the_fields(cli):
    np.save("large.npy", np.zeros((2, 14, 21, 3), np.uint8))
    result, _ = report(cli, "floors", "--data", "large.npy", "--size", 7, 7, "--floors", "nearest")
    assert result["n"] == 2


def test_data_that_do_not_fit_the_model_are_refused(cli, checkpoint):
    seen = cli("evaluate", checkpoint(channels=1), "--data", "data.npy")
    assert seen.code == 2
    assert "1 channels" in seen.err
    assert "fields of 3" in seen.err
