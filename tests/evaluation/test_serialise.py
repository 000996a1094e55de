"""Published results are read back as they were written."""

import json
from pathlib import Path

import pytest

from sparsefield.evaluation.comparison import Comparison, Evaluation
from sparsefield.evaluation.samplers import SamplerComparison
from sparsefield.evaluation.serialise import flatten, tidy, unflatten
from sparsefield.evaluation.superres import SuperresReport

RESULTS = Path(__file__).parents[2] / "results"
EVALUATIONS = ("default", "default_samples", "default-32", "default-32_samples")
KINDS = {
    **dict.fromkeys(EVALUATIONS, Evaluation),
    "samplers": SamplerComparison,
    **{path.stem: SuperresReport for path in RESULTS.glob("superres_[!c]*.json")},
}


def without_old_words(value):
    """Leave out the keys of one release before, which stand beside the new ones."""
    if isinstance(value, dict):
        return {k: without_old_words(v) for k, v in value.items() if k not in ("floors", "floor")}
    return [without_old_words(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", KINDS)
def test_a_published_result_comes_back_as_it_was(name):
    data = json.loads((RESULTS / f"{name}.json").read_text())
    assert without_old_words(flatten(unflatten(KINDS[name], data))) == without_old_words(data)


def test_a_comparison_comes_back_and_so_does_one_of_the_release_before():
    data = json.loads((RESULTS / "architectures.json").read_text())["comparison"]
    assert without_old_words(flatten(unflatten(Comparison, data))) == data
    old = {**data, "floor": data["baseline"]}
    del old["baseline"]
    assert without_old_words(flatten(unflatten(Comparison, old))) == data


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_results_are_tidy_strict_json(path):
    text = path.read_text()
    data = json.loads(text, parse_constant=lambda constant: pytest.fail(constant))
    assert tidy(data) + "\n" == text
    assert text.count("\n") < 600  # about fifteen for each of thirty methods
