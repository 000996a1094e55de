"""The guides and the pages on extending the package run as written."""

import re
import tomllib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import sparsefield as sf
from sparsefield.data.formats import FORMATS, write_field

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "extending").glob("*.md"))
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
NEEDED = {"estimator": ["sklearn"], "xarray": ["xarray", "dask"]}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def registry():
    """Let a page add a format, and forget it after the test."""
    before = dict(FORMATS)
    yield
    FORMATS.clear()
    FORMATS.update(before)


def save_modules(page, folder):
    """Save the first block of a page under the name that the page gives it."""
    for name in re.findall(r"^Save this as `(\w+\.py)`", page.read_text(), re.MULTILINE):
        (folder / name).write_text(blocks(page, "python")[0])


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_three_steps_that_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    save_modules(page, tmp_path)
    steps = re.findall(r"^## (\d)\. ", page.read_text(), re.MULTILINE)
    assert steps == ["1", "2", "3"]
    names = {}
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), names)


def test_the_three_contracts_have_a_page():
    assert [page.stem for page in PAGES] == ["backbone", "format", "sampler"]


@pytest.mark.usefixtures("registry")
def test_the_format_reads_what_it_wrote(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    page = ROOT / "docs" / "extending" / "format.md"
    save_modules(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(page, "python")[1], page.name, "exec"), {})
    values = np.random.default_rng(0).normal(size=(3, 5, 1))
    write_field(tmp_path / "field.asc", {"mean": values})
    obs = sf.read("field.asc")
    assert obs.grid == (3, 5)
    np.testing.assert_array_equal(obs.values.reshape(3, 5, 1), values)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_runs(page, tmp_path, monkeypatch):
    for package in NEEDED.get(page.stem, []):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    greys = PIL.Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    greys.convert("RGB").save("photo.jpg")  # what a reader has
    greys.save("mask.png")
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
