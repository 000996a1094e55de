"""Write docs/results/superres.md from the results beside it, never by hand.

    sparsefield superres default --data tiny_imagenet --sizes 64 \
        --json docs/results/superres_tiny_imagenet.json \
        --figure docs/results/images/superres/superres_tiny_imagenet.png
    sparsefield superres default --data photographs --sizes 64 96 128 256 ...
    sparsefield superres default --data analytic --sizes 64 96 128 256 ...
    sparsefield bench size --json docs/results/superres_cost.json
    python experiments/superres_report.py [--results DIR] [--check]

All files of the same fields and masks make a section, in which their models stand side by side.
--check changes nothing and exits with 1 if the page differs from the results.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from architectures_report import bullets, drawn, interval, markdown, paragraph, short
from pages import ROOT

from sparsefield.evaluation.superres import ENLARGED

COST = "superres_cost"
# Scores on the observed grid itself, from `sparsefield evaluate`.
ON_GRID = "default"
# "Traditional upsampling" in the prototypes' third hypothesis: of the same points and, bicubic, of
# the model's own cells.
TRADITIONAL = ("linear", "cubic", "bicubic")
# What tells fields and masks from others.
FIELDS = ("data", "n", "split", "density", "seed", "observed")
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
    on_grid = options.results / f"{ON_GRID}.json"
    if on_grid.is_file():
        reports[ON_GRID] = json.loads(on_grid.read_text())
    figures = {file.stem for file in (options.results / FIGURES).glob("*.png")}
    text = render(reports, figures)
    if options.check:
        return int(not page.is_file() or page.read_text() != text)
    page.write_text(text)
    return 0


def render(reports: Mapping[str, Report], figures: set[str]) -> str:
    """Write the whole page as Markdown.

    Args:
        reports: Results by the stem of their file: of super-resolution, COST and ON_GRID.
        figures: Stems of the figures that there are.
    """
    scored = {stem: part for stem, part in reports.items() if stem not in (COST, ON_GRID)}
    groups = by_fields(scored)
    parts = [introduction(), hypotheses(list(scored.values()), reports.get(ON_GRID))]
    for group in groups:
        parts.append(section(group))
        parts += [
            f"![Fields and spectra, {report['data']}]({FIGURES / stem}.png)"
            for stem, report in group.items()
            if stem in figures
        ]
    if COST in reports:
        parts.append(cost(reports[COST]))
    return "\n\n".join(parts) + "\n"


def by_fields(reports: Mapping[str, Report]) -> list[dict[str, Report]]:
    """Put results of the same fields and masks together.

    Raises:
        ValueError: Two are of the same model.
    """
    groups: dict[tuple[Any, ...], dict[str, Report]] = {}
    for stem, report in sorted(reports.items()):
        group = groups.setdefault(tuple(report[key] for key in FIELDS), {})
        if any(other["model"] == report["model"] for other in group.values()):
            raise ValueError(f"{stem}: a second result of {report['model']} on the same fields")
        group[stem] = report
    return list(groups.values())


def introduction() -> str:
    what = """A part of the cells of a 32 x 32 grid is observed: area averages, as a coarse camera
        takes them. The truth are the cells of a finer grid of the same picture. A model that was
        trained at 32 x 32 alone is *zero-shot*; one that has learnt cells of several sizes is
        told how large those are that it is asked for: the bundled one knows them down to a
        quarter of the observed side, and extrapolates beyond. *missing* counts the fine cells in
        coarse cells that were not observed. *bicubic* is the model's own mean of the 32 x 32
        cells, enlarged, and *bicubic_kept* the same, moved so that the parts of an observed cell
        have its mean, as those of a multi-resolution model itself have; the other baselines
        interpolate the observed points at the fine cells. *detail* is the energy that a 32-grid
        cannot carry, beyond 16 cycles per image, over the truth's: 1 is as much as there should
        be, right or wrong. *artefact* is the energy at the frequencies of the 32-grid over that
        beside them: about 1 without a visible grid, to be held against the truth's. Definitions
        are in [math.md](../math.md)."""
    return f"""# Super-resolution against real truth

Made by `experiments/superres_report.py` from `superres_*.json`; never edited by hand.

