"""Samplers of one model at equal price, from scores to page."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from tests.evaluation.test_comparison import PROTOCOL, fields, make_model  # noqa: F401

from sparsefield.core.errors import InputError
from sparsefield.evaluation.protocol import evaluate_samples
from sparsefield.evaluation.samplers import compare_samplers
from sparsefield.figures.samplers import plot_dial

ROOT = Path(__file__).parents[2]
SAMPLERS = ("heun", "ab2", "ddim:eta=1")


@pytest.fixture
def report(fields):  # noqa: F811
    return compare_samplers(make_model(fields, 0.3), fields, PROTOCOL, SAMPLERS, (3, 7), 3)


def test_every_sampler_spends_the_budget(report):
    spent = {(row["sampler"], row["budget"]): (row["steps"], row["nfe"]) for row in report["rows"]}
    assert spent[("heun", 7)] == (4, 7)
    assert spent[("ab2", 7)] == spent[("ddim:eta=1", 7)] == (7, 7)
    assert len(spent) == 6


def test_scores_are_those_of_the_protocol(report, fields):  # noqa: F811
    model = make_model(fields, 0.3)
    expected, _, _ = evaluate_samples(model, fields, PROTOCOL, 3, "ab2", 7)
    (row,) = (r for r in report["rows"] if (r["sampler"], r["budget"]) == ("ab2", 7))
    for name in ("psnr", "crps", "speckle"):
        assert row[name] == pytest.approx(expected[name].mean()), name
        assert row[f"{name}_ci"][0] <= row[name] <= row[f"{name}_ci"][1]


def test_the_average_of_draws_is_better_than_one_and_smoother(report):
    for row in report["rows"]:
        assert row["psnr_average"] > row["psnr"]
        assert row["speckle_average"] < row["speckle"]


def test_the_chart_shows_every_sampler(report):
    many = [{**report["rows"][0], "sampler": f"s{index}"} for index in range(11)]
    labels = plot_dial({**report, "rows": many}).axes[0].get_legend_handles_labels()[1]
    assert labels == ["posterior mean", *(f"s{index}" for index in range(11))]


def test_differences_are_from_the_first_sampler_at_the_same_budget(report):
    for budget in (3, 7):
        rows = {r["sampler"]: r for r in report["rows"] if r["budget"] == budget}
        assert rows["heun"]["differences"] == {}
        for name in SAMPLERS[1:]:
            expected = rows[name]["crps"] - rows["heun"]["crps"]
            assert rows[name]["differences"]["crps"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("samplers", "budgets", "draws", "message"),
    [
        (("heun", "heun"), (3,), 3, "occurs twice"),
        (("heun",), (3,), 1, "at least 2 of them, not 1"),
        (("heun",), (0,), 3, "takes no step within 0 evaluations"),
        (("heun", "rk4"), (3,), 3, "unknown sampler 'rk4'"),
    ],
)
def test_bad_plans_are_refused_before_anything_runs(fields, samplers, budgets, draws, message):  # noqa: F811
    model = make_model(fields)
    with pytest.raises(InputError, match=message):
        compare_samplers(model, fields, PROTOCOL, samplers, budgets, draws)
    assert not model.flow.backbone.seen


def test_page_and_chart_come_from_the_results_alone(report, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    path = ROOT / "experiments" / "compare_samplers.py"
    spec = importlib.util.spec_from_file_location("compare_samplers", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.main(["--report-only", "--out", str(tmp_path)]) == 2
    (tmp_path / "samplers.json").write_text(json.dumps(report))
    assert script.main(["--report-only", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "samplers.md").read_text()
    for row in report["rows"]:
        assert f"| `{row['sampler']}` | {row['nfe']} | {row['psnr']:.2f} [" in page
        if row["differences"]:
            change = row["differences"]["speckle_ratio"] - 1
            assert f"{change:+.0%} [" in page
    assert (tmp_path / "images" / "samplers.png").stat().st_size > 10_000
    assert np.isfinite([row["crps"] for row in report["rows"]]).all()
