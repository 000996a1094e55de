"""Write the measured part of docs/scan.md and its chart from results/, never by hand.

    python experiments/bench_scan.py --threads 2 --json results/scan.json
    sparsefield bench scan --threads 2 --backends cpu attention attention_bfloat16 --patience 30 \
        --shapes 1x256x256x16 1x1024x256x16 1x2048x256x16 1x4096x256x16 1x16384x256x16 \
        1x65536x256x16 --json results/scan_attention.json
    sparsefield bench model --threads 2 --patience 20 --json results/models.json
    sparsefield bench model --threads 2 --presets v1 v2 --settings data.target=disjoint \
        data.masks=fixed --json results/models_sparse.json
    python experiments/scan_report.py [--check]

--check changes nothing and exits with 1 if the page differs from the results.
"""

import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from pages import ROOT, markdown, read, short, update

PAGE = ROOT / "docs" / "scan.md"
CHART = ROOT / "docs" / "images" / "scan_attention.png"
# What is measured of every backend.
PASSES = ("forward", "forward_backward")
# The prototypes on two processors: seconds of a forward at 32 x 32, images/s in training
ORIGINAL = {"v1": (0.9, 2.5), "v2": (0.63, 5.7)}
Report = dict[str, Any]


def main() -> int:
    if "--check" not in sys.argv[1:]:
        plot_attention(read("scan_attention"))
    return update(PAGE, "scan_report.py", {"": render_all, "threads": render_threads})


def render_all() -> str:
    """Write everything that was measured as Markdown."""
    attention = read("scan_attention")
    parts = [
        "### Backends",
        render(read("scan")),
        "### Length, and attention",
        render_attention(attention),
        "### Whole models",
        render_models(read("models")),
        render_sparse(read("models_sparse")),
    ]
    return "\n\n".join(parts)


def render_threads() -> str:
    """Write what neighbours do to one thread and to several as a table."""
    report = read("threads")
    rows = [
        [
            str(row["neighbours"]),
            str(row["others"]),
            f"({row['shape'].replace('x', ', ')})",
            *(f"{1e3 * row['seconds'][name]:,.0f}" for name in ("one", "always", "judged")),
            f"{row['seconds']['judged'] / row['seconds']['one']:.2f}",
        ]
        for row in report["rows"]
    ]
    titles = ["busy neighbours", "others running", "(B, L, D, N)", "one thread, ms"]
    titles += [f"{report['threads']} always, ms", "judged, ms", "judged over one"]
    place = f"{report['device']}, PyTorch {report['torch']}, mean of {report['rounds']} turns"
    return f"Forward and backward; {place}.\n\n{markdown(titles, rows)}"


def head(report: Report) -> str:
    """Say where and with what a benchmark was run."""
    return (
        f"{report['device']}, {report['threads']} threads, PyTorch {report['torch']}, "
        f"median of {report['repeats']}, commit `{short(report['commit'])}`."
    )


def render(report: Report) -> str:
    """Write one table per shape, fastest training first, what was refused, and the bound."""
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in report["rows"]))
    tables = [
        render_shape(shape, [row for row in report["rows"] if tuple(row["shape"]) == shape])
        for shape in shapes
    ]
    return "\n\n".join([f"float32; {head(report)}", *tables])


def render_shape(shape: tuple[int, ...], rows: list[Report]) -> str:
    """Write the table of one shape (B, L, D, N)."""
    items, length, width, _ = shape
    titles = ["backend", "forward, ms", "forward + backward, ms", "times `cpu`"]
    titles += ["ns per token and channel", "extra memory, sizes of u"]
    cpu = next((row for row in rows if row["backend"] == "cpu"), {})
    lines = []
    for row in sorted(rows, key=lambda row: row["forward_backward"].get("seconds", math.inf)):
        both = row["forward_backward"]
        times = [cell(part, "seconds", 1e3, 1) for part in (row["forward"], both)]
        per_token = cell(both, "seconds", 1e9 / (items * length * width), 2)
        memory = cell(both, "peak_bytes", 1 / (4 * items * length * width), 1)
        lines.append([f"`{row['backend']}`", *times, ratios(row, cpu), per_token, memory])
    refusals = {
        f"`{row['backend']}` refuses: {row[part]['refused']}."
        for row in rows
        for part in PASSES
        if "refused" in row[part]
    }
    table = f"**(B, L, D, N) = {shape}**\n\n{markdown(titles, lines)}"
    return "\n\n".join([table, *sorted(refusals)])


