"""Generated pages and parts of pages: put between marks, never edited by hand."""

import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsefield.evaluation.comparison import signed

ROOT = Path(__file__).parent.parent


def marks(script: str) -> tuple[str, str]:
    """Return the lines around what a script of this folder writes."""
    return f"<!-- results: made by experiments/{script} -->", "<!-- end of results -->"


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


def paragraph(text: str) -> str:
    """Put white space in order and break lines."""
    return textwrap.fill(" ".join(text.split()), 110, break_on_hyphens=False)


def interval(row: Mapping[str, Any], key: str, digits: int) -> str:
    """Write a score with its interval; energies in millionths."""
    if key not in row:
        return ""
    scale = 1e6 if key == "speckle" else 1
    low, high = (scale * end for end in row[f"{key}_ci"])
    return f"{scale * row[key]:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def difference(entry: Mapping[str, Any], score: str, digits: int = 2) -> str:
    """Write a difference with its interval, and a mark if it is significant."""
    if score not in entry:
        return ""
    return signed(entry, score, digits) + (" \\*" if entry[f"{score}_significant"] else "")


def bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
