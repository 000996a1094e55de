"""Write the results of the README from docs/results/default*.json; never edit them by hand.

    python benchmarks/update_readme.py [--check]

--check changes nothing and exits with 1 if the README differs from the results.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from pages import ROOT, paragraph, update

RESULTS = ROOT / "docs" / "results"


def main() -> int:
    return update(ROOT / "README.md", "update_readme.py", render)


def render() -> str:
    """Write what was measured of means and, where they were, of draws as Markdown."""
    means, draws = (RESULTS / f"{stem}.json" for stem in ("default", "default_samples"))
    parts = [table(json.loads(means.read_text()))]
    if draws.is_file():
        parts.append(trust(json.loads(draws.read_text())))
    return "\n\n".join(parts)


def table(report: dict[str, Any]) -> str:
    """Write the scores of the model and of the floors, best first."""
    rows = {"**`default`, posterior mean**": report["mean"]}
    rows |= {name: floor for name, floor in report["floors"].items()}
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
    drawn, kriging = report["samples"], report["floors"]["kriging"]
    command = (
        f"sparsefield evaluate default --data {report['data']} --split {report['split']} "
        f"--limit {report['n']} --samples {drawn['draws']} --floors kriging"
    )
    text = f"""Uncertainty, on the first {report["n"]:,} of them, {drawn["draws"]} draws each of
        {drawn["nfe"]} network evaluations: 90 % intervals hold {interval(drawn, "coverage90", 3)}
        of the truths, the variance of draws is {interval(drawn, "delta_cal", 2)} times the squared
        error of the mean, and the CRPS is {interval(drawn, "crps", 4)} against kriging's
        {interval(kriging, "crps", 4)}."""
    file = "docs/results/default_samples.json"
    return f"{paragraph(text)}\n\nMade by `{command} --json {file}`."


def interval(row: dict[str, Any], key: str, digits: int) -> str:
    """Write a score with its interval."""
    low, high = row[f"{key}_ci"]
    return f"{row[key]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    sys.exit(main())