def ratios(row: Report, cpu: Report) -> str:
    """Write the times of a backend over those of `cpu`, where both have some."""
    found = [
        cell(row[part], "seconds", 1 / cpu[part]["seconds"], 2)
        for part in PASSES
        if "seconds" in cpu.get(part, {})
    ]
    return ", ".join(found)


def render_attention(report: Report) -> str:
    """Write times per length beside attention."""
    names = list(dict.fromkeys(row["backend"] for row in report["rows"]))
    titles = [f"`{name}` forward, + backward, ms" for name in names]
    lines = []
    for length, row in by_length(report).items():
        cells = [
            ", ".join(cell(row[n][part], "seconds", 1e3, 1) for part in PASSES) for n in names
        ]
        per_token = cell(row["cpu"]["forward_backward"], "seconds", 1e6 / length, 2)
        lines.append([f"{length:,}", *cells, per_token])
    what = (
        f"One item, D = {report['rows'][0]['shape'][2]}; scan and attention in float32, "
        f"`attention_bfloat16` cast; {head(report)} Slow ones ran fewer times."
    )
    table = markdown(["tokens", *titles, "`cpu`, both, µs per token"], lines)
    return f"{what}\n\n{table}\n\n![time against length](images/{CHART.name})"


def by_length(report: Report) -> dict[int, dict[str, Report]]:
    """Return the rows by length and contestant."""
    table: dict[int, dict[str, Report]] = {}
    for row in report["rows"]:
        table.setdefault(row["shape"][1], {})[row["backend"]] = row
    return dict(sorted(table.items()))


def plot_attention(report: Report) -> None:
    """Draw time against length for the scan and attention."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    for axes, part in zip(
        figure.subplots(1, 2, sharey=True), ("forward", "forward_backward"), strict=True
    ):
        for name in dict.fromkeys(row["backend"] for row in report["rows"]):
            rows = [(n, row[name][part]) for n, row in by_length(report).items() if name in row]
            known = [(n, 1e3 * row["seconds"]) for n, row in rows if "seconds" in row]
            axes.loglog(
                *zip(*known, strict=True), marker="o", label=name.replace("cpu", "scan, cpu")
            )
        axes.set_title(part.replace("_", " + "))
        axes.set_xlabel("tokens")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("milliseconds")
    figure.axes[0].legend()
    CHART.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(CHART, dpi=120)


def render_models(report: Report) -> str:
    """Write forward times, training speed and memory of every preset."""
    mebibyte = 1 / 2**20
    lines = [
        f"Autocast as named, batches of {report['batch_size']} in training, fields "
        f"observed as in training; {head(report)}",
        "",
        "| preset | parameters | autocast | 32 x 32, ms | 64 x 64, ms (MiB) "
        "| training, images/s (MiB) |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        times = [cell(row[f"forward_{size}"], "seconds", 1e3, 0) for size in (32, 64)]
        memory = cell(row["forward_64"], "peak_bytes", mebibyte, 0)
        rate = cell(row["training"], "images_per_second", 1, 1)
        peak = cell(row["training"], "peak_bytes", mebibyte, 0)
        lines.append(
            f"| `{row['preset']}` | {row['parameters']:,} | {row['autocast']} | {times[0]} "
            f"| {times[1]} ({memory}) | {rate} ({peak}) |"
        )
    return "\n".join(lines)


def render_sparse(report: Report) -> str:
    """Write the full-size models beside the prototypes, in the setting of these."""
    lines = [
        [
            f"`{row['preset']}`",
            f"{row['forward_32']['seconds']:.2f} ({ORIGINAL[row['preset']][0]})",
            f"{row['training']['images_per_second']:.1f} ({ORIGINAL[row['preset']][1]})",
        ]
        for row in report["rows"]
    ]
    what = (
        "The prototypes were trained on as many points as were observed, and on no others; their "
        "figures, in brackets, were taken once from their own code, on two processors. In "
        f"that setting (`{' '.join(report['settings'])}`), batches of {report['batch_size']}, "
        f"{head(report)}"
    )
    titles = ["preset", "forward at 32 x 32, s (prototype)", "training, images/s (prototype)"]
    return f"{what}\n\n{markdown(titles, lines)}"


def cell(result: Report, key: str, scale: float, digits: int) -> str:
    """Write a measured value in the unit of the column, a dash if there is none."""
    value = result.get(key)
    return "–" if value is None else f"{scale * value:,.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
