"""Samplers of one model at equal price, from scores to page."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
from tests.evaluation.test_comparison import PROTOCOL, fields, make_model  # noqa: F401

from sparsefield.core.errors import InputError
from sparsefield.evaluation.charts import trade_off_figure
from sparsefield.evaluation.methods import evaluate_samples
from sparsefield.evaluation.predictors import SamplingConfig
from sparsefield.evaluation.report import write_report
from sparsefield.evaluation.samplers import compare_samplers, plan_budgets

ROOT = Path(__file__).parents[2]
SAMPLERS = ("heun", "ab2", "ddim:eta=1")
PARTS = ("scores", "differences")


@pytest.fixture(scope="module")
def report(fields):  # noqa: F811
    plan = plan_budgets(SAMPLERS, (3, 7))
    return compare_samplers(make_model(fields, 0.3), fields, PROTOCOL, plan=plan, samples=3)


def test_every_sampler_spends_the_budget(report):
    spent = {(row.sampler, row.budget): (row.steps, row.nfe) for row in report.rows}
    assert spent[("heun", 7)] == (4, 7)
    assert spent[("ab2", 7)] == spent[("ddim:eta=1", 7)] == (7, 7)
    assert len(spent) == 6


def test_scores_are_those_of_the_protocol(report, fields):  # noqa: F811
    model = make_model(fields, 0.3)
    config = SamplingConfig(3, "ab2", 7)
    expected = evaluate_samples(model, fields, PROTOCOL, config=config).scores
    (row,) = (row for row in report.rows if (row.sampler, row.budget) == ("ab2", 7))
    for name in ("psnr", "crps", "speckle"):
        found = row.scores[name]
        assert found.value == pytest.approx(expected[name].mean()), name
        assert found.low <= found.value <= found.high


def test_the_average_of_samples_is_better_than_one_and_smoother(report):
    for row in report.rows:
        assert row.scores["psnr_average"].value > row.scores["psnr"].value
        assert row.scores["speckle_average"].value < row.scores["speckle"].value


def test_the_chart_shows_every_sampler(report):
    many = [replace(report.rows[0], sampler=f"s{index}") for index in range(11)]
    figure = trade_off_figure(replace(report, rows=many))
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["posterior mean", *(f"s{index}" for index in range(11))]


def test_differences_are_from_the_first_sampler_at_the_same_budget(report):
    for budget in (3, 7):
        rows = {row.sampler: row for row in report.rows if row.budget == budget}
        assert rows["heun"].differences is None
        for name in SAMPLERS[1:]:
            expected = rows[name].scores["crps"].value - rows["heun"].scores["crps"].value
            assert rows[name].differences.scores["crps"].value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("samplers", "budgets", "samples", "message"),
    [
        (("heun", "heun"), (3,), 3, "occurs twice"),
        (("heun",), (3,), 1, "at least 2 of them, not 1"),
        (("heun",), (0,), 3, "takes no step within 0 evaluations"),
        (("heun", "rk4"), (3,), 3, "unknown sampler 'rk4'"),
    ],
)
def test_bad_plans_are_refused_before_anything_runs(fields, samplers, budgets, samples, message):  # noqa: F811
    model = make_model(fields)
    with pytest.raises(InputError, match=message):
        plan = plan_budgets(samplers, budgets)
        compare_samplers(model, fields, PROTOCOL, plan=plan, samples=samples)
    assert not model.flow.backbone.seen


@pytest.fixture
def script(monkeypatch):
    """The script that compares samplers and writes the page."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("compare_samplers")


def test_page_and_chart_come_from_the_results_alone(report, script, tmp_path):
    call = ["--report-only", "--out", str(tmp_path)]
    assert script.main(call) == 2
    write_report(tmp_path / "results" / "samplers.json", report)
    assert script.main(call) == 0
    pages = tmp_path / "docs" / "results"
    assert (pages / "images" / "samplers.png").stat().st_size > 5_000
    marks = (importlib.import_module("pages").marks(script.SCRIPT, part) for part in PARTS)
    (pages / "samplers.md").write_text("\n".join("\n".join(pair) for pair in marks))
    assert script.main(["--check", "--out", str(tmp_path)]) == 1
    assert script.main(call) == 0
    assert script.main(["--check", "--out", str(tmp_path)]) == 0
    page = (pages / "samplers.md").read_text()
    for row in report.rows:
        assert f"| `{row.sampler}` | {row.nfe} | {row.scores['psnr'].value:.2f} [" in page
        if row.differences:
            change = row.differences.scores["speckle"].ratio.value - 1
            assert f"{change:+.0%} [" in page


def test_the_committed_page_is_that_of_the_committed_results(script):
    assert script.main(["--check"]) == 0
