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
