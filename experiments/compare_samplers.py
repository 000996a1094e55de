"""Compare the samplers of a model at equal evaluations, and write page and chart.

    python experiments/compare_samplers.py --data DATA [--model default]
    python experiments/compare_samplers.py --report-only

Writes samplers.json, samplers.md and images/samplers.png into docs/results. The first sampler is
the one that the others are compared with; it is also run with --exact evaluations, to say how far
from converged the cheap ones are. --report-only writes page and chart anew from samplers.json.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import bullets, difference, interval, markdown, paragraph

from sparsefield.core.devices import choose_device
from sparsefield.core.errors import InputError
from sparsefield.core.files import write_text
from sparsefield.data.dataset import open_dataset
from sparsefield.evaluation.protocol import Protocol, check_fit
from sparsefield.evaluation.samplers import compare_samplers
from sparsefield.figures.field import save_figure
from sparsefield.figures.samplers import plot_dial
from sparsefield.inference.model import load

ROOT = Path(__file__).parent.parent
SAMPLERS = (
    "heun",
    "euler",
    "ab2",
    "deis",
    "deis:grid=late",
    "ddim:eta=1",
    "sde",
    "sde:temperature=0.3",
)
BUDGETS = (3, 5, 10, 20)
COLUMNS = {
    "PSNR of one draw, dB": ("psnr", 2),
    "of the average of all, dB": ("psnr_average", 2),
    "CRPS": ("crps", 4),
    "speckle, 1e-6": ("speckle", 0),
    "90 % coverage": ("coverage90", 3),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="default")
    parser.add_argument("--data", metavar="D")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), metavar="NAME")
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS), metavar="N")
    parser.add_argument("--exact", type=int, default=100, metavar="N")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args(arguments)
    try:
        if not options.report_only:
            measure(options)
        write_page(options.out)
    except InputError as error:
        print(f"compare_samplers: error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(options: argparse.Namespace) -> None:
    """Compare the samplers and write the results as JSON."""
    if not options.data:
        raise InputError("--data is needed")
    model = load(options.model, choose_device("auto"))
    fields = open_dataset(options.data, options.split, options.limit, size=model.spec.shape)
    check_fit(model, fields)
    where, draws = (model, fields, Protocol(split=options.split)), options.draws

    def announce(what: str) -> None:
        print(what, flush=True)

    report = compare_samplers(*where, options.samplers, options.budgets, draws, announce)
    exact = compare_samplers(*where, options.samplers[:1], [options.exact], draws, announce)
    report["rows"] += exact["rows"]
    write_text(options.out / "samplers.json", json.dumps(report, indent=2) + "\n")


def write_page(folder: Path) -> None:
    """Write the page and the chart from the results, and from nothing else."""
    file = folder / "samplers.json"
    if not file.is_file():
        raise InputError(f"no results at {file}; measure first")
    report = json.loads(file.read_text())
    save_figure(plot_dial(report), folder / "images" / "samplers.png")
    write_text(folder / "samplers.md", render(report))


def render(report: Mapping[str, Any]) -> str:
    """Write the whole page as Markdown."""
    reference = report["rows"][0]["sampler"]
    how = f"""Draws of `{report["model"]}` for {report["n"]:,} fields of `{report["data"]}`
        ({report["split"]} masks of seed {report["seed"]}, {report["density"]:.0%} observed),
        {report["draws"]} per field, on {report["device"]}, commit `{report["commit"][:12]}`.
        Masks and source noise are identical for all samplers; each takes as many steps as the
        budget of network evaluations allows. Intervals are 95 % bootstrap intervals over fields;
        differences from `{reference}` are paired by field, and "significant" holds at 5 % for all
        samplers of a budget together. Rings in the chart are the average of all draws of a field,
        at the price of all of them."""
    return f"""# Samplers at equal price

Made by `experiments/compare_samplers.py` from `samplers.json`; never edited by hand.

```
python experiments/compare_samplers.py --data {report["data"]} --model {report["model"]} \\
    --limit {report["n"]} --draws {report["draws"]}
```

{paragraph(how)}

![Scores against evaluations](images/samplers.png)

## Do fresh noise or DDIM reduce speckles?

{bullets(speckles(report, reference))}

## How many evaluations are enough?

