"""Evaluation through the command line, and the JSON it writes."""

import json
from pathlib import Path

import numpy as np
import pytest

from sparsefield.baselines.kriging import NO_VARIANCE

MEAN = {"psnr", "psnr_missing", "ssim", "mse", "mae", "speckle"}
COVERAGE = {"coverage50", "coverage80", "coverage90", "coverage95"}
SAMPLES = COVERAGE | {
    "psnr", "speckle", "crps", "energy_score", "mse_mean", "mse_draw", "delta_cal", "spread_skill",
    "gap_db", "delta_cal_per_field", "spread_skill_per_field",
}  # fmt: skip
HEAD = {"model", "data", "n", "density", "nfe", "seconds", "device", "commit", "seed"}


def report(cli, *arguments):
    seen = cli("evaluate", *arguments, "--json", "out.json")
    assert seen.code == 0, seen.err
    return json.loads(Path("out.json").read_text()), seen.out


@pytest.mark.parametrize("command", [("evaluate", "baselines"), ("compare",)])
def test_what_was_done_to_points_a_baseline_cannot_take_is_said(cli, command):
    """One measurement per field determines no variogram and no spline."""
    np.save("some.npy", np.random.default_rng(0).random((5, 6, 7, 1), dtype=np.float32))
    data = ("--data", "some.npy", "--split", "all", "--channels", "last", "--density", "0.024")
    seen = cli(*command, *data, "--baselines", "kriging,tps,nearest", "--json", "out.json")
    assert seen.code == 0, seen.err
    report = json.loads(Path("out.json").read_text())
    rows = report["baselines"] if command[0] == "evaluate" else report["contestants"]
    found = {name: row.get("mean", row).get("notes") for name, row in rows.items()}
    constant = "tps needs two places; the value is constant"
    assert found == {"kriging": {NO_VARIANCE: 5}, "tps": {constant: 5}, "nearest": None}
    assert f"kriging: {NO_VARIANCE} (5 of 5 fields)" in seen.out
    assert f"tps: {constant} (5 of 5 fields)" in seen.out
    assert "BaselineWarning" not in seen.err


def test_model_samples_and_baselines_in_one_report(cli, checkpoint):
    result, text = report(
        cli, checkpoint(), "--data", "data.npy", "--limit", 5, "--samples", 3, "--steps", 4,
        "--baselines", "nearest,kriging",
    )  # fmt: skip
    assert result.keys() >= HEAD | {"mean", "samples", "baselines"}
    assert result["n"] == 5
    assert result["samples"]["nfe"] == 4
    assert result["nfe"] == 1 + 3 * 4
    assert result["mean"].keys() == MEAN | {f"{name}_ci" for name in MEAN}
    assert result["samples"].keys() >= SAMPLES | {f"{name}_ci" for name in SAMPLES}
    assert "crps" in result["baselines"]["kriging"]
    assert result["baselines"]["kriging"].keys() >= COVERAGE | {"delta_cal", "delta_cal_ci"}
    assert result["baselines"]["kriging"]["calibration"].keys() == {"by_distance"}
    tables = result["samples"]["calibration"]
    assert tables.keys() == {"averages", "ranks", "by_distance"}
    assert [row["draws"] for row in tables["averages"]] == [1, 2, 3]
    assert len(tables["ranks"]) == 4
    assert result["samples"]["coverage50_level"] == 0.5
    assert result["samples"]["coverage90_level"] == 0.5
    assert "90 % " in text
    assert "(ideal 0.500)" in text
    assert "crps" not in result["baselines"]["nearest"]
    low, high = result["mean"]["psnr_ci"]
    assert low <= result["mean"]["psnr"] <= high
    assert "PSNR" in text


def test_one_field_has_scores_without_intervals(cli, checkpoint):
    setting = ("--data", "data.npy", "--limit", 1, "--samples", 3, "--steps", 2)
    for more in ((), ("--sampler", "heun", "sde")):
        call = (checkpoint(), *setting, *more, "--figure", f"{len(more)}.png")
        result, text = report(cli, *call)
        rows = result["rows"] if more else [result["mean"], result["baselines"]["tps"]]
        for row in rows:
            assert np.isfinite(row["psnr"]) and row["psnr_ci"] == [None, None]
        assert "nan" not in text
        assert Path(f"{len(more)}.png").read_bytes().startswith(b"\x89PNG")
    seen = cli("compare", f"a={checkpoint()}", *setting[:4], "--json", "c.json", "--figures", "f")
    assert seen.code == 0 and "nan" not in seen.out, seen.err
    entry = json.loads(Path("c.json").read_text())["differences"]["tps"]
    assert entry["psnr_ci"] == [None, None] and not entry["psnr_significant"]


