"""Write the results of the README from results/; never edit them by hand.

    python experiments/update_readme.py [--check]

--check changes nothing and exits with 1 if the README differs from the results.
"""

import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from pages import ROOT, interval, markdown, read_as, update

from sparsefield.evaluation.comparison import Evaluation


def main() -> int:
    return update(ROOT / "README.md", "update_readme.py", {"": render})


def render() -> str:
    """Write what was measured of means and samples as Markdown."""
    parts = (table(read_as(Evaluation, "default")), trust(read_as(Evaluation, "default_samples")))
    return "\n\n".join(parts)


def table(report: Evaluation) -> str:
    """Write the scores of the model and of the baselines, best first."""
    assert report.mean is not None and report.baselines is not None
    head = report.head
    rows = {"**`default`, posterior mean**": report.mean, **report.baselines}
    ranked = sorted(rows.items(), key=lambda row: -row[1]["psnr"].value)
    lines = [[name, interval(row, "psnr", 2), interval(row, "ssim", 3)] for name, row in ranked]
    per_image = 1e3 * report.seconds / head.n
    return "\n".join(
        [
            f"CIFAR-10 (`{head.data}` {head.split}, {head.n:,} images, {head.density:.0%} of the "
            f"pixels observed, seed {head.seed}), 95 % bootstrap intervals; the model takes "
            f"{per_image:.0f} ms per image on 2 CPU cores:",
            "",
            markdown(["method", "PSNR, dB", "SSIM"], lines),
            "",
            "Made by `sparsefield evaluate default --data cifar10_lossless --split validation "
            "--json results/default.json`.",
        ]
    )


def trust(report: Evaluation) -> str:
    """Write how far the samples are from the truth, and from each other."""
    assert report.samples is not None and report.samples.sampling is not None
    assert report.baselines is not None
    head, samples, how = report.head, report.samples, report.samples.sampling
    text = f"""Uncertainty, on the first {head.n:,} of them, {how.samples} posterior samples each
        of {how.nfe} network evaluations: 90 % intervals hold {interval(samples, "coverage90", 3)}
        of the truths, the variance of the samples is {interval(samples, "delta_cal", 2)} times the
        squared error of the mean, and the CRPS is {interval(samples, "crps", 4)} against kriging's
        {interval(report.baselines["kriging"], "crps", 4)}."""
    command = (
        f"sparsefield evaluate default --data {head.data} --split {head.split} --limit {head.n} "
        f"--samples {how.samples} --baselines kriging --json results/default_samples.json"
    )
    return f"{paragraph(text)}\n\nMade by `{command}`."


def paragraph(text: str) -> str:
    """Put white space in order and break lines."""
    return textwrap.fill(" ".join(text.split()), 110, break_on_hyphens=False)


if __name__ == "__main__":
    sys.exit(main())
