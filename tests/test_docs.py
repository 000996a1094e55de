"""The pages on extending the package run as written."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import sparsefield as sf

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


def test_the_backbone_is_trained_by_its_preset(tmp_path, monkeypatch):
    from sparsefield.cli import main
    from sparsefield.inference.model import load

    page = ROOT / "docs" / "extending" / "backbone.md"
    (tmp_path / "mine.py").write_text(blocks(page, "python")[0])
    (tmp_path / "mine.toml").write_text(blocks(page, "toml")[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).integers(0, 256, (12, 8, 9, 3), dtype=np.uint8)
    np.save("data.npy", values)
    settings = ["data.validation=4", "data.size=[8,9]", "epochs=1", "batch_size=4"]
    assert main(["train", "mine.toml", "--data", "data.npy", "--run", "run", *settings]) == 0
    model = load("run")
    assert type(model.flow.backbone).__name__ == "KernelMean"
    field = model.condition(sf.Observation([[0.1, 0.2]], [[0.3, 0.4, 0.5]])).sample(n=2)
    assert field.samples.shape == (2, 72, 3)
