"""Write the tables of docs/results/superres.md from results/superres_*.json.

    sparsefield superres default --data tiny_imagenet --sizes 64 \
        --json results/superres_tiny_imagenet.json \
        --figure docs/results/images/superres/superres_tiny_imagenet.png
    sparsefield superres default --data photographs --sizes 64 96 128 256 ...
    sparsefield superres default --data analytic --sizes 64 96 128 256 ...
    sparsefield bench size --json results/superres_cost.json
    python experiments/superres_report.py [--check]

All files of the same fields and masks make a part of the page, in which their models stand side by
side. The sentences of the page are written by hand. --check changes nothing and exits with 1 if
the page differs from the results.
"""

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from pages import (
    PAGES,
    RESULTS,
    compress_picture,
    difference,
    interval,
    markdown,
    read,
    read_as,
    short,
    update,
    with_interval,
)

from sparsefield.evaluation.report import Summary
from sparsefield.evaluation.superres import ENLARGED, SizeReport, SuperresReport

SCRIPT = "superres_report.py"
COST = "superres_cost"
COLUMNS = {
    "PSNR, dB": ("psnr", 2),
    "PSNR missing, dB": ("psnr_missing", 2),
    "SSIM": ("ssim", 3),
    "MAE": ("mae", 4),
    "CRPS": ("crps", 4),
}
Reports = Mapping[str, SuperresReport]


def main() -> int:
    if "--check" not in sys.argv[1:]:
        for path in (PAGES / "images" / "superres").glob("*.png"):
            compress_picture(path)
    return write_tables(RESULTS, PAGES)


def write_tables(results: Path, pages: Path, *, check: bool | None = None) -> int:
    """Write the tables and numbers of the page; only compare them if `check`."""
    files = sorted(path.stem for path in results.glob("superres_*.json") if path.stem != COST)
    reports = {stem: read_as(SuperresReport, stem, results) for stem in files}
    parts = {"summary": partial(summary_table, reports)}
    parts |= {data: partial(section, group) for data, group in by_data(reports).items()}
    if (results / f"{COST}.json").is_file():
        parts["cost"] = partial(cost, read(COST, results))
    return update(pages / "superres.md", SCRIPT, parts, check=check, folder=results)


def by_data(reports: Reports) -> dict[str, dict[str, SuperresReport]]:
    """Put results of the same fields and masks together.

    Raises:
        ValueError: Two are of the same model, or of other fields or masks of the same data.
    """
    groups: dict[str, dict[str, SuperresReport]] = {}
    for stem, report in sorted(reports.items()):
        group = groups.setdefault(report.head.data, {})
        if any(other.head.model == report.head.model for other in group.values()):
            raise ValueError(f"{stem}: a second result of {report.head.model} on the same fields")
        if any(_masks(other) != _masks(report) for other in group.values()):
            raise ValueError(f"{stem}: other fields or masks than those of {', '.join(group)}")
        group[stem] = report
    return groups


def _masks(report: SuperresReport) -> tuple[Any, ...]:
    head = report.head
    return head.n, head.split, head.density, head.seed, report.observed


def summary_table(reports: Reports) -> str:
    """Write what the mean gains over the best baselines, its detail and its artefacts."""
    lines = [
        [f"{r.head.data}, {size} x {size}", f"{r.head.model}, {r.training}", *_summary(part)]
        for r in reports.values()
        for size, part in r.sizes.items()
    ]
    head = [
        "fields",
        "model",
        "PSNR, dB",
        "best baseline - model, dB",
        "own mean enlarged - model, dB",
    ]
    return markdown([*head, "detail", "artefact - truth's"], lines)


def _summary(part: SizeReport) -> list[str]:
    own = {name: x for name, x in part.baselines.items() if name in ENLARGED}
    others = {name: x for name, x in part.baselines.items() if name not in ENLARGED}
    excess = part.artefact_excess.get("mean", {}).get("artefact")
    return [
        interval(part.mean, "psnr", 2),
        _against_best(part, others),
        _against_best(part, own),
        _ratio(part.detail, "mean"),
        "" if excess is None else with_interval(excess, 2, sign="+"),
    ]


def _against_best(part: SizeReport, baselines: Mapping[str, Summary]) -> str:
    if not baselines:
        return ""
    best = max(baselines, key=lambda name: baselines[name]["psnr"].value)
    return f"{best} {difference(part.differences.get(best), 'psnr', 3)}".strip()