{paragraph(what)}"""


def hypotheses(reports: Sequence[Report], on_grid: Report | None) -> str:
    """Answer what the prototypes' documents set out to test, and never measured."""
    pairs = [
        (
            f"{report['model']}, {report['training']}, {report['n']:,} fields of "
            f"{report['data']}, {size} x {size}",
            part,
        )
        for report in reports
        for size, part in report["sizes"].items()
    ]
    answers = {"Does it generalise to finer grids?": [lead(*pair) for pair in pairs]}
    answers["Are its results sharper than those of traditional upsampling?"] = [
        sharpness(*pair) for pair in pairs if "detail" in pair[1]
    ]
    answers["Are they free of artefacts aligned with the grid?"] = [
        artefacts(*pair) for pair in pairs
    ]
    if on_grid is not None:
        question = "Does it reconstruct the whole 32 x 32 field from 20 % of it?"
        where = f"{on_grid['model']}, {on_grid['n']:,} fields of {on_grid['data']}, 32 x 32"
        answers = {question: [lead(where, on_grid)]} | answers
    parts = [f"**{question}**\n\n{bullets(said)}" for question, said in answers.items()]
    return "\n\n".join(["## What the prototypes set out to test", *parts])


def lead(where: str, part: Report) -> str:
    """Say by how much the mean is better or worse than the best baselines of either kind."""
    own = {name: baseline for name, baseline in part["baselines"].items() if name in ENLARGED}
    others = {
        name: baseline for name, baseline in part["baselines"].items() if name not in ENLARGED
    }
    rivals = [max(kind, key=lambda name: kind[name]["psnr"]) for kind in (own, others) if kind]
    judged, said = zip(*(against(part, rival) for rival in rivals), strict=True)
    answer = next(word for word in ("No", "Not shown", "Yes") if word in judged)
    return f"{answer} ({where}): {interval(part['mean'], 'psnr', 2)} dB; {'; '.join(said)}."


def against(part: Report, rival: str) -> tuple[str, str]:
    """Return whether the mean is better than a baseline, and a phrase with the figures."""
    mean, baseline, paired = part["mean"], part["baselines"][rival], part.get("differences", {})
    gain = f"{mean['psnr'] - baseline['psnr']:+.2f}"
    apart = (
        mean["psnr_ci"][0] > baseline["psnr_ci"][1] or mean["psnr_ci"][1] < baseline["psnr_ci"][0]
    )
    shown = apart
    if rival in paired:
        shown = paired[rival]["psnr_significant"]
        low, high = (-end for end in reversed(paired[rival]["psnr_ci"]))
        gain = f"{-paired[rival]['psnr']:+.3f} [{low:+.3f}, {high:+.3f}] field by field"
    answer = "Not shown" if not shown else "Yes" if mean["psnr"] > baseline["psnr"] else "No"
    overlap = "" if apart else " (the intervals of the two scores overlap)"
    return answer, f"{gain} against {rival}, {interval(baseline, 'psnr', 2)}{overlap}"


def sharpness(where: str, part: Report) -> str:
    """Say how much of the truth's detail the mean has, and how much traditional baselines."""
    detail = part["detail"]
    others = {name: detail[name] for name in TRADITIONAL if name in detail}
    off = {name: abs(ratio - 1) for name, ratio in (others | {"mean": detail["mean"]}).items()}
    answer = "Yes" if min(off, key=lambda name: off[name]) == "mean" else "No"
    shown = ", ".join(f"{name} {ratio:.2f}" for name, ratio in others.items())
    drawn_too = f"; one draw {detail['samples']:.2f}" if "samples" in detail else ""
    return (
        f"{answer} ({where}): the mean has {detail['mean']:.2f} of the truth's energy beyond "
        f"what a 32-grid carries ({shown}{drawn_too})."
    )


def artefacts(where: str, part: Report) -> str:
    """Say whether the mean has more energy at the frequencies of the grid than the truth.

    Up to a score of 1 there is no more of it than at the frequencies beside them, whatever the
    truth has.
    """
    ratio, excess = part["artefact"], part["artefact_excess"]["mean"]
    low, high = excess["artefact_ci"]
    seen = low > 0 and ratio["mean"] > 1
    answer = "No" if seen else "Yes" if high <= 0 else "None seen"
    drawn_too = f", one draw {ratio['samples']:.2f}" if "samples" in ratio else ""
    return (
        f"{answer} ({where}): artefact score {ratio['mean']:.2f}{drawn_too}, the truth's is "
        f"{ratio['truth']:.2f}; mean less truth {excess['artefact']:+.2f} "
        f"[{low:+.2f}, {high:+.2f}]."
    )


