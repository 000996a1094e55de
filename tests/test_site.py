"""The documentation: what its pages show runs, and their links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sparsefield.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
START = sorted((DOCS / "start").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", START, ids=lambda page: page.stem)
def test_a_first_page_runs_as_written(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, text in BLOCK.findall(page.read_text()):
        if language == "python":
            exec(compile(text, page.name, "exec"), names)
        elif language == "csv":
            Path(f"{page.stem}.csv").write_text(text)
        elif language == "bash":
            for line in text.splitlines():
                assert main(shlex.split(line)[1:]) == 0, line


def test_every_kind_of_user_has_a_first_page():
    assert [page.stem for page in START] == [
        "photograph",
        "research",
        "scan",
        "stations",
        "volume",
    ]


def test_links_between_pages_lead_to_files():
    dead = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in DOCS.rglob("*.md")
        for link in re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert dead == []


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_shows_equations(tmp_path):
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("pymdownx")
    pytest.importorskip("latex2mathml")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    for page in ("concepts.html", "reference/samplers.html"):
        text = (tmp_path / page).read_text()
        assert "<math" in text and ":math:" not in text and ".. math" not in text
    assert (tmp_path / "reference" / "commands.html").stat().st_size > 10_000
