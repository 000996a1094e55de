"""Figures show the numbers of the results they are made from."""

import pytest
from tests.evaluation.test_comparison import CONFIG, PROTOCOL, fields, make_model  # noqa: F401

from sparsefield.core.errors import InputError
from sparsefield.evaluation.calibration import LEVELS
from sparsefield.evaluation.charts import calibration_figure, save_training_figure, score_figure
from sparsefield.evaluation.comparison import compare, evaluation
from sparsefield.evaluation.methods import evaluate_baselines, measure_baselines, measure_model
from sparsefield.evaluation.report import head


@pytest.fixture(scope="module")
def methods(fields):  # noqa: F811
    """Two models, and two baselines of which one is probabilistic."""
    found = {
        name: measure_model(make_model(fields, error), fields, PROTOCOL, config=CONFIG)
        for name, error in (("a", 0.2), ("b", 0.4))
    }
    return found | measure_baselines(fields, PROTOCOL, ["tps", "kriging"], config=CONFIG)


def test_the_chart_of_scores_has_a_bar_for_every_score(methods, fields):  # noqa: F811
    report = compare(head(fields, PROTOCOL), methods, "a")
    panels = {axes.get_title(): axes for axes in score_figure(report).axes if axes.get_title()}
    assert len(panels) == 6
    bars = panels["PSNR of the mean, dB (higher is better)"].patches
    assert [bar.get_x() + bar.get_width() for bar in bars] == pytest.approx(
        [report.methods[name].mean["psnr"].value for name in report.ranking]
    )
    assert len(panels["CRPS (lower is better)"].patches) == 3
    assert len(panels["PSNR of one sample, dB (higher is better)"].patches) == 2


def test_the_figure_of_calibration_shows_coverage_and_ranks(methods, fields):  # noqa: F811
    baselines = evaluate_baselines(fields, PROTOCOL, ["tps", "kriging"])
    report = evaluation(head(fields, PROTOCOL, model="a"), methods["a"], baselines)
    axes = calibration_figure(report).axes
    assert len(axes[0].patches) == 2 + 1
    points = axes[1].containers[0].lines[0].get_ydata()
    assert points.tolist() == [report.samples[name].value for name in LEVELS]
    labels = {line.get_label() for each in axes for line in each.lines}
    assert "kriging" in labels
    assert not any("tps" in label for label in labels)


def test_without_samples_or_unobserved_points_there_is_no_calibration(methods, fields):  # noqa: F811
    report = evaluation(head(fields, PROTOCOL, model="tps"), methods["tps"], {})
    with pytest.raises(InputError, match="there are none"):
        calibration_figure(report)


@pytest.mark.parametrize("target", ["all", "disjoint"])
def test_a_training_figure_is_written_for_either_target(fields, target, tmp_path):  # noqa: F811
    path = tmp_path / "figure.png"
    save_training_figure(make_model(fields, 0.3), fields, PROTOCOL, target=target, path=path)
    assert path.read_bytes().startswith(b"\x89PNG")
