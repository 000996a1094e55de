"""Write the results of the README from docs/results; never edit them by hand.

    python experiments/update_readme.py [--check]

--check changes nothing and exits with 1 if the README differs from the results.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import superres_report
from pages import ROOT, paragraph, update

from sparsefield.evaluation.superres import ENLARGED

RESULTS = ROOT / "docs" / "results"


def main() -> int:
    return update(ROOT / "README.md", "update_readme.py", render)


def render() -> str:
    """Write what was measured of means, draws and finer grids as Markdown."""
    writers = {"default": table, "default_samples": trust, "superres_tiny_imagenet": finer}
    return "\n\n".join(
        write(json.loads((RESULTS / f"{stem}.json").read_text()))
        for stem, write in writers.items()
    )


def table(report: dict[str, Any]) -> str:
    """Write the scores of the model and of the baselines, best first."""
    rows = {"**`default`, posterior mean**": report["mean"]}
    rows |= {name: baseline for name, baseline in report["baselines"].items()}
    ranked = sorted(rows.items(), key=lambda row: -row[1]["psnr"])
    per_image = 1e3 * report["seconds"] / report["n"]
    lines = [
        f"CIFAR-10 (`{report['data']}` {report['split']}, {report['n']:,} images, "
        f"{report['density']:.0%} of the pixels observed, seed {report['seed']}), 95 % bootstrap "
        f"intervals; the model takes {per_image:.0f} ms per image on 2 CPU cores:",
        "",
        "| method | PSNR, dB | SSIM |",
        "|---|---|---|",
    ]
    for name, row in ranked:
        lines.append(f"| {name} | {interval(row, 'psnr', 2)} | {interval(row, 'ssim', 3)} |")
    command = "sparsefield evaluate default --data cifar10_lossless --split validation"
    return "\n".join([*lines, "", f"Made by `{command} --json docs/results/default.json`."])


def trust(report: dict[str, Any]) -> str:
    """Say whether the draws are as far from the truth as they are from each other."""
    drawn, kriging = report["samples"], report["baselines"]["kriging"]
    command = (
        f"sparsefield evaluate default --data {report['data']} --split {report['split']} "
        f"--limit {report['n']} --samples {drawn['draws']} --baselines kriging"
    )
    text = f"""Uncertainty, on the first {report["n"]:,} of them, {drawn["draws"]} draws each of
        {drawn["nfe"]} network evaluations: 90 % intervals hold {interval(drawn, "coverage90", 3)}
        of the truths, the variance of draws is {interval(drawn, "delta_cal", 2)} times the squared
        error of the mean, and the CRPS is {interval(drawn, "crps", 4)} against kriging's
        {interval(kriging, "crps", 4)}."""
    file = "docs/results/default_samples.json"
    return f"{paragraph(text)}\n\nMade by `{command} --json {file}`."


def finer(report: dict[str, Any]) -> str:
    """Say what asking for cells finer than the observed ones is worth."""
    ((size, part),) = report["sizes"].items()
    ranked = sorted(part["baselines"], key=lambda name: -part["baselines"][name]["psnr"])
    own, other = (
        next(name for name in ranked if (name in ENLARGED) is kind) for kind in (True, False)
    )
    text = f"""Finer than what is observed, on {report["n"]:,} images of `{report["data"]}`
        {report["split"]}: from {report["density"]:.0%} of {report["observed"]} x
        {report["observed"]} cells to the truth at {size} x {size}, the mean has
        {interval(part["mean"], "psnr", 2)} dB. Image by image that is {gain(part, other)} dB more
        than {other}, the best baseline on the same points, and {gain(part, own)} dB more than its
        own 32 x 32 mean, enlarged ({own})."""
    made = superres_report.command("superres_tiny_imagenet", report)
    return f"{paragraph(text)}\n\nMade by `{made}`."


def gain(part: dict[str, Any], baseline: str) -> str:
    """Write by how much the mean is better than a baseline, with its interval."""
    paired = part["differences"][baseline]
    low, high = (-end for end in reversed(paired["psnr_ci"]))
    return f"{-paired['psnr']:.3f} [{low:.3f}, {high:.3f}]"


def interval(row: dict[str, Any], key: str, digits: int) -> str:
    """Write a score with its interval."""
    low, high = row[f"{key}_ci"]
    return f"{row[key]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    sys.exit(main())
