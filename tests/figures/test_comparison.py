"""Charts of scores."""

import math

import pytest

from sparsefield.figures.comparison import BASELINE, Bar, Chart, plot_scores


def test_every_bar_ends_at_its_score_and_what_is_not_known_has_none():
    bars = [
        Bar("ours", 23.0, (22.0, 24.0)),
        Bar("perfect", math.inf, (math.inf, math.inf)),
        Bar("none"),
        Bar("tps", 21.0, (20.5, 21.5), BASELINE),
    ]
    charts = [Chart(f"chart {number}", 2, bars, from_zero=number > 1) for number in range(4)]
    figure = plot_scores(charts, "made up")
    shown = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in shown] == [f"chart {number}" for number in range(4)]
    for axes in shown:
        ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
        assert ends == pytest.approx([23.0, 21.0])
        assert [text.get_text() for text in axes.texts] == ["  23.00", "  21.00"]
    labels = [label.get_text() for label in shown[0].get_yticklabels()]
    assert labels == ["ours", "perfect", "none", "tps"]
    assert shown[3].get_xlim()[0] == 0 < shown[0].get_xlim()[0]
    figure.draw_without_rendering()
