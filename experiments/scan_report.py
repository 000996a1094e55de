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
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from pages import ROOT, read, short, update

PAGE = ROOT / "docs" / "scan.md"
CHART = ROOT / "docs" / "images" / "scan_attention.png"
# The prototypes on two processors: seconds of a forward at 32 x 32, images/s in training
ORIGINAL = {"v1": (0.9, 2.5), "v2": (0.63, 5.7)}
Report = dict[str, Any]


def main() -> int:
    if "--check" not in sys.argv[1:]:
        draw_attention(read("scan_attention"))
    return update(PAGE, "scan_report.py", {"": render_all})


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
    lines = [
        f"**(B, L, D, N) = {shape}**",
        "",
        "| backend | forward, ms | forward + backward, ms | ns per token and channel "
        "| extra memory, sizes of u |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["forward_backward"].get("seconds", math.inf)):
        both = row["forward_backward"]
        per_token = cell(both, "seconds", 1e9 / (items * length * width), 2)
        memory = cell(both, "peak_bytes", 1 / (4 * items * length * width), 1)
        times = (cell(part, "seconds", 1e3, 1) for part in (row["forward"], both))
        lines.append(f"| `{row['backend']}` | {' | '.join([*times, per_token, memory])} |")
    refusals = {
        f"`{row['backend']}` refuses: {row[part]['refused']}."
        for row in rows
        for part in ("forward", "forward_backward")
        if "refused" in row[part]
    }
    notes = [ratios(rows), *sorted(refusals)]
    return "\n".join([*lines, *(f"\n{note}" for note in notes if note)])


def ratios(rows: list[Report]) -> str:
    """Say how many times as long as `cpu` its peers take, and `cpu` as its bound."""
    by_name = {row["backend"]: row for row in rows}
    notes = []
    for name in ("mambapy", "chunked", "exponentials"):
        if not measured(by_name, "cpu", name):
            continue
        times = [
            by_name[name][part]["seconds"] / by_name["cpu"][part]["seconds"]
            for part in ("forward", "forward_backward")
        ]
        if name == "exponentials":
            notes.append("`cpu` takes {:.1f} and {:.1f} times its bound".format(*inverse(times)))
        else:
            notes.append(
                f"`{name}` takes {times[0]:.0f} and {times[1]:.0f} times as long as `cpu`"
            )
    return "; ".join(notes) + " (forward; forward + backward)." if notes else ""


def measured(by_name: dict[str, Report], *names: str) -> bool:
    """Tell whether all of these have both times."""
    parts = ("forward", "forward_backward")
    return all(
        "seconds" in by_name.get(name, {}).get(part, {}) for name in names for part in parts
    )


def inverse(values: list[float]) -> list[float]:
    return [1 / value for value in values]


def render_attention(report: Report) -> str:
    """Write times per length beside attention, where they cross, and how constant they are."""
    names = list(dict.fromkeys(row["backend"] for row in report["rows"]))
    lines = [
        f"One item, D = {report['rows'][0]['shape'][2]}; scan and attention in float32, "
        f"`attention_bfloat16` cast; {head(report)} Slow ones ran fewer times.",
        "",
        "| tokens | " + " | ".join(f"`{name}` forward, + backward, ms" for name in names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for length, row in by_length(report).items():
        cells = (
            f"{cell(row[name]['forward'], 'seconds', 1e3, 1)}, "
            f"{cell(row[name]['forward_backward'], 'seconds', 1e3, 1)}"
            for name in names
        )
        lines.append(f"| {length:,} | {' | '.join(cells)} |")
    crossings = [
        crossing(report, name, part)
        for name in names
        if name != "cpu"
        for part in ("forward", "forward_backward")
    ]
    picture = f"![time against length](images/{CHART.name})"
    return "\n".join([*lines, "", *(f"- {c}" for c in crossings), f"- {constancy(report)}"]) + (
        f"\n\n{picture}"
    )


def by_length(report: Report) -> dict[int, dict[str, Report]]:
    """Return the rows by length and contestant."""
    table: dict[int, dict[str, Report]] = {}
    for row in report["rows"]:
        table.setdefault(row["shape"][1], {})[row["backend"]] = row
    return dict(sorted(table.items()))


def crossing(report: Report, name: str, part: str) -> str:
    """Say from which length on the scan is faster, by interpolation of logarithms."""
    passes = part.replace("_", " + ")
    points = [
        (length, math.log(row[name][part]["seconds"] / row["cpu"][part]["seconds"]))
        for length, row in by_length(report).items()
        if measured(row, "cpu", name)
    ]
    label = f"{passes} against `{name}`"
    if points[0][1] >= 0:
        return f"{label}: the scan is faster at every length measured, from {points[0][0]:,} on."
    for (shorter, below), (longer, above) in pairwise(points):
        if below < 0 <= above:
            share = -below / (above - below)
            where = math.exp(math.log(shorter) * (1 - share) + math.log(longer) * share)
            return f"{label}: the scan is faster from about {round(where, -2):,.0f} tokens on."
    return f"{label}: attention is faster at every length measured."


def constancy(report: Report) -> str:
    """Say how the scan's time per token changes from 2,048 tokens to the longest."""
    per_token = {
        length: 1e6 * row["cpu"]["forward_backward"]["seconds"] / length
        for length, row in by_length(report).items()
        if length >= 2048
    }
    mean = sum(per_token.values()) / len(per_token)
    low, high = (end / mean - 1 for end in (min(per_token.values()), max(per_token.values())))
    texts = ", ".join(f"{value:.2f} at {length:,}" for length, value in per_token.items())
    return (
        f"microseconds per token of `cpu`, forward + backward: {texts}; "
        f"between {low:+.0%} and {high:+.0%} of their mean, {mean:.2f}."
    )


def draw_attention(report: Report) -> None:
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
    """Compare the full-size models with the prototypes, in the setting of these."""
    lines = [
        "The prototypes were trained on as many points as were observed, and on no others; their "
        "figures were taken once from their own code, on two processors. In "
        f"that setting (`{' '.join(report['settings'])}`), batches of {report['batch_size']}, "
        f"{head(report)}",
        "",
        *(f"- {note}" for note in against_original(report)),
    ]
    return "\n".join(lines)


def against_original(report: Report) -> list[str]:
    """Compare the full-size models with the prototypes on two processors."""
    notes = []
    for row in report["rows"]:
        if row["preset"] in ORIGINAL:
            seconds, rate = ORIGINAL[row["preset"]]
            faster = seconds / row["forward_32"]["seconds"]
            images = row["training"]["images_per_second"]
            notes.append(
                f"`{row['preset']}`: a forward at 32 x 32 is {faster:.1f} times as fast as the "
                f"prototype's {seconds} s; it trains on {images:.1f} images/s, "
                f"{images / rate:.1f} times the prototype's {rate}."
            )
    return notes


def cell(result: Report, key: str, scale: float, digits: int) -> str:
    """Write a measured value in the unit of the column, a dash if there is none."""
    value = result.get(key)
    return "–" if value is None else f"{scale * value:,.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