{bullets(convergence(report, reference))}

## Scores

{score_table(report)}

## Differences from {reference}

{difference_table(report)}

\\* significant.
"""


def speckles(report: Mapping[str, Any], reference: str) -> list[str]:
    """Say of every sampler how much speckle its draws have, and what became of their spread.

    Fewer speckles than those of converged draws are not a merit: such draws are smoother than the
    posterior, and cover less of it.
    """
    exact = longest(report, reference)
    sentences = [
        f"Converged draws (`{reference}`, {exact['nfe']} evaluations) have a speckle energy of "
        f"{1e6 * exact['speckle']:,.0f}e-6 and a 90 % coverage of {exact['coverage90']:.3f}. "
        "Draws with less are smoother than the posterior and cover less of it."
    ]
    for name in dict.fromkeys(row["sampler"] for row in report["rows"]):
        rows = [row for row in report["rows"] if row["sampler"] == name]
        rows = [row for row in rows if "speckle_ratio" in row["differences"]]
        if rows:
            ratios = ", ".join(f"{share(row['differences'])} at {row['budget']}" for row in rows)
            last = rows[-1]
            left = last["speckle"] / exact["speckle"]
            sentences.append(
                f"`{name}` against `{reference}`: {ratios} evaluations. At {last['budget']} it "
                f"has {left:.0%} of the converged draws' speckle energy and covers "
                f"{last['coverage90']:.3f}."
            )
    return sentences


def longest(report: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    """Return the row of the reference with the most evaluations."""
    rows = (row for row in report["rows"] if row["sampler"] == reference)
    return max(rows, key=lambda row: row["nfe"])


def share(entry: Mapping[str, Any]) -> str:
    """Write a ratio of energies as a change in per cent, with its interval and mark."""
    low, high = entry["speckle_ratio_ci"]
    mark = " \\*" if entry["speckle_significant"] else ""
    return f"{entry['speckle_ratio'] - 1:+.0%} [{low - 1:+.0%}, {high - 1:+.0%}]{mark}"


def convergence(report: Mapping[str, Any], reference: str) -> list[str]:
    """Say how far each sampler's CRPS is from that of the longest run of the reference."""
    exact = longest(report, reference)
    sentences = [
        f"`{reference}` with {exact['nfe']} evaluations has a CRPS of {exact['crps']:.4f}."
    ]
    for name in dict.fromkeys(row["sampler"] for row in report["rows"]):
        rows = [row for row in report["rows"] if row["sampler"] == name and row is not exact]
        changes = (f"{row['crps'] / exact['crps'] - 1:+.1%} at {row['nfe']}" for row in rows)
        sentences.append(f"`{name}`: {', '.join(changes)} evaluations.")
    return sentences


def score_table(report: Mapping[str, Any]) -> str:
    """Write the scores of all samplers at all budgets."""
    mean = report["mean"]
    cells = [interval(mean, "psnr", 2), "", interval(mean, "mae", 4), interval(mean, "speckle", 0)]
    lines = [["posterior mean", "1", *cells, "", price(mean["seconds"], report["n"])]]
    for row in report["rows"]:
        cells = [interval(row, key, digits) for key, digits in COLUMNS.values()]
        spent = price(row["seconds"], report["n"] * report["draws"])
        lines.append([f"`{row['sampler']}`", str(row["nfe"]), *cells, spent])
    return markdown(["sampler", "evaluations", *COLUMNS, "ms per draw"], lines)


def price(seconds: float, count: int) -> str:
    return f"{1000 * seconds / count:.1f}"


def difference_table(report: Mapping[str, Any]) -> str:
    """Write the paired differences from the reference at every budget."""
    shown = {"PSNR, dB": ("psnr", 2), "CRPS": ("crps", 4), "90 % coverage": ("coverage90", 3)}
    lines = []
    for row in report["rows"]:
        entry = row["differences"]
        if entry:
            cells = [difference(entry, key, digits) for key, digits in shown.values()]
            speckle = share(entry) if "speckle_ratio" in entry else ""
            lines.append([f"`{row['sampler']}`", str(row["budget"]), *cells, speckle])
    return markdown(["sampler", "budget", *shown, "speckle"], lines)


if __name__ == "__main__":
    sys.exit(main())
