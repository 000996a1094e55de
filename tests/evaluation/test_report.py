"""The published JSON, and baselines on several processes."""

import subprocess

import numpy as np
import pytest

from sparsefield.baselines.interpolators import BASELINES
from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.evaluation import report
from sparsefield.evaluation.baseline_scores import choose_baselines, evaluate_baselines
from sparsefield.evaluation.protocol import Protocol


def test_summary_has_means_and_intervals_and_no_missing_scores():
    values = np.array([1.0, 2.0, 6.0])
    scores = {"psnr": values, "psnr_missing": np.full(3, np.nan), "seconds": values}
    summary = report.summarise(scores)
    assert summary["psnr"] == 3
    assert summary["psnr_ci"][0] < 3 < summary["psnr_ci"][1]
    assert summary["seconds"] == 9
    assert summary.keys() == {"psnr", "psnr_ci", "seconds"}


def test_pairs_are_pooled_before_they_are_divided_and_tables_are_nested():
    pairs = np.array([[1.0, 1.0], [3.0, 1.0], [2.0, 10.0]])
    summary = report.summarise({"delta_cal": pairs, "spread_skill": pairs})
    assert summary["delta_cal"] == pytest.approx(6 / 12)
    assert summary["spread_skill"] == pytest.approx(np.sqrt(6 / 12))
    low, high = summary["delta_cal_ci"]
    assert 0.2 <= low < 0.5 < high <= 3
    assert summary["spread_skill_ci"] == pytest.approx([low**0.5, high**0.5])
    assert report.summarise({"delta_cal": np.zeros((3, 2))}) == {}


@pytest.mark.parametrize(
    ("psnr", "words"),
    [
        (24.0, "ours beats every baseline; the best one, tps, by 1.00 dB"),
        (22.5, "tps wins over ours on PSNR, by 0.50 dB"),
        (20.0, "nearest, tps win over ours on PSNR; tps by 3.00 dB"),
    ],
)
def test_verdict_names_a_baseline_that_wins(psnr, words):
    baselines = {"nearest": {"psnr": 20.5}, "tps": {"psnr": 23.0}}
    assert words in report.verdict(
        {"model": "ours", "mean": {"psnr": psnr}, "baselines": baselines}
    )
    assert report.verdict({"model": "baselines", "baselines": baselines}) == ""


def test_code_version_is_a_commit_only_in_a_checkout_of_the_package(tmp_path, monkeypatch):
    package = tmp_path / "sparsefield"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(report.sparsefield, "__file__", str(package / "__init__.py"))
    version = report.sparsefield.__version__
    assert report.code_version() == version

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "start")
    assert report.code_version() == version
    git("add", ".")
    git("commit", "-q", "-m", "package")
    assert len(report.code_version()) == 40
    (package / "__init__.py").write_text("changed = 1\n")
    assert report.code_version().endswith("-dirty")


def test_baseline_scores_do_not_depend_on_the_processes():
    rng = np.random.default_rng(0)
    fields = FieldDataset(rng.integers(0, 256, (30, 7, 8, 3), dtype=np.uint8))
    done: list[int] = []
    one = evaluate_baselines(fields, Protocol(), ["nearest", "kriging"], processes=1)
    two = evaluate_baselines(fields, Protocol(), ["nearest", "kriging"], done.append, processes=2)
    assert sum(done) == len(fields)
    for name, scores in one.items():
        assert all(len(values) == len(fields) for values in scores.values())
        assert np.allclose(scores["psnr"], two[name]["psnr"], atol=1e-6)


def test_baselines_are_chosen_by_name():
    assert choose_baselines("none", 2) == []
    assert set(choose_baselines("all", 2)) <= set(BASELINES)
    assert choose_baselines("tps, kriging", 3) == ["tps", "kriging"]
    with pytest.raises(InputError, match="unknown baseline"):
        choose_baselines("spline", 2)
    with pytest.raises(InputError, match="biharmonic cannot run"):
        choose_baselines("biharmonic", 3)
