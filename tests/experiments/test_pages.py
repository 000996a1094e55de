"""Numbers of results on pages, with their intervals where they have any."""

import importlib
import json
import math
from pathlib import Path

import pytest

from sparsefield.metrics.statistics import Estimate

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    """Return a script by its name."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module


@pytest.mark.parametrize("ends", [None, [None, None]])
def test_one_day_gives_a_number_without_an_interval(script, ends):
    row = {"rmse": 0.5} | ({} if ends is None else {"rmse_ci": ends})
    for text in (
        script("pages").score(row, "rmse", ".3f"),
        script("pages").with_ends(0.5, ends, ".3f"),
    ):
        assert text == "0.500"
    assert script("bundle_model").format_score(row, "rmse") == "0.50"
    assert script("pages").score({"rmse": 0.5, "rmse_ci": [0.25, 1]}, "rmse", "+.2f") == (
        "+0.50 [+0.25, +1.00]"
    )
    assert script("pages").score({}, "rmse", ".3f") == ""


def test_an_estimate_may_have_no_interval(script):
    alone, known = Estimate(0.5, math.nan, math.nan), Estimate(0.5, 0.25, 1.0)
    write = script("pages").with_interval
    assert write(alone, 1, 1e3) == "500.0"
    assert write(known, 2, sign="+") == "+0.50 [+0.25, +1.00]"


def test_a_quoted_interval_that_is_unknown_is_left_out(script, tmp_path):
    (tmp_path / "one.json").write_text(json.dumps({"a": 1.5, "a_ci": [None, None], "b": None}))
    text = "<!--=one/a .1f-->9<!--=--><!--=one/a_ci .1f-->[8, 9]<!--=--><!--=one/b .1f-->8<!--=-->"
    found = script("pages").quote(text, tmp_path)
    assert (
        found
        == "<!--=one/a .1f-->1.5<!--=--><!--=one/a_ci .1f--><!--=--><!--=one/b .1f--><!--=-->"
    )
    assert script("pages").quote(found, tmp_path) == found


def test_a_page_of_one_day_has_one_day(script):
    row = {"rmse": 0.5, "rmse_ci": [None, None], "crps": 0.25, "crps_ci": [None, None]}
    found = {
        "density": 0.03, "n": 1, "data": "t2m", "days": 1, "seed": 0, "device": "cpu",
        "commit": "abc", "mean": {"rmse": 0.5, "rmse_ci": [None, None]}, "predictive": {},
        "baselines": {"kriging": row}, "differences": {"kriging": row},
    }  # fmt: skip
    lines = script("era5").section("moving", found, found)
    assert lines[2].startswith("1 field of t2m on 1 day, seed 0")
    assert lines[-1] == "| kriging | 0.500 |  | 0.250 |  |  | 0.500 | 0.250 |"


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs" / "results").glob("*.md")), ids=lambda p: p.stem
)
def test_a_page_quotes_what_its_results_say(script, page):
    text = page.read_text()
    assert script("pages").quote(text) == text


def test_the_page_of_resilience_shows_its_results(script, monkeypatch):
    pytest.importorskip("httpx")
    monkeypatch.setattr("sys.argv", ["resilience.py", "--check"])
    assert script("resilience").main() == 0
    assert script("pages").read("resilience")["soak"]["faults"] == []
