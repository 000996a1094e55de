"""What counts as a change of settings when a run resumes."""

import pytest

from sparsefield.models import ALIASES
from sparsefield.training.changes import find_changes
from sparsefield.training.config import load_config


@pytest.mark.parametrize(("alias", "key"), ALIASES.items())
def test_another_name_of_the_same_model_is_no_change(alias, key):
    before = load_config(f"{key}-small")
    assert find_changes(before, load_config(f"{key}-small", [f"model.name={alias}"])) == []
    other = load_config(f"{key}-small", ["model.width=8"])
    assert [change.key for change in find_changes(before, other)] == ["model.width"]
