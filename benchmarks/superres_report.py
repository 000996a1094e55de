"""Write docs/results/superres.md from the results beside it, never by hand.

    sparsefield superres default --data tiny_imagenet --sizes 64 \
        --json docs/results/superres_tiny_imagenet.json \
        --figure docs/results/images/superres/superres_tiny_imagenet.png
    sparsefield superres default --data photographs --sizes 64 96 128 256 ...
    sparsefield superres default --data analytic --sizes 64 96 128 256 ...
    sparsefield bench size --json docs/results/superres_cost.json
    python benchmarks/superres_report.py [--results DIR] [--check]

Every superres_*.json makes a section. --check changes nothing and exits with 1 if the page differs
from the results.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from architectures_report import bullets, drawn, interval, markdown, paragraph, short
from pages import ROOT

from sparsefield.evaluation.report import verdict

COST = "superres_cost"
FIGURES = Path("images") / "superres"
Report = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    page = options.results / "superres.md"
    files = sorted(options.results.glob("superres_*.json"))
    reports = {file.stem: json.loads(file.read_text()) for file in files}
    if not reports:
        print(f"no superres_*.json in {options.results}; see --help", file=sys.stderr)
        return 2
    figures = {file.stem for file in (options.results / FIGURES).glob("*.png")}
    text = render(reports, figures)
    if options.check:
        return int(not page.is_file() or page.read_text() != text)
    page.write_text(text)
    return 0


def render(reports: Mapping[str, Report], figures: set[str]) -> str:
    """Write the whole page as Markdown.

    Args:
        reports: Results by the stem of their file.
        figures: Stems of the figures that there are.
    """
    scored = {stem: report for stem, report in reports.items() if stem != COST}
    parts = [introduction(), "## What wins\n\n" + bullets(findings(scored))]
    for stem, report in scored.items():
        parts.append(section(stem, report))
        if stem in figures:
            parts.append(f"![Fields and spectra, {report['data']}]({FIGURES / stem}.png)")
    if COST in reports:
        parts.append(cost(reports[COST]))
    return "\n\n".join(parts) + "\n"


def introduction() -> str:
    what = """A part of the cells of a 32 x 32 grid is observed: area averages, as a coarse camera
        takes them. The truth are the cells of a finer grid of the same picture, and nothing is
        trained again. *missing* counts the fine cells in coarse cells that
        were not observed. *bicubic* is the model's own mean of the 32 x 32 cells, enlarged; the
        other floors interpolate the observed points at the fine cells. *detail* is the energy
        that a 32-grid cannot carry, beyond 16 cycles per image, over the truth's: 1 is as much as
        there should be, right or wrong. *artefact* is the energy at the frequencies of the
        32-grid over that beside them: about 1 without a visible grid, to be held against the
        truth's. Definitions are in [math.md](../math.md)."""
    return f"""# Super-resolution against real truth

Made by `benchmarks/superres_report.py` from `superres_*.json`; never edited by hand.

{paragraph(what)}"""


def findings(reports: Mapping[str, Report]) -> list[str]:
    """Say of every data set and size whether a floor wins."""
    return [
        f"{report['data']}, {size} x {size}: " + verdict({"model": report["model"]} | part)
        for report in reports.values()
        for size, part in report["sizes"].items()
    ]


def section(stem: str, report: Report) -> str:
    """Write what was done on a data set, and a table per size."""
    sizes = " ".join(report["sizes"])
    command = (
        f"sparsefield superres {report['model']} --data {report['data']} --sizes {sizes} "
        f"--json docs/results/{stem}.json"
    )
    text = f"""`{command}`: {report["n"]:,} fields, {report["split"]} masks of seed
        {report["seed"]}, {report["density"]:.0%} of {report["observed"]} x
        {report["observed"]} cells observed;
        {report["device"]}, commit `{short(report["commit"])}`. 95 % bootstrap intervals over
        fields{drawn({"contestants": report["sizes"]})}."""
    tables = [
        f"### {size} x {size}\n\n{score_table(report['model'], part)}"
        for size, part in report["sizes"].items()
    ]
    return "\n\n".join([f"## {report['data']}", paragraph(text), *tables])


def score_table(model: str, part: Report) -> str:
    """Write the scores of all methods at one size, best PSNR first."""
    columns = {"PSNR, dB": ("psnr", 2), "PSNR missing, dB": ("psnr_missing", 2)}
    columns |= {"SSIM": ("ssim", 3), "MAE": ("mae", 4), "CRPS": ("crps", 4)}
    rows = {model: ("mean", part["mean"])}
    rows |= {f"*{name}* (floor)": (name, row) for name, row in part["floors"].items()}
    if "samples" in part:
        rows[f"{model}, one draw"] = ("samples", part["samples"])
    lines = [
        [title, *(interval(row, *column) for column in columns.values()), *energies(part, name)]
        for title, (name, row) in sorted(rows.items(), key=lambda item: -item[1][1]["psnr"])
    ]
    lines.append(["truth", *[""] * len(columns), *energies(part, "truth")])
    return markdown(["", *columns, "detail", "artefact"], lines)


def energies(part: Report, name: str) -> list[str]:
    found = (part.get(key, {}).get(name) for key in ("detail", "artefact"))
    return ["" if ratio is None else f"{ratio:.2f}" for ratio in found]


def cost(report: Report) -> str:
    """Write what a posterior mean costs at every size."""
    sizes = list(report["rows"][0]["sizes"])
    text = f"""One posterior mean from {report["density"]:.0%} of {report["observed"]} x
        {report["observed"]} cells: median seconds of {report["repeats"]}, and the memory that it
        adds to a process. The exponent is b of seconds ~ points^b over the three largest sizes
        measured. {report["device"]}, {report["threads"]} threads, commit
        `{short(report["commit"])}`."""
    lines = [
        [
            f"`{row['name']}`",
            "linear" if row["linear_cost"] else "",
            f"{row['parameters']:,}",
            "" if row["exponent"] is None else f"{row['exponent']:.2f}",
            *(measured(row["sizes"][size]) for size in sizes),
        ]
        for row in report["rows"]
    ]
    titles = ["model", "claims", "parameters", "exponent", *(f"{s} x {s}" for s in sizes)]
    return f"## Cost\n\n{paragraph(text)}\n\n{markdown(titles, lines)}"


def measured(result: Report) -> str:
    if "refused" in result:
        return f"refused: {result['refused']}"
    peak = result["peak_bytes"]
    memory = "" if peak is None else f", {peak / 2**20:,.0f} MiB"
    return f"{result['seconds']:.3g} s{memory}"


if __name__ == "__main__":
    sys.exit(main())
