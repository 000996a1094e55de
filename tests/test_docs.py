"""The pages on extending the package run as written."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "extending").glob("*.md"))


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_three_steps_that_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps = re.findall(r"^## (\d)\. ", page.read_text(), re.MULTILINE)
    assert steps == ["1", "2", "3"]
    names = {}
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), names)


def test_the_backbone_is_named_in_a_preset_and_built(tmp_path, monkeypatch):
    pytest.importorskip("sparsefield.models.external")
    from sparsefield.models import MODELS, build_model, trust

    page = ROOT / "docs" / "extending" / "backbone.md"
    (tmp_path / "mine.py").write_text(blocks(page, "python")[0])
    monkeypatch.syspath_prepend(tmp_path)
    (preset,) = blocks(page, "toml")
    settings = tomllib.loads(preset)["model"]
    trust(settings["name"])
    backbone = build_model(**settings, channels=2)
    assert type(backbone).__name__ == settings["name"].partition(":")[2]
    assert settings["name"] not in MODELS
