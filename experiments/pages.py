"""Parts of pages that come from results: tables between marks, numbers inside sentences.

A script writes its tables between its marks. Sentences are written by hand; a number in them
stands as `<!--=FILE/KEY/KEY FORMAT-->23.60<!--=-->` and is written anew from `results/FILE.json`.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from sparsefield.evaluation.differences import Differences, signed
from sparsefield.evaluation.report import Summary
from sparsefield.evaluation.serialise import unflatten
from sparsefield.metrics.statistics import Estimate

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
PAGES = ROOT / "docs" / "results"
_QUOTE = re.compile(r"(<!--=(\S+?) ([^\s>]+?)-->)[^<]*(<!--=-->)")


def read(name: str, folder: Path = RESULTS) -> Any:
    """Return what a file of results holds."""
    return json.loads((folder / f"{name}.json").read_text())


def read_as(kind: type[T], name: str, folder: Path = RESULTS) -> T:
    """Return a typed result."""
    return unflatten(kind, read(name, folder))


def marks(script: str, part: str = "") -> tuple[str, str]:
    """Return the lines around what a script of this folder writes."""
    name = f"{script} {part}".strip()
    return f"<!-- results: made by experiments/{name} -->", "<!-- end of results -->"


def insert(text: str, script: str, results: str, part: str = "") -> str:
    """Put results between the marks of a page.

    Raises:
        ValueError: The page has no such marks.
    """
    begin, end = marks(script, part)
    before, mark, rest = text.partition(begin)
    if not mark or end not in rest:
        raise ValueError(f"the page has no '{begin}' before '{end}'")
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{results}\n{end}{after}"


def quote(text: str, folder: Path = RESULTS) -> str:
    """Write the numbers of sentences anew.

    Raises:
        KeyError: A result that is quoted does not exist.
    """

    def write(match: "re.Match[str]") -> str:
        begin, path, form, end = match.groups()
        return f"{begin}{_format(_find(path, folder), form)}{end}"

    return _QUOTE.sub(write, text)


def _find(path: str, folder: Path) -> Any:
    name, *keys = path.split("/")
    value = read(name, folder)
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def _format(value: Any, form: str) -> str:
    if isinstance(value, list):
        ends = [_format(part, form) for part in value]
        return f"[{', '.join(ends)}]" if all(ends) else ""
    if value is None:  # what is unknown, as an interval of one day
        return ""
    return format(value, form)


def update(
    page: Path,
    script: str,
    parts: Mapping[str, Callable[[], str]],
    *,
    check: bool | None = None,
    folder: Path = RESULTS,
) -> int:
    """Rewrite the generated parts and the quoted numbers of a page.

    Args:
        page: The page.
        script: Script of this folder whose marks it has.
        parts: What stands between the marks of each part; "" for a page with one part.
        check: Change nothing, and return 1 if anything would change; --check by default.
        folder: Where results are.
    """
    text = page.read_text()
    updated = text
    for part, render in parts.items():
        updated = insert(updated, script, render(), part)
    updated = quote(updated, folder)
    if "--check" in sys.argv[1:] if check is None else check:
        return int(text != updated)
    page.write_text(updated)
    return 0


def interval(summary: Summary | None, score: str, digits: int, factor: float = 1) -> str:
    """Write a score with its interval; nothing where there is none."""
    found = summary.get(score) if summary else None
    return "" if found is None else with_interval(found, digits, factor)


def with_interval(found: Estimate, digits: int, factor: float = 1, sign: str = ",") -> str:
    """Write an estimate with its interval."""
    scaled = Estimate(*(factor * x for x in (found.value, *found.interval)))
    return scaled.text(f"{sign}.{digits}f")


def score(row: Mapping[str, Any], name: str, form: str) -> str:
    """Write a score of a report with its interval; nothing of what is unknown."""
    if row.get(name) is None:
        return ""
    return with_ends(row[name], row.get(f"{name}_ci"), form)


def with_ends(value: float, ends: Sequence[float | None] | None, form: str) -> str:
    """Write a number with its interval, as JSON has them: null where it is unknown."""
    known = (math.nan if x is None else x for x in ends or (None, None))
    return Estimate(value, *known).text(form)


def difference(differences: Differences | None, score: str, digits: int = 2) -> str:
    """Write a difference with its interval, and a mark if it is significant."""
    found = differences.get(score) if differences else None
    if found is None:
        return ""
    return signed(found, digits) + (" \\*" if found.significant else "")


def share(differences: Differences | None, score: str) -> str:
    """Write the ratio of two energies as a change in per cent, with its interval and mark."""
    found = differences.get(score) if differences else None
    if found is None or found.ratio is None:
        return ""
    change = Estimate(*(x - 1 for x in (found.ratio.value, *found.ratio.interval)))
    return change.text("+.0%") + (" \\*" if found.significant else "")


def compress_chart(path: Path) -> None:
    """Give the PNG of a chart, which has few colours, a palette: about a third of its size."""
    with Image.open(path) as image:
        small = image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    small.save(path, optimize=True)


def compress_picture(path: Path) -> None:
    """Put a WebP in the place of the PNG of photographs: about a fifth of its size."""
    with Image.open(path) as image:
        image.convert("RGB").save(path.with_suffix(".webp"), quality=88, method=6)
    path.unlink()


def short(commit: str) -> str:
    """Shorten a commit, but keep that its files had been changed."""
    number, mark, state = commit.partition("-")
    return number[:12] + mark + state


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Write a table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
