"""Write the results table of the README from docs/results/default.json; never edit it by hand.

    python benchmarks/update_readme.py [--check]

--check changes nothing and exits with 1 if the README differs from the results.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from pages import ROOT, update

RESULTS = ROOT / "docs" / "results" / "default.json"


def main() -> int:
    return update(
        ROOT / "README.md", "update_readme.py", lambda: render(json.loads(RESULTS.read_text()))
    )


def render(report: dict[str, Any]) -> str:
    """Write the scores of the model and of the floors as Markdown, best first."""
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


def interval(row: dict[str, Any], key: str, digits: int) -> str:
    """Write a score with its interval."""
    low, high = row[f"{key}_ci"]
    return f"{row[key]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    sys.exit(main())
