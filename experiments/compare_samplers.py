"""Compare the samplers of a model at equal evaluations, and write chart and tables.

    python experiments/compare_samplers.py --data DATA [--model default]
    python experiments/compare_samplers.py --report-only
    python experiments/compare_samplers.py --check

Writes results/samplers.json, and the chart and the tables of docs/results/samplers.md. The first
sampler is the one that the others are compared with; it is also run with --exact evaluations, to
say how far from converged the cheap ones are. --report-only writes chart and tables anew from the
results. --check changes nothing and exits with 1 if the page differs from them.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from pages import ROOT, compress_chart, difference, interval, markdown, read_as, share, update

from sparsefield.core.devices import choose_device
from sparsefield.core.errors import InputError
from sparsefield.data.dataset import open_dataset
from sparsefield.evaluation.charts import trade_off_figure
from sparsefield.evaluation.report import write_report
from sparsefield.evaluation.samplers import SamplerComparison, compare_samplers, plan_budgets
from sparsefield.evaluation.task import Protocol, check_fit
from sparsefield.figures.panels import save_figure
from sparsefield.inference.model import load

SCRIPT = "compare_samplers.py"
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
# Title -> score, digits, factor.
COLUMNS = {
    "PSNR of one sample, dB": ("psnr", 2, 1),
    "of the average of all, dB": ("psnr_average", 2, 1),
    "CRPS": ("crps", 4, 1),
    "residual, 1e-6": ("speckle", 0, 1e6),
    "90 % coverage": ("coverage90", 3, 1),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="default")
    parser.add_argument("--data", metavar="D")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), metavar="NAME")
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS), metavar="N")
    parser.add_argument("--exact", type=int, default=100, metavar="N")
    parser.add_argument("--out", type=Path, default=ROOT, help="results and docs lie there")
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    try:
        if not options.report_only and not options.check:
            measure(options)
        return write_page(options.out, check=options.check)
    except InputError as error:
        print(f"compare_samplers: error: {error}", file=sys.stderr)
        return 2


def measure(options: argparse.Namespace) -> None:
    """Compare the samplers and write the results as JSON."""
    if not options.data:
        raise InputError("--data is needed")
    model = load(options.model, choose_device("auto"))
    fields = open_dataset(options.data, options.split, options.limit, size=model.spec.shape)
    check_fit(model, fields)
    plans = [
        plan_budgets(options.samplers, options.budgets),
        plan_budgets(options.samplers[:1], [options.exact]),
    ]
    whole, exact = (
        compare_samplers(
            model,
            fields,
            Protocol(split=options.split),
            plan=plan,
            samples=options.samples,
            announce=lambda what: print(what, flush=True),
        )
        for plan in plans
    )
    report = replace(whole, rows=whole.rows + exact.rows)
    write_report(options.out / "results" / "samplers.json", report)


def write_page(folder: Path, *, check: bool) -> int:
    """Write the chart and the tables of the page from the results, and from nothing else."""
    results, pages = folder / "results", folder / "docs" / "results"
    if not (results / "samplers.json").is_file():
        raise InputError(f"no results at {results / 'samplers.json'}; measure first")
    report = read_as(SamplerComparison, "samplers", results)
    if not check:
        save_figure(trade_off_figure(report), chart := pages / "images" / "samplers.png")
        compress_chart(chart)
    page = pages / "samplers.md"
    if not page.is_file():
        return 0
    parts = {
        "scores": lambda: score_table(report),
        "differences": lambda: difference_table(report),
    }
    return update(page, SCRIPT, parts, check=check, folder=results)


def score_table(report: SamplerComparison) -> str:
    """Write the scores of all samplers at all budgets."""
    mean = report.mean
    cells = [interval(mean, "psnr", 2), "", interval(mean, "mae", 4)]
    cells += [interval(mean, "speckle", 0, 1e6), ""]
    assert mean.seconds is not None, "the mean was timed"
    lines = [["posterior mean", "1", *cells, "", milliseconds(mean.seconds, report.head.n)]]
    exact = max(report.rows, key=lambda row: row.nfe).scores["crps"].value
    for row in report.rows:
        cells = [interval(row.scores, *column) for column in COLUMNS.values()]
        gap = f"{row.scores['crps'].value / exact - 1:+.1%}"
        spent = milliseconds(row.seconds, report.head.n * report.samples)
        lines.append([f"`{row.sampler}`", str(row.nfe), *cells, gap, spent])
    head = ["sampler", "evaluations", *COLUMNS, "CRPS above converged", "ms per sample"]
    return markdown(head, lines)


def milliseconds(seconds: float, count: int) -> str:
    return f"{1000 * seconds / count:.1f}"


def difference_table(report: SamplerComparison) -> str:
    """Write the paired differences from the first sampler at every budget."""
    columns = {"PSNR, dB": ("psnr", 2), "CRPS": ("crps", 4), "90 % coverage": ("coverage90", 3)}
    lines = []
    for row in report.rows:
        if row.differences is not None:
            cells = [difference(row.differences, *column) for column in columns.values()]
            residual = share(row.differences, "speckle")
            lines.append([f"`{row.sampler}`", str(row.budget), *cells, residual])
    return markdown(["sampler", "budget", *columns, "residual energy"], lines)


if __name__ == "__main__":
    sys.exit(main())
