"""Write the tables and the chart of docs/results/architectures.md from results/architectures.json.

    python experiments/architectures_report.py [--check]

The sentences of the page are written by hand. --check changes nothing and exits with 1 if the page
differs from the results.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from pages import (
    PAGES,
    RESULTS,
    compress_chart,
    difference,
    interval,
    markdown,
    read,
    share,
    short,
    update,
)

from sparsefield.evaluation.charts import score_figure
from sparsefield.evaluation.comparison import Comparison
from sparsefield.evaluation.differences import Differences
from sparsefield.evaluation.serialise import unflatten
from sparsefield.figures.panels import save_figure

SCRIPT = "architectures_report.py"
Rows = Mapping[str, Mapping[str, Any]]


def main() -> int:
    if "--check" not in sys.argv[1:]:
        draw_chart(RESULTS, PAGES)
    return write_tables(RESULTS, PAGES)


def draw_chart(results: Path, pages: Path) -> None:
    """Draw the scores of all methods."""
    comparison = unflatten(Comparison, read("architectures", results)["comparison"])
    path = pages / "images" / "architectures" / "scores.png"
    save_figure(score_figure(comparison), path)
    compress_chart(path)


def write_tables(results: Path, pages: Path, *, check: bool | None = None) -> int:
    """Write the tables and numbers of the page; only compare them if `check`."""
    page = pages / "architectures.md"
    parts = render(read("architectures", results))
    writers = {name: (lambda text=text: text) for name, text in parts.items()}
    return update(page, SCRIPT, writers, check=check, folder=results)


def render(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of the page by the name of their part."""
    comparison = unflatten(Comparison, results["comparison"])
    return {
        "scores": score_table(comparison),
        "baseline": baseline_table(comparison),
        "training": training_table(results["rows"]),
        "versions": versions_table(comparison),
        "orders": orders_table(comparison, results["rows"]),
    }


def score_table(report: Comparison) -> str:
    """Write the scores of all methods, best PSNR first."""
    means = {"PSNR, dB": ("psnr", 2, 1), "SSIM": ("ssim", 3, 1)}
    means["residual, 1e-6"] = ("speckle", 0, 1e6)
    samples = {"one sample: PSNR, dB": ("psnr", 2, 1), "CRPS": ("crps", 4, 1)}
    samples["one sample: residual, 1e-6"] = ("speckle", 0, 1e6)
    lines = []
    for name in report.ranking:
        method = report.methods[name]
        shown = f"*{name}* (baseline)" if report.is_baseline(name) else name
        cells = [interval(method.mean, *column) for column in means.values()]
        cells += [interval(method.samples, *column) for column in samples.values()]
        lines.append([shown, *cells, difference(report.differences.get(name), "psnr")])
    return markdown(["", *means, *samples, f"PSNR - {report.reference}, dB"], lines)


def baseline_table(report: Comparison) -> str:
    """Write the differences of the models from the best baseline."""
    against = report.baseline
    assert against is not None, "the experiment has baselines"
    models = [name for name in report.ranking if name in against.differences]
    lines = [[name, difference(against.differences[name], "psnr")] for name in models]
    return markdown(["model", f"PSNR - {against.name}, dB"], lines)


def training_table(rows: Rows) -> str:
    """Write how each row was trained."""
    head = ["row", "preset", "parameters", "predicts", "learning rate", "steps", "images"]
    head += ["CPU minutes", "seed", "device", "commit"]
    lines = [
        [
            name,
            " ".join([f"`{row['preset']}`", *(f"`{text}`" for text in row["overrides"])]),
            f"{row['parameters']:,}",
            row["prediction"],
            f"{row['lr']:g}",
            f"{row['steps']:,}",
            f"{row['images']:,}",
            f"{row['cpu_seconds'] / 60:.1f}",
            str(row["seed"]),
            f"{row['device']}, {row['precision']}",
            f"`{short(row['commit'])}`",
        ]
        for name, row in rows.items()
    ]
    return markdown(head, lines)


def versions_table(report: Comparison) -> str:
    """Write V1 against V2, the reference, beside what the prototypes promise of V2 over V1."""
    entry = report.differences["v1"]
    lines = [
        ["PSNR of the mean, dB", difference(entry, "psnr"), "-3 to -5"],
        ["PSNR of one sample, dB", difference(entry, "sample_psnr"), "-3 to -5"],
        ["residual energy of the mean", share(entry, "speckle"), "+230 to +400 %"],
        ["residual energy of one sample", share(entry, "sample_speckle"), "+230 to +400 %"],
    ]
    return markdown(["V1 against V2", "measured", "promised by the prototypes"], lines)


def orders_table(report: Comparison, rows: Rows) -> str:
    """Write the orders in which V2 reads points, against its own."""
    orders = {"v2": "hilbert"} | {name: scan_order(row) for name, row in rows.items()}
    orders = {name: order for name, order in orders.items() if order} | {"v2": "hilbert"}
    scores = {"PSNR, dB": ("psnr", 2), "SSIM": ("ssim", 4)}
    scores |= {"PSNR of one sample, dB": ("sample_psnr", 2), "CRPS": ("crps", 4)}
    lines = []
    for name in (name for name in report.ranking if name in orders):
        entry: Differences | None = report.differences.get(name)
        cells = [difference(entry, *column) for column in scores.values()]
        lines.append([orders[name], interval(report.methods[name].mean, "psnr", 2), *cells])
    return markdown(["order", "PSNR, dB", *(f"{title} - hilbert" for title in scores)], lines)


def scan_order(row: Mapping[str, Any]) -> str:
    """Return the order that a row sets, or nothing."""
    values = [text.partition("=") for text in row["overrides"]]
    return next((value for key, _, value in values if key == "model.order"), "")


if __name__ == "__main__":
    sys.exit(main())
