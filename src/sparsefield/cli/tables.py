"""The table of scores that evaluations print."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

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


# Score of draws -> title, format.
SAMPLER_COLUMNS = {
    "psnr": ("PSNR of one draw", ".2f"),
    "crps": ("CRPS", ".4f"),
    "speckle": ("speckle, 1e-6", ".0f"),
    "coverage90": ("90 % coverage", ".3f"),
}


def sampler_table(report: Mapping[str, Any]) -> Table:
    """Return a table of samplers, with marks where they differ from the first significantly."""
    table = Table("", "evaluations", box=None)
    for title, _ in SAMPLER_COLUMNS.values():
        table.add_column(title, justify="right")
    for row in report["rows"]:
        cells = [_marked(row, name, form) for name, (_, form) in SAMPLER_COLUMNS.items()]
        table.add_row(row["sampler"], str(row["nfe"]), *cells)
    table.caption = f"* differs from {report['rows'][0]['sampler']}: paired, 5 % for all together"
    return table


def _marked(row: Mapping[str, Any], name: str, form: str) -> str:
    if name not in row:
        return ""
    value = 1e6 * row[name] if name == "speckle" else row[name]
    mark = " *" if row["differences"].get(f"{name}_significant") else "  "
    return format(value, form) + mark


def score_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table of one row per method, with the columns of FORMATS that any row has."""
    columns = [name for name in FORMATS if any(name in row for row in rows.values())]
    table = Table("", box=None)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for name, row in rows.items():
        table.add_row(name, *(_cell(row, column) for column in columns))
    return table


def _cell(row: Mapping[str, Any], column: str) -> str:
    if column not in row:
        return ""
    text = format(row[column], FORMATS[column])
    if column != "psnr" or "psnr_ci" not in row:
        return text
    low, high = row["psnr_ci"]
    return f"{text} ± {(high - low) / 2:.2f}"