def section(group: Reports) -> str:
    """Write the commands of a data set, how it was scored, and a table per size."""
    report = next(iter(group.values()))
    sizes = {size: None for each in group.values() for size in each.sizes}
    tables = [f"### {size} x {size}\n\n{score_table(group, size)}" for size in sizes]
    commands = "\n".join(command(stem, each) for stem, each in group.items())
    return "\n\n".join([f"```\n{commands}\n```", setting(report), *tables])


def command(stem: str, report: SuperresReport) -> str:
    """Return what measured a report."""
    samples = next(iter(report.sizes.values())).samples
    how, head = samples.sampling if samples else None, report.head
    options: dict[str, Any] = {"data": head.data, "sizes": " ".join(map(str, report.sizes))}
    options |= {"limit": head.n, "split": head.split, "density": head.density, "seed": head.seed}
    if how:
        options |= {"sampler": how.sampler, "steps": how.steps, "samples": how.samples}
    shown = " ".join(f"--{key} {value}" for key, value in options.items())
    return f"sparsefield superres {head.model} {shown} --json results/{stem}.json"


def setting(report: SuperresReport) -> str:
    """Say what was scored."""
    head, side = report.head, report.observed
    return (
        f"{head.n:,} fields, {head.split} masks of seed {head.seed}, {head.density:.0%} of "
        f"{side} x {side} cells observed; {head.device}, commit `{short(head.commit)}`."
    )


def score_table(group: Reports, size: int) -> str:
    """Write the scores of all methods at one size, best PSNR first."""
    reports = [report for report in group.values() if size in report.sizes]
    rows = [row for report in reports for row in model_rows(report, size)]
    first = reports[0].sizes[size]
    rows += [
        (f"*{name}* (baseline)", name, first, summary)
        for name, summary in first.baselines.items()
        if name not in ENLARGED
    ]
    ranked = sorted(rows, key=lambda row: -row[3]["psnr"].value)
    lines = [
        [title, *(interval(x, *column) for column in COLUMNS.values()), *energies(part, name)]
        for title, name, part, x in ranked
    ]
    lines.append(["truth", *[""] * len(COLUMNS), *energies(first, "truth")])
    return markdown(["", *COLUMNS, "detail", "artefact"], lines)


def model_rows(
    report: SuperresReport, size: int
) -> Iterator[tuple[str, str, SizeReport, Summary]]:
    """Yield title, name, size and scores of a model's mean, samples and own baselines."""
    part, model = report.sizes[size], report.head.model
    title = f"**{model}**, {report.training}"
    yield title, "mean", part, part.mean
    if part.samples:
        yield f"{title}, one sample", "samples", part, part.samples
    for name in ENLARGED:
        if name in part.baselines:
            yield f"*{name}* of {model} at 32 x 32 (baseline)", name, part, part.baselines[name]


def energies(part: SizeReport, name: str) -> list[str]:
    return [_ratio(part.detail, name), _ratio(part.artefact, name)]


def _ratio(ratios: Mapping[str, float] | None, name: str) -> str:
    return f"{ratios[name]:.2f}" if ratios and name in ratios else ""


def cost(report: Mapping[str, Any]) -> str:
    """Write what a posterior mean costs at every size."""
    sizes = list(report["rows"][0]["sizes"])
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
    names = " ".join(row["name"] for row in report["rows"])
    made = f"sparsefield bench size --presets {names} --json results/{COST}.json"
    where = (
        f"{report['device']}, {report['threads']} threads, median of up to {report['repeats']}, "
        f"commit `{short(report['commit'])}`."
    )
    titles = ["model", "claims", "parameters", "exponent", *(f"{s} x {s}" for s in sizes)]
    return f"```\n{made}\n```\n\n{where}\n\n{markdown(titles, lines)}"


def measured(result: Mapping[str, Any]) -> str:
    """Write seconds and memory of a measurement, or why there is none."""
    if "refused" in result:
        return f"refused: {result['refused']}"
    peak = result["peak_bytes"]
    memory = "" if peak is None else f", {peak / 2**20:,.0f} MiB"
    return f"{result['seconds']:.3g} s{memory}"


if __name__ == "__main__":
    sys.exit(main())
