"""Write the measured tables of docs/scan.md from docs/results/scan.json; never edit them by hand.

    sparsefield bench scan --threads 2 --json docs/results/scan.json
    python benchmarks/scan_report.py [--check]

--check changes nothing and exits with 1 if the page differs from the results.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "scan.md"
RESULTS = ROOT / "docs" / "results" / "scan.json"
BEGIN, END = "<!-- results: made by benchmarks/scan_report.py -->", "<!-- end of results -->"


def main() -> int:
    text = PAGE.read_text()
    updated = insert(text, render(json.loads(RESULTS.read_text())))
    if "--check" in sys.argv[1:]:
        return int(text != updated)
    PAGE.write_text(updated)
    return 0


def insert(text: str, tables: str) -> str:
    """Put the tables between the marks of the page."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


def render(report: dict[str, Any]) -> str:
    """Write one table per shape as Markdown, fastest training first, and what was refused."""
    head = (
        f"{report['device']}, {report['threads']} threads, PyTorch {report['torch']}, float32, "
        f"median of {report['repeats']}, commit `{report['commit'][:12]}`."
    )
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in report["rows"]))
    tables = [
        render_shape(shape, [row for row in report["rows"] if tuple(row["shape"]) == shape])
        for shape in shapes
    ]
    return "\n\n".join([head, *tables])


def render_shape(shape: tuple[int, ...], rows: list[dict[str, Any]]) -> str:
    """Write the table of one shape (B, L, D, N)."""
    items, length, width, _ = shape
    lines = [
        f"**(B, L, D, N) = {shape}**",
        "",
        "| backend | forward, ms | forward + backward, ms | ns per token and channel "
        "| extra memory, sizes of u |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["forward_backward"].get("seconds", float("inf"))):
        both = row["forward_backward"]
        per_token = cell(both, "seconds", 1e9 / (items * length * width), 2)
        memory = cell(both, "peak_bytes", 1 / (4 * items * length * width), 1)
        times = (cell(part, "seconds", 1e3, 1) for part in (row["forward"], both))
        lines.append(f"| `{row['backend']}` | {' | '.join([*times, per_token, memory])} |")
    refusals = {
        f"`{row['backend']}` refuses: {row[part]['refused']}."
        for row in rows
        for part in ("forward", "forward_backward")
        if "refused" in row[part]
    }
    return "\n".join([*lines, *(f"\n{refusal}" for refusal in sorted(refusals))])


def cell(result: dict[str, Any], key: str, scale: float, digits: int) -> str:
    """Write a measured value in the unit of the column, a dash if there is none."""
    value = result.get(key)
    return "–" if value is None else f"{scale * value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
