"""The result of an evaluation as the JSON that is published."""

import json
import math
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import sparsefield
from sparsefield.core.files import write_text
from sparsefield.evaluation.calibration import (
    POOLED,
    TABLES,
    calibration_tables,
    pool,
    reached_levels,
)
from sparsefield.evaluation.protocol import Protocol, Scores
from sparsefield.metrics import bootstrap_interval


@dataclass
class Evaluation:
    """Scores per field, and what they were measured on.

    Args:
        model: Name of the model, or "baselines".
        data: Name of the data set.
        fields: Number of fields N.
        protocol: Masks and seeds.
        device: Where the model ran.
        seconds: Time that the model took, or the baselines when they run alone.
        nfe: Network evaluations per field, all draws together; 0 for baselines.
        mean: Scores (N,) of the posterior mean, empty for baselines alone.
        samples: Scores of the draws on each field, empty without draws.
        sampling: How the draws were made: number, sampler, steps, nfe per draw.
        baselines: Scores (N,) of each baseline.
    """

    model: str
    data: str
    fields: int
    protocol: Protocol
    device: str = "cpu"
    seconds: float = 0.0
    nfe: int = 0
    mean: Scores = field(default_factory=dict)
    samples: Scores = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    baselines: dict[str, Scores] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return means and 95 % intervals; parts that were not evaluated are left out."""
        head = {
            "model": self.model,
            "data": self.data,
            "n": self.fields,
            "density": self.protocol.density,
            "split": self.protocol.split,
            "nfe": self.nfe,
            "seconds": self.seconds,
            "device": self.device,
            "commit": code_version(),
            "seed": self.protocol.seed,
        }
        parts = {
            "mean": summarise(self.mean),
            "samples": self.sampling | summarise(self.samples),
            "baselines": {name: summarise(scores) for name, scores in self.baselines.items()},
        }
        return head | {name: part for name, part in parts.items() if part}


def summarise(scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return each score over all fields, and its 95 % bootstrap interval as `NAME_ci`.

    That is the mean over fields, or the pooled ratio for pairs; tables go to `calibration`. What
    does not exist, as the PSNR on missing points when none is, is left out; seconds are summed
    and have no interval.
    """
    summary: dict[str, Any] = {}
    for name, values in scores.items():
        if name in TABLES or np.isnan(values).any():
            continue
        if name == "seconds":
            summary[name] = float(values.sum())
            continue
        statistic: Callable[[np.ndarray], float] = np.mean
        if name in POOLED:
            statistic = partial(pool, name)
        if not math.isnan(value := float(statistic(values))):
            summary[name] = value
            summary[f"{name}_ci"] = list(bootstrap_interval(values, statistic=statistic))
    if tables := calibration_tables(scores):
        summary |= reached_levels(scores) | {"calibration": tables}
    return summary


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report as JSON.

    Raises:
        InputError: The file cannot be written.
    """
    write_text(path, json.dumps(report, indent=2) + "\n")


def verdict(report: Mapping[str, Any]) -> str:
    """Say whether a baseline has a higher PSNR than the model; empty without both."""
    if "mean" not in report or "baselines" not in report:
        return ""
    psnr = {name: baseline["psnr"] for name, baseline in report["baselines"].items()}
    best = max(psnr, key=lambda name: psnr[name])
    lead = report["mean"]["psnr"] - psnr[best]
    if lead > 0:
        return (
            f"{report['model']} beats every baseline; the best one, {best}, by {lead:.2f} dB PSNR."
        )
    winners = [name for name in psnr if psnr[name] >= report["mean"]["psnr"]]
    return (
        f"{', '.join(winners)} win over {report['model']} on PSNR; {best} by {-lead:.2f} dB."
        if len(winners) > 1
        else f"{best} wins over {report['model']} on PSNR, by {-lead:.2f} dB."
    )


def code_version() -> str:
    """Return the git commit of the package's checkout, "-dirty" if changed, else the version."""
    folder = Path(sparsefield.__file__).parent
    # A repository around an installed copy, such as a user's own, does not track its files.
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    commit = tracked and _git(
        folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"
    )
    return commit or sparsefield.__version__


def _git(folder: Path, *arguments: str) -> str:
    """Return the output of a git command, empty if it fails or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
