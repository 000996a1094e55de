"""The notebooks were executed as they are committed, and run again from nothing."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
KILOBYTES = {"objectives": 400, "prototypes": 600}
# Folders of whoever executed a notebook.
OWN_PATHS = re.compile(r"/home/|/root/|/tmp/|/work/|/Users/|/private/|[A-Z]:\\\\|site-packages")
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == set(KILOBYTES)


@every_notebook
def test_a_notebook_was_executed_from_top_to_bottom_without_an_error(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)


@every_notebook
def test_a_notebook_is_small_and_says_nothing_of_the_machine(path):
    text = path.read_text()
    assert len(text) < 1000 * KILOBYTES[path.stem]
    pictures = re.sub(r'"image/png": "[^"]*"', "", text)
    assert OWN_PATHS.findall(pictures) == []


@every_notebook
def test_a_page_links_to_a_notebook(path):
    pages = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    assert f"examples/{path.name})" in pages


@pytest.mark.slow
@pytest.mark.timeout(3600)
@every_notebook
def test_a_notebook_runs(path, tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(
        notebook, timeout=3000, kernel_name="python3", resources=where
    )
    client.execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