def test_samplers_are_compared_at_equal_evaluations(cli, checkpoint):
    result, text = report(
        cli, checkpoint(), "--data", "data.npy", "--limit", 4, "--samples", 3, "--steps", 4,
        "--sampler", "heun", "sde", "ddim:eta=1", "--figure", "seen/samplers.png",
    )  # fmt: skip
    spent = {row["sampler"]: (row["steps"], row["nfe"]) for row in result["rows"]}
    assert spent == {"heun": (4, 7), "sde": (7, 7), "ddim:eta=1": (7, 7)}
    assert "crps_ci" in result["rows"][1]["differences"]
    best = min(result["rows"], key=lambda row: row["crps"])["sampler"]
    assert f"best by CRPS at 8 x 9: {best} with 7 evaluations" in text
    assert Path("seen/samplers.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_of_the_calibration_is_written(cli, checkpoint):
    call = ("--data", "data.npy", "--limit", 3, "--baselines", "kriging", "--figure", "seen/c.png")
    seen = cli("evaluate", checkpoint(), *call, "--samples", 2, "--steps", 2)
    assert seen.code == 0, seen.err
    assert Path("seen/c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.safetensors", "--sampler", "heun", "sde"], "it needs --samples"),
        (["baselines", "--samples", "2", "--sampler", "heun", "sde"], "it needs --samples"),
        (["model.safetensors", "--figure", "c.png"], "it needs a model and --samples"),
        (["baselines", "--samples", "2", "--figure", "c.png"], "it needs a model and --samples"),
        (["model.safetensors", "--samples", "2", "--figure", "c.pdf"], "must be .png"),
    ],
)
def test_what_cannot_be_finished_is_refused_before_the_work(cli, checkpoint, arguments, words):
    checkpoint()
    seen = cli("evaluate", *arguments, "--data", "nowhere.npy")
    assert seen.code == 2
    assert words in seen.err
    assert seen.err.count("\n") == 1


def test_the_same_command_gives_the_same_figures(cli, checkpoint):
    call = (checkpoint(), "--data", "data.npy", "--limit", 3, "--baselines", "tps", "--samples", 2)
    first, second = report(cli, *call)[0], report(cli, *call)[0]
    for part in ("mean", "samples"):
        assert first[part] == second[part]
    assert first["baselines"]["tps"]["psnr"] == second["baselines"]["tps"]["psnr"]


def test_baselines_alone_have_no_mean(cli):
    result, _ = report(cli, "baselines", "--data", "data.npy", "--baselines", "nearest,tps")
    assert "mean" not in result
    assert "samples" not in result
    assert result["baselines"].keys() == {"nearest", "tps"}
    assert result["nfe"] == 0


def test_fully_observed_fields_are_perfect(cli, checkpoint):
    result, _ = report(
        cli, checkpoint(), "--data", "data.npy", "--density", 1.0, "--samples", 2,
        "--baselines", "kriging",
    )  # fmt: skip
    for scores in (result["mean"], result["baselines"]["kriging"]):
        assert scores["psnr"] is None  # infinite, which strict JSON does not know
        assert scores["ssim"] == pytest.approx(1)
        assert "psnr_missing" not in scores
    assert result["samples"]["psnr"] is None
    for scores in (result["samples"], result["baselines"]["kriging"]):
        assert not {"calibration", "delta_cal", "coverage50", "coverage50_level"} & scores.keys()


def test_old_words_are_accepted_for_one_release_and_keys_stand_beside_new_ones(cli):
    seen = cli("evaluate", "floors", "--data", "data.npy", "--floors", "tps", "--json", "out.json")
    assert seen.code == 0, seen.err
    assert "warning: 'floors' is now called 'baselines'" in seen.err
    assert "warning: '--floors' is now called '--baselines'" in seen.err
    result = json.loads(Path("out.json").read_text())
    assert result["floors"] == result["baselines"]
    assert result["baselines"].keys() == {"tps"}
    assert result["model"] == "baselines"


def test_size_averages_the_fields(cli):
    np.save("large.npy", np.zeros((2, 14, 21, 3), np.uint8))
    result, _ = report(
        cli, "baselines", "--data", "large.npy", "--size", 7, 7, "--baselines", "nearest"
    )
    assert result["n"] == 2


def test_data_that_do_not_fit_the_model_are_refused(cli, checkpoint):
    seen = cli("evaluate", checkpoint(channels=1), "--data", "data.npy")
    assert seen.code == 2
    assert "1 channel;" in seen.err
    assert "fields of 3" in seen.err
