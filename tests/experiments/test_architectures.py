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


@pytest.mark.slow
@pytest.mark.parametrize("processes", [False, True])
def test_rows_are_calibrated_trained_compared_and_reported(
    architectures, monkeypatch, capsys, processes
):
    if not processes:
        monkeypatch.setattr(architectures, "start", start_here)
        monkeypatch.setattr("sparsefield.training.loop.save_training_figure", skip)
    jobs = min(2, len(architectures.usable_cores())) if processes else 1
    assert call(architectures, "v2", "v1", jobs=jobs) == 0, capsys.readouterr().err
    budget = json.loads(Path("runs/architectures/budget.json").read_text())
    results = json.loads(Path("out/results/architectures.json").read_text())
    for name, row in results["rows"].items():
        assert row["steps"] == budget["rows"][name]["steps"] >= 1
        assert row["images"] == 4 * row["steps"]
        assert row["cpu_seconds"] > 0
        assert row["data"] == ["fields.npy"]
    assert results["comparison"]["reference"] == "v2"
    assert {"v1", "v2", "tps"} <= results["comparison"]["contestants"].keys()
    assert not Path("runs/architectures/calibration").exists()
    images = Path("out/docs/results/images/architectures")
    assert {path.stem for path in images.iterdir()} == {"scores", "means", "samples"}

    def work(*arguments):
        raise AssertionError("finished rows are trained no more")

    monkeypatch.setattr(architectures, "start", work)
    monkeypatch.setattr(architectures, "compare", lambda options: results["comparison"])
    assert call(architectures, "v2", "v1") == 0
    (images / "scores.png").unlink()
    assert architectures.main(["--report-only", "--out", "out"]) == 0
    assert (images / "scores.png").is_file()
    assert architectures.main(["--data", "fields.npy", "--validation", "held_out.npy"]) == 2
    assert "budget.json holds steps for 0.001 minutes" in capsys.readouterr().err


def skip(*arguments, **keywords):
    """Do nothing."""


@pytest.fixture
def report(monkeypatch):
    """The module that writes the tables of the page."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("architectures_report")


def test_the_committed_page_is_that_of_the_committed_results(report):
    assert report.write_tables(ROOT / "results", ROOT / "docs" / "results", check=True) == 0


def test_tables_rank_methods_and_mark_what_is_significant(report):
    tables = report.render(json.loads((ROOT / "results" / "architectures.json").read_text()))
    names = [line.split("|")[1].strip() for line in tables["scores"].splitlines()[2:]]
    assert names[:3] == ["hybrid", "*tps* (baseline)", "*kriging* (baseline)"]
    orders = [line.split("|")[1].strip() for line in tables["orders"].splitlines()[2:]]
    assert orders == ["raster", "morton", "hilbert", "given", "multi"]
    assert "| residual energy of the mean | -26% [-28%, -25%] \\* |" in tables["versions"]
    assert "| hybrid | +0.22 [+0.19, +0.25] \\* |" in tables["baseline"]


def test_published_results_name_no_place_on_a_machine():
    files = sorted((ROOT / "results").glob("*.json"))
    assert files
    for file in files:
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


@pytest.mark.slow
def test_a_row_that_fails_is_named_with_its_last_words(architectures, capsys):
    np.save("fields.npy", np.zeros((5, 8, 9, 3), np.uint8))
    assert call(architectures, "v2") == 2
    assert "v2-0: sparsefield: error: 1 training fields are fewer" in capsys.readouterr().err
