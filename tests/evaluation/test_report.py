"""The published JSON, and baselines on several processes."""

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from sparsefield.baselines.registry import BASELINES
from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.evaluation.baseline_scores import choose_baselines
from sparsefield.evaluation.comparison import Evaluation, best_baseline
from sparsefield.evaluation.differences import Difference
from sparsefield.evaluation.methods import evaluate_baselines
from sparsefield.evaluation.report import Head, Summary, summarise, write_report
from sparsefield.evaluation.serialise import INLINE, flatten
from sparsefield.evaluation.task import Protocol
from sparsefield.metrics.statistics import Estimate

HEAD = Head("photos", 3, 0.2, "validation", 0, "cpu", "abc", "ours")


def summary(psnr):
    return Summary({"psnr": Estimate(psnr, psnr - 1, psnr + 1)})


def test_summary_has_means_and_intervals_and_no_missing_scores():
    values = np.array([1.0, 2.0, 6.0])
    found = summarise({"psnr": values, "psnr_missing": np.full(3, np.nan)}, seconds=9.0)
    assert found["psnr"].value == 3
    assert found["psnr"].low < 3 < found["psnr"].high
    assert flatten(found).keys() == {"psnr", "psnr_ci", "seconds"}


def test_pairs_are_pooled_before_they_are_divided():
    pairs = np.array([[1.0, 1.0], [3.0, 1.0], [2.0, 10.0]])
    found = summarise({"delta_cal": pairs, "spread_skill": pairs})
    assert found["delta_cal"].value == pytest.approx(6 / 12)
    assert found["spread_skill"].value == pytest.approx(np.sqrt(6 / 12))
    low, high = found["delta_cal"].interval
    assert 0.2 <= low < 0.5 < high <= 3
    assert found["spread_skill"].interval == pytest.approx((low**0.5, high**0.5))
    assert flatten(summarise({"delta_cal": np.zeros((3, 2))})) == {}


def test_results_are_flattened_by_one_rule():
    @dataclass
    class Part:
        low: float = field(metadata={"key": "from"})
        score: Estimate
        absent: float | None = None

    @dataclass
    class Whole:
        parts: list[Part]
        scores: dict[str, Difference] = field(metadata=INLINE)
        baselines: dict[str, int] = field(metadata={"also": "floors"})
        ranks: np.ndarray

    ratio = Estimate(0.5, 0.25, math.inf)
    difference = Difference(1.0, math.nan, 2.0, p=0.01, significant=True, ratio=ratio)
    parts = [Part(-math.inf, Estimate(3.0, 2.0, 4.0))]
    result = Whole(parts, {"speckle": difference}, {"tps": 1}, np.array([1.0, 2.0]))
    assert flatten(result) == {
        "parts": [{"from": None, "score": 3.0, "score_ci": [2.0, 4.0]}],
        "speckle": 1.0,
        "speckle_ci": [None, 2.0],
        "speckle_p": 0.01,
        "speckle_significant": True,
        "speckle_ratio": 0.5,
        "speckle_ratio_ci": [0.25, None],
        "baselines": {"tps": 1},
        "floors": {"tps": 1},
        "ranks": [1.0, 2.0],
    }


def test_a_perfect_score_is_null_in_strict_json(tmp_path):
    perfect = summarise({"psnr": np.full(3, np.inf), "mae": np.zeros(3)})
    evaluation = Evaluation(HEAD, 0, 1.5, mean=perfect, baselines={"tps": summary(20.0)})
    write_report(tmp_path / "out.json", evaluation)

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "out.json").read_text()
    report = json.loads(text, parse_constant=refuse)
    assert report["mean"]["psnr"] is None
    assert report["mean"]["psnr_ci"] == [None, None]
    assert report["mean"]["mae"] == 0
    assert report["floors"] == report["baselines"] == {"tps": {"psnr": 20.0, "psnr_ci": [19, 21]}}


@pytest.mark.parametrize(
    ("psnr", "words"),
    [
        (24.0, "ours beats every baseline; the best one, tps, by 1.00 dB"),
        (22.5, "tps wins over ours on PSNR, by 0.50 dB"),
        (20.0, "nearest, tps win over ours on PSNR; tps by 3.00 dB"),
    ],
)
def test_a_baseline_that_wins_is_named(psnr, words):
    baselines = {"nearest": summary(20.5), "tps": summary(23.0)}
    assert words in best_baseline("ours", summary(psnr), baselines)
    assert best_baseline("baselines", None, baselines) == ""
    assert best_baseline("ours", summary(psnr), {}) == ""


def test_baseline_scores_do_not_depend_on_the_processes():
    rng = np.random.default_rng(0)
    fields = FieldDataset(rng.integers(0, 256, (30, 7, 8, 3), dtype=np.uint8))
    done: list[int] = []
    names = ["nearest", "kriging"]
    one = evaluate_baselines(fields, Protocol(), names, processes=1)
    two = evaluate_baselines(fields, Protocol(), names, progress=done.append, processes=2)
    assert sum(done) == len(fields)
    for name, result in one.items():
        assert all(len(values) == len(fields) for values in result.scores.values())
        np.testing.assert_allclose(result.scores["psnr"], two[name].scores["psnr"], atol=1e-6)


def test_baselines_are_chosen_by_name():
    assert choose_baselines("none", 2) == []
    assert set(choose_baselines("all", 2)) <= set(BASELINES)
    assert choose_baselines("tps, kriging", 3) == ["tps", "kriging"]
    with pytest.raises(InputError, match="unknown baseline"):
        choose_baselines("spline", 2)
    with pytest.raises(InputError, match="biharmonic cannot run"):
        choose_baselines("biharmonic", 3)
