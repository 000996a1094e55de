"""What the README says is run, as written."""

import re
import subprocess
import sys
from pathlib import Path

from sparsefield.cli import COMMANDS
from sparsefield.models import FITTED, MODELS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = (ROOT / "docs" / "python.md").read_text()


def test_the_examples_run_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, *others = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert sum(bool(line) for line in first.splitlines()) == 5
    names: dict[str, object] = {}
    exec(first, names)
    field = names["field"]
    assert field.mean.shape == field.std.shape == (64 * 64, 3)
    assert (tmp_path / "field.png").stat().st_size > 10_000
    for example in others:
        exec(example, names)


def test_the_examples_of_the_python_page_run_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", PYTHON, re.DOTALL):
        exec(example, names)
    low, high, field = (names[name] for name in ("low", "high", "field"))
    assert ((low <= field.mean) & (field.mean <= high)).float().mean() > 0.8
    assert (tmp_path / "field.npz").stat().st_size > 10_000


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_every_command_it_names_exists():
    lines = re.findall(r"^sparsefield (\S.*?)(?:  .*)?$", README, re.MULTILINE)
    commands = {part.split()[0] for line in lines for part in line.split(" | ")}
    assert len(commands) >= 8
    assert commands <= set(COMMANDS)


def test_every_file_it_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing


def test_models_it_trains_exist():
    presets = re.findall(r"sparsefield train ([a-z0-9-]+)", README)
    for preset in presets:
        assert preset.split("-")[0] in MODELS | FITTED


def test_its_numbers_are_those_of_the_results():
    command = [sys.executable, ROOT / "experiments" / "update_readme.py", "--check"]
    assert subprocess.run(command).returncode == 0
