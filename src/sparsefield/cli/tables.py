"""The tables of scores that evaluations print."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from sparsefield.core.words import counted

if TYPE_CHECKING:
    from sparsefield.evaluation.report import Summary
    from sparsefield.evaluation.samplers import SamplerComparison, SamplerRow
    from sparsefield.evaluation.series import Stations

FORMATS = {
    "psnr": ".2f",
    "psnr_missing": ".2f",
    "ssim": ".3f",
    "mae": ".4f",
    "crps": ".4f",
    "detail": ".2f",
    "artefact": ".2f",
    "seconds": ".1f",
}
# Notes on a method that are printed.
NOTES = 3
# Score of samples -> title, format, factor.
SAMPLER_COLUMNS = {
    "psnr": ("PSNR of one sample", ".2f", 1),
    "crps": ("CRPS", ".4f", 1),
    "speckle": ("residual energy, 1e-6", ".0f", 1e6),
    "coverage90": ("90 % coverage", ".3f", 1),
}


def new_table(*titles: str) -> Table:
    """Return a table of a name and of numbers."""
    table = Table("", box=None)
    for title in titles:
        table.add_column(title, justify="right")
    return table


def series_table(model: str, found: "Stations") -> Table:
    """Return a table of a model and its baselines on fields over time."""
    columns = ("rmse", "mae", "crps", "coverage50", "coverage90")
    table = new_table(*columns, "CRPS of the model less its")
    rows = {model: (found.mean or {}) | (found.predictive or {})} if found.mean else {}
    rows |= {name: each.estimates for name, each in (found.baselines or {}).items()}
    for name, scores in rows.items():
        less = (found.differences or {}).get(name, {}).get("crps")
        shown = less.text(".4f") if less else ""
        cells = [f"{scores[key].value:.4f}" if key in scores else "" for key in columns]
        table.add_row(name, *cells, shown)
    return table


def sampler_table(report: "SamplerComparison") -> Table:
    """Return a table of samplers, with marks where they differ from the first significantly."""
    table = Table("", "evaluations", box=None)
    for title, *_ in SAMPLER_COLUMNS.values():
        table.add_column(title, justify="right")
    for row in report.rows:
        table.add_row(row.sampler, str(row.nfe), *(_marked(row, name) for name in SAMPLER_COLUMNS))
    table.caption = f"* differs from {report.rows[0].sampler}: paired, 5 % for all together"
    return table


def _marked(row: "SamplerRow", name: str) -> str:
    score = row.scores.get(name)
    if score is None:
        return ""
    difference = row.differences.get(name) if row.differences else None
    _, form, factor = SAMPLER_COLUMNS[name]
    mark = " *" if difference and difference.significant else "  "
    return format(factor * score.value, form) + mark


def numbers(summary: "Summary") -> dict[str, str]:
    """Return what a table shows of a summary, by column."""
    cells = {
        name: format(score.value, FORMATS[name])
        for name, score in summary.estimates.items()
        if name in FORMATS
    }
    if "psnr" in summary:
        half = (summary["psnr"].high - summary["psnr"].low) / 2
        cells["psnr"] += "" if math.isnan(half) else f" ± {half:.2f}"
    if summary.seconds is not None:
        cells["seconds"] = format(summary.seconds, FORMATS["seconds"])
    return cells


def footnotes(summaries: Mapping[str, "Summary | None"], items: int) -> list[str]:
    """Return a line for each of the most frequent notes on a method's predictions."""
    lines = []
    for name, summary in summaries.items():
        notes = Counter((summary and summary.notes) or {})
        common = notes.most_common(NOTES)
        fields = counted(items, "field")
        lines += [f"{name}: {text} ({count} of {fields})" for text, count in common]
        if len(notes) > NOTES:
            lines.append(f"{name}: {len(notes) - NOTES} other notes are in the JSON report")
    return lines


def score_table(rows: Mapping[str, Mapping[str, str]]) -> Table:
    """Return a table of one row per method, with the columns of FORMATS that any row has."""
    columns = [name for name in FORMATS if any(name in row for row in rows.values())]
    table = new_table(*(name.replace("_", " ") for name in columns))
    for name, row in rows.items():
        table.add_row(name, *(row.get(column, "") for column in columns))
    return table


def score_cells(
    summary: "Summary | None", columns: Mapping[str, tuple[str, str]]
) -> Sequence[str]:
    """Return a cell per column, of title -> (score, format); empty for what does not exist."""
    found = [(summary.get(s) if summary else None, form) for s, form in columns.values()]
    return ["" if score is None else format(score.value, form) for score, form in found]
