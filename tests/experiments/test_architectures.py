"""The comparison of architectures from training to page, with two tiny rows on tiny data."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsefield.cli import main

ROOT = Path(__file__).parents[2]
PRESET = """
[model]
name = "{name}"
width = 8
layers = 2
state = 2
heads = 2
features = 3
[optimizer]
lr = 1e-3
"""
COMMON = (
    "seed=0", "device=cpu", "precision=float32", "batch_size=4", "data.validation=4", "epochs=1",
    "save_every=1000", "visualize_every=1000", "data.density=[0.2,0.3]",
)  # fmt: skip
EVALUATION = (
    "--limit",
    "6",
    "--samples",
    "2",
    "--samples-limit",
    "4",
    "--steps",
    "2",
    "--baselines",
    "tps",
)


@pytest.fixture
def architectures(tmp_path, monkeypatch):
    """The script with two tiny rows, in a folder with data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "experiments")
    script = ROOT / "experiments" / "train_architectures.py"
    spec = importlib.util.spec_from_file_location("train_architectures", script)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_architectures", module)
    spec.loader.exec_module(module)
    for name in ("v1", "v2"):
        Path(f"{name}.toml").write_text(PRESET.format(name=name))
    rows = {
        "v2": module.Row("v2.toml"),
        "v1": module.Row("v1.toml"),
        "v2-morton": module.Row("v2.toml", ("model.order=morton",)),
    }
    for name, value in {"COMMON": COMMON, "EVALUATION": EVALUATION, "WARM_UP": 2}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "MEASURED", 2)
    monkeypatch.setattr(module, "ROWS", rows)
    fields = np.random.default_rng(0).integers(0, 256, (24, 8, 9, 3), dtype=np.uint8)
    np.save("fields.npy", fields)
    np.save("held_out.npy", fields[::-1])
    return module


def call(module, *rows, jobs=1):
    arguments = ["--data", "fields.npy", "--validation", "held_out.npy", "--minutes", "0.001"]
    return module.main([*arguments, "--jobs", str(jobs), "--out", "out", "--rows", *rows])


class Ended:
    """A process that has done its work."""

    def poll(self):
        """Say that it succeeded."""
        return 0


def start_here(job, core):
    """Train in this process: a new one takes seconds to start."""
    assert main(job.arguments) == 0
    return Ended()


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rows_are_calibrated_trained_compared_and_reported(
    architectures, monkeypatch, capsys, processes
):
    if not processes:
        monkeypatch.setattr(architectures, "start", start_here)
        monkeypatch.setattr("sparsefield.training.loop.plot_training", lambda *arguments: None)
    jobs = min(2, len(architectures.usable_cores())) if processes else 1
    assert call(architectures, "v2", "v1", jobs=jobs) == 0, capsys.readouterr().err
    budget = json.loads(Path("runs/architectures/budget.json").read_text())
    results = json.loads(Path("out/architectures.json").read_text())
    for name, row in results["rows"].items():
        assert row["steps"] == budget["rows"][name]["steps"] >= 1
        assert row["images"] == 4 * row["steps"]
        assert row["cpu_seconds"] > 0
        assert row["data"] == ["fields.npy"]
    assert results["comparison"]["reference"] == "v2"
    assert {"v1", "v2", "tps"} <= results["comparison"]["contestants"].keys()
    assert not Path("runs/architectures/calibration").exists()
    page = Path("out/architectures.md").read_text()
    for words in ("## V2 against V1", "+3 to +5 dB", "## What wins", "CPU minutes", "tps"):
        assert words in page
    assert "order in which" not in page
    for name in ("scores", "means", "draws"):
        image = f"images/architectures/{name}.png"
        assert image in page
        assert (Path("out") / image).is_file()

    def work(*arguments):
        raise AssertionError("finished rows are trained no more")

    monkeypatch.setattr(architectures, "start", work)
    monkeypatch.setattr(architectures, "compare", lambda options: results["comparison"])
    Path("out/architectures.md").unlink()
    assert call(architectures, "v2", "v1") == 0
    assert Path("out/architectures.md").read_text() == page
    Path("out/images/architectures/scores.png").unlink()
    assert architectures.main(["--report-only", "--out", "out"]) == 0
    assert Path("out/images/architectures/scores.png").is_file()
    assert architectures.main(["--data", "fields.npy", "--validation", "held_out.npy"]) == 2
    assert "budget.json holds steps for 0.001 minutes" in capsys.readouterr().err


