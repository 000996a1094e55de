"""The page docs/results/architectures.md, made from architectures.json by train_architectures.py.

Every number and every verdict comes from the results; nothing is typed in.
"""

from collections.abc import Mapping
from typing import Any

from pages import bullets, difference, interval, markdown, paragraph

from sparsefield.evaluation.comparison import contrast, findings

# What the prototypes' documents promise of V2 over V1, never measured there.
CLAIMED_DECIBELS = (3.0, 5.0)
CLAIMED_FEWER_SPECKLES = (0.7, 0.8)

Results = Mapping[str, Any]


def render(results: Results) -> str:
    """Write the whole page as Markdown."""
    parts = [
        introduction(results),
        "## What wins\n\n" + bullets(findings(results["comparison"])),
        untrained(results["comparison"]),
        "## Scores\n\n" + score_table(results["comparison"]),
        "![Scores of all contestants with intervals](images/architectures/scores.png)\n\n"
        "![Posterior means and their errors](images/architectures/means.png)\n\n"
        "![One draw of each model and its error](images/architectures/draws.png)",
        "## Training\n\n" + training_table(results["rows"]),
        versions(results["comparison"]),
        scan_orders(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def untrained(report: Results) -> str:
    """Say which models the budget was too short for; empty if none."""
    rows = report["contestants"]
    if "nearest" not in rows:
        return ""
    baseline = rows["nearest"]["mean"]["psnr"]
    below = [
        name
        for name in report["ranking"]
        if rows[name]["kind"] == "model" and rows[name]["mean"]["psnr"] < baseline
    ]
    if not below:
        return ""
    return paragraph(
        f"""{", ".join(below)}: below the nearest observed value ({baseline:.2f} dB). The budget is
        too short for them; differences among them say how fast they start to learn, and not how
        good they become."""
    )


def introduction(results: Results) -> str:
    """Say what was done, how to do it again, and what the intervals do not cover."""
    rows, report = results["rows"], results["comparison"]
    first = next(iter(rows.values()))
    data = " ".join(f"--data {name}" for name in first["data"])
    command = f"python experiments/train_architectures.py {data} --validation"
    how = f"""The first command trains {len(rows)} models for {results["minutes"]:g} CPU-minutes
        each, on one core with one thread, and compares them; started again, it resumes. The second
        only writes this page and the chart anew. The number of steps is fixed before training from
        the CPU seconds of a step. All rows have the same data, masks, objective, seed and batches
        of {first["batch_size"]}; the architecture, what it predicts and its learning rate
        differ."""
    scores = f"""Scores are those of {report["n"]:,} fields of `{report["data"]}`
        ({report["split"]} masks of seed {report["seed"]}, {report["density"]:.0%} observed) with
        95 % bootstrap intervals{drawn(report)}. Masks and noise are identical for all contestants.
        Differences are paired by field; "significant" holds at 5 % for all
        {report["comparisons"]} comparisons of a score together ({report["correction"]}). **There
        is one training run per row**: intervals are over fields, and another training seed may
        move a model by more than a small difference."""
    return f"""# Architectures at an equal budget

Made by `experiments/train_architectures.py` from `architectures.json`; never edited by hand.

```
{command} {results["validation"]}
python experiments/train_architectures.py --report-only
```

{paragraph(how)}

{paragraph(scores)}"""


def drawn(report: Results) -> str:
    """Say what draws were made of."""
    samples = [row["samples"] for row in report["contestants"].values() if "samples" in row]
    how = next((row for row in samples if "draws" in row), None)
    if how is None:
        return ""
    return (
        f"; draws are {how['draws']} per field for the first {how['n']:,} fields, "
        f"{how['sampler']} with {how['steps']} steps"
    )


def score_table(report: Results) -> str:
    """Write the scores of all contestants, best PSNR first."""
    columns = {
        "PSNR, dB": ("mean", "psnr", 2),
        "SSIM": ("mean", "ssim", 3),
        "speckle, 1e-6": ("mean", "speckle", 0),
        "one draw: PSNR, dB": ("samples", "psnr", 2),
        "CRPS": ("samples", "crps", 4),
        "one draw: speckle, 1e-6": ("samples", "speckle", 0),
    }
    reference = report["reference"]
    lines = []
    for name in report["ranking"]:
        row = report["contestants"][name]
        cells = [
            interval(row.get(part, {}), key, digits) for part, key, digits in columns.values()
        ]
        shown = name if row["kind"] == "model" else f"*{name}* (baseline)"
        lines.append([shown, *cells, difference(report["differences"].get(name, {}), "psnr")])
    table = markdown(["", *columns, f"PSNR - {reference}, dB"], lines)
    return f"{table}\n\n\\* significant."


def training_table(rows: Results) -> str:
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


def short(commit: str) -> str:
    """Shorten a commit, but keep that its files had been changed."""
    number, mark, state = commit.partition("-")
    return number[:12] + mark + state


def versions(report: Results) -> str:
    """Hold what the prototypes claim of V2 over V1 against what was measured."""
    pair = {"v1", "v2"}
    if not pair <= report["contestants"].keys() or report["reference"] not in pair:
        return ""
    (other,) = pair - {report["reference"]}
    entry, flip = report["differences"][other], report["reference"] == "v2"
    lines = []
    for score, what in (("psnr", "PSNR of the mean"), ("sample_psnr", "PSNR of one draw")):
        if score in entry:
            value, low, high = gain(entry, score, flip)
            shown = f"{value:+.2f} dB [{low:+.2f}, {high:+.2f}]"
            lines.append([what, "+3 to +5 dB", shown, judge(low, high, CLAIMED_DECIBELS)])
    for score, what in (
        ("sample_speckle", "speckle energy of one draw"),
        ("speckle", "speckle energy of the mean"),
    ):
        if f"{score}_ratio" in entry:
            value, low, high = fewer(entry, score, flip)
            shown = f"{-value:+.0%} [{-high:+.0%}, {-low:+.0%}]"
            lines.append([what, "-70 to -80 %", shown, judge(low, high, CLAIMED_FEWER_SPECKLES)])
    table = markdown(["V2 against V1", "claimed by the prototypes", "measured", "claim"], lines)
    note = """The prototypes promise this of larger models after 1,000 epochs, and never measured
        it. Confirmed: the whole interval reaches the claim. Not confirmed: none of it does."""
    return f"## V2 against V1\n\n{table}\n\n{paragraph(note)}"


def gain(entry: Results, score: str, flip: bool) -> tuple[float, float, float]:
    """Return V2 - V1 and its interval; `flip` if the entry is V1 - V2."""
    low, high = entry[f"{score}_ci"]
    return (-entry[score], -high, -low) if flip else (entry[score], low, high)


def fewer(entry: Results, score: str, flip: bool) -> tuple[float, float, float]:
    """Return by which share V2 has less energy than V1; `flip` if the ratio is V1 / V2."""
    low, high = entry[f"{score}_ratio_ci"]
    ratio = entry[f"{score}_ratio"]
    if flip:
        return 1 - 1 / ratio, 1 - 1 / low, 1 - 1 / high
    return 1 - ratio, 1 - high, 1 - low


def judge(low: float, high: float, claim: tuple[float, float]) -> str:
    """Say whether an interval reaches the lower end of a claim."""
    if low >= claim[0]:
        return "confirmed"
    if high < claim[0]:
        return "not confirmed" if low > 0 else "not confirmed, no gain shown"
    return "open"


def scan_orders(results: Results) -> str:
    """Compare the orders in which V2 reads points; its own is the reference."""
    report = results["comparison"]
    orders = {name: scan_order(row) for name, row in results["rows"].items()}
    orders = {name: order for name, order in orders.items() if order}
    if not orders or report["reference"] != "v2":
        return ""
    scores = {"psnr": ("PSNR, dB", 2), "ssim": ("SSIM", 4)}
    scores |= {"sample_psnr": ("PSNR of one draw, dB", 2), "crps": ("CRPS", 4)}
    differences = {orders[name]: report["differences"][name] for name in orders}
    mean = {orders[name]: report["contestants"][name]["mean"] for name in orders}
    mean["hilbert"] = report["contestants"]["v2"]["mean"]
    lines = []
    for order in sorted(mean, key=lambda order: -mean[order]["psnr"]):
        entry = differences.get(order, {})
        cells = [difference(entry, score, digits) for score, (_, digits) in scores.items()]
        lines.append([order, interval(mean[order], "psnr", 2), *cells])
    head = ["order", "PSNR, dB", *(f"{title} - hilbert" for title, _ in scores.values())]
    return (
        "## The order in which V2 reads points\n\n"
        f"{markdown(head, lines)}\n\n\\* significant.\n\n"
        + bullets(contrast(differences, "the Hilbert order"))
    )


def scan_order(row: Results) -> str:
    """Return the order that a row sets, or nothing."""
    values = [text.partition("=") for text in row["overrides"]]
    return next((value for key, _, value in values if key == "model.order"), "")
