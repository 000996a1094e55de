"""Generated parts of pages: put between marks, never edited by hand."""

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent


def marks(script: str) -> tuple[str, str]:
    """Return the lines around what a script of this folder writes."""
    return f"<!-- results: made by benchmarks/{script} -->", "<!-- end of results -->"


def insert(text: str, script: str, results: str) -> str:
    """Put results between the marks of a page."""
    begin, end = marks(script)
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{results}\n{end}{after}"


def update(page: Path, script: str, render: Callable[[], str]) -> int:
    """Rewrite the generated part of a page; with --check only return 1 if it would change."""
    text = page.read_text()
    updated = insert(text, script, render())
    if "--check" in sys.argv[1:]:
        return int(text != updated)
    page.write_text(updated)
    return 0