def made_up(v1=-1.0, speckle_ratio=2.0, morton=-0.2):
    """Results with given differences from V2, a morton row and a baseline."""

    def row(psnr, kind="model", **more):
        mean = {"psnr": psnr, "psnr_ci": [psnr - 1, psnr + 1], "ssim": 0.8, "ssim_ci": [0.7, 0.9]}
        return {"kind": kind, "mean": mean, "parameters": 10, "seconds": 1.0} | more

    def entry(value, ratio=1.0):
        ends = [value - 0.1, value + 0.1]
        significant = ends[0] * ends[1] > 0
        found = {"psnr": value, "psnr_ci": ends, "psnr_significant": significant}
        found |= {"sample_speckle_ratio": ratio}
        found |= {"sample_speckle_ratio_ci": [ratio * 0.9, ratio * 1.1]}
        return found | {"significant": significant}

    differences = {"v1": entry(v1, speckle_ratio), "v2-morton": entry(morton), "tps": entry(0.3)}
    contestants = {"v2": row(23.0), "v1": row(23.0 + v1), "v2-morton": row(23.0 + morton)}
    contestants["tps"] = row(23.3, "baseline")
    trained = {
        "preset": "v2-small", "overrides": [], "parameters": 10, "prediction": "velocity",
        "lr": 1e-3, "batch_size": 64, "steps": 5, "images": 320, "cpu_seconds": 1200.0, "seed": 0,
        "device": "cpu", "precision": "float32", "commit": "abc", "data": ["cifar10"],
    }  # fmt: skip
    rows = {"v2": trained, "v1": trained}
    rows["v2-morton"] = trained | {"overrides": ["model.order=morton"]}
    report = {
        "data": "held_out", "n": 2000, "density": 0.2, "split": "validation", "seed": 0,
        "reference": "v2", "comparisons": 3, "correction": "Holm", "contestants": contestants,
        "ranking": sorted(contestants, key=lambda name: -contestants[name]["mean"]["psnr"]),
        "differences": differences,
        "baseline": {"name": "tps", "differences": {n: entry(-0.3) for n in ("v1", "v2")}},
    }  # fmt: skip
    return {"minutes": 20, "validation": "held_out", "rows": rows, "comparison": report}


@pytest.fixture
def page(monkeypatch):
    """The module that writes the page."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("architectures_report")


@pytest.mark.parametrize(
    ("v1", "verdict"),
    [
        (-0.5, "| +0.50 dB [+0.40, +0.60] | not confirmed |"),
        (-3.5, "| +3.50 dB [+3.40, +3.60] | confirmed |"),
        (-3.05, "| +3.05 dB [+2.95, +3.15] | open |"),
        (0.5, "| -0.50 dB [-0.60, -0.40] | not confirmed, no gain shown |"),
    ],
)
def test_claims_are_judged_by_intervals(page, v1, verdict):
    assert verdict in page.render(made_up(v1=v1))


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (1.25, "| -20% [-27%, -11%] | not confirmed |"),
        (10.0, "| -90% [-91%, -89%] | confirmed |"),
        (0.5, "| +100% [+82%, +122%] | not confirmed, no gain shown |"),
    ],
)
def test_speckles_are_judged_by_the_ratio(page, ratio, verdict):
    assert verdict in page.render(made_up(speckle_ratio=ratio))


def test_models_that_the_budget_was_too_short_for_are_named(page):
    results = made_up(v1=-4.0)
    assert "too short" not in page.render(results)
    baseline = {"kind": "baseline", "mean": results["comparison"]["contestants"]["tps"]["mean"]}
    baseline["mean"] = baseline["mean"] | {"psnr": 20.0, "psnr_ci": [19.0, 21.0]}
    results["comparison"]["contestants"]["nearest"] = baseline
    assert "v1: below the nearest observed value (20.00 dB)." in page.render(results)


def test_baselines_that_win_and_orders_that_lose_are_said(page):
    text = page.render(made_up())
    assert "- tps, a baseline, has the highest PSNR, 23.30 dB." in text
    assert "The best baseline, tps, wins over v1, v2 on PSNR" in text
    assert "Significantly below the Hilbert order: morton (-0.20 [-0.30, -0.10] dB)." in text
    assert "| morton | 22.80 [21.80, 23.80] | -0.20 [-0.30, -0.10] \\* |" in text
    assert "| `v2-small` `model.order=morton` | 10 | velocity | 0.001 | 5 | 320 | 20.0 |" in text
    same = page.render(made_up(morton=0.05))
    assert "Not told apart from the Hilbert order: morton" in same


def test_the_committed_page_is_that_of_the_committed_results(page):
    results = ROOT / "docs" / "results" / "architectures.json"
    if not results.is_file():
        pytest.skip("no results yet")
    text = results.with_suffix(".md").read_text()
    assert text == page.render(json.loads(results.read_text()))


def test_published_results_name_no_place_on_a_machine():
    for file in sorted((ROOT / "docs" / "results").glob("*.json")):
        assert '"/' not in file.read_text(), file


def test_bad_input_is_one_line(architectures, capsys):
    needed = ["--data", "fields.npy", "--validation", "held_out.npy"]
    for arguments, words in (
        ([], "--data and --validation are needed"),
        (["--data", "gone.npy", "--validation", "held_out.npy"], "no data at gone.npy"),
        ([*needed, "--rows", "v3"], "unknown row 'v3'"),
        ([*needed, "--jobs", "1000"], "--jobs must be between 1 and"),
        ([*needed, "--minutes", "0"], "--minutes must be above 0"),
        (["--report-only", "--out", "nowhere"], "train first"),
    ):
        assert architectures.main(arguments) == 2
        seen = capsys.readouterr().err
        assert words in seen
        assert seen.count("\n") == 1


def test_a_row_that_fails_is_named_with_its_last_words(architectures, capsys):
    np.save("fields.npy", np.zeros((5, 8, 9, 3), np.uint8))
    assert call(architectures, "v2") == 2
    assert "v2-0: sparsefield: error: 1 training fields are fewer" in capsys.readouterr().err