def section(group: Mapping[str, Report]) -> str:
    """Write what was done on a data set, and a table per size."""
    report = next(iter(group.values()))
    sizes = {size: None for each in group.values() for size in each["sizes"]}
    tables = [
        f"### {size} x {size}\n\n"
        + score_table(
            {
                (report["model"], report["training"]): report["sizes"][size]
                for report in group.values()
                if size in report["sizes"]
            }
        )
        for size in sizes
    ]
    commands = "\n".join(command(stem, each) for stem, each in group.items())
    parts = [f"## {report['data']}", f"```\n{commands}\n```", setting(report), *tables]
    return "\n\n".join(parts)


def command(stem: str, report: Report) -> str:
    """Return what measured a report."""
    drawn = next(iter(report["sizes"].values())).get("samples", {})
    options = {"data": report["data"], "sizes": " ".join(report["sizes"]), "limit": report["n"]}
    options |= {key: report[key] for key in ("split", "density", "seed")}
    options |= {key: drawn[key] for key in ("sampler", "steps") if key in drawn}
    options |= {"samples": drawn["draws"]} if "draws" in drawn else {}
    shown = " ".join(f"--{key} {value}" for key, value in options.items())
    return f"sparsefield superres {report['model']} {shown} --json docs/results/{stem}.json"


def setting(report: Report) -> str:
    """Say what was scored, and how."""
    text = f"""{report["n"]:,} fields, {report["split"]} masks of seed {report["seed"]},
        {report["density"]:.0%} of {report["observed"]} x {report["observed"]} cells observed;
        {report["device"]}, commit `{short(report["commit"])}`. 95 % bootstrap intervals over
        fields{drawn({"contestants": report["sizes"]})}; differences are paired by field, and Yes
        and No above hold at 5 % after Holm's correction for the number of baselines."""
    return paragraph(text)


def score_table(parts: Mapping[tuple[str, str], Report]) -> str:
    """Write the scores of all methods at one size, best PSNR first.

    Args:
        parts: Scores by model and its training; baselines are those of the first.
    """
    columns = {"PSNR, dB": ("psnr", 2), "PSNR missing, dB": ("psnr_missing", 2)}
    columns |= {"SSIM": ("ssim", 3), "MAE": ("mae", 4), "CRPS": ("crps", 4)}
    rows = [row for model, part in parts.items() for row in model_rows(*model, part)]
    first = next(iter(parts.values()))
    baselines = first["baselines"].items()
    rows += [
        (f"*{name}* (baseline)", name, first, row)
        for name, row in baselines
        if name not in ENLARGED
    ]
    lines = [
        [title, *(interval(row, *column) for column in columns.values()), *energies(part, name)]
        for title, name, part, row in sorted(rows, key=lambda row: -row[3]["psnr"])
    ]
    lines.append(["truth", *[""] * len(columns), *energies(first, "truth")])
    return markdown(["", *columns, "detail", "artefact"], lines)


def model_rows(
    model: str, training: str, part: Report
) -> Iterator[tuple[str, str, Report, Report]]:
    """Yield title, name, scores of the size and of a model's mean, draws and own baseline."""
    title = f"**{model}**, {training}"
    yield title, "mean", part, part["mean"]
    if "samples" in part:
        yield f"{title}, one draw", "samples", part, part["samples"]
    for name in ENLARGED:
        if name in part["baselines"]:
            yield f"*{name}* of {model} at 32 x 32 (baseline)", name, part, part["baselines"][name]


def energies(part: Report, name: str) -> list[str]:
    found = (part.get(key, {}).get(name) for key in ("detail", "artefact"))
    return ["" if ratio is None else f"{ratio:.2f}" for ratio in found]


def cost(report: Report) -> str:
    """Write what a posterior mean costs at every size."""
    sizes = list(report["rows"][0]["sizes"])
    text = f"""One posterior mean from {report["density"]:.0%} of {report["observed"]} x
        {report["observed"]} cells: median seconds of up to {report["repeats"]}, and the memory
        that it adds to a process. The exponent is b of seconds ~ points^b over the three largest
        sizes measured. {report["device"]}, {report["threads"]} threads, commit
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
    names = " ".join(row["name"] for row in report["rows"])
    made = f"sparsefield bench size --presets {names} --json docs/results/{COST}.json"
    titles = ["model", "claims", "parameters", "exponent", *(f"{s} x {s}" for s in sizes)]
    return f"## Cost\n\n```\n{made}\n```\n\n{paragraph(text)}\n\n{markdown(titles, lines)}"


def measured(result: Report) -> str:
    if "refused" in result:
        return f"refused: {result['refused']}"
    peak = result["peak_bytes"]
    memory = "" if peak is None else f", {peak / 2**20:,.0f} MiB"
    return f"{result['seconds']:.3g} s{memory}"


if __name__ == "__main__":
    sys.exit(main())
