"""Kriging beside other packages' on the public tables of scattered points, in the data's units.

    python experiments/check_kriging.py TABLES --limit 500

TABLES is a folder of CSV files with columns x, y, values and split (train, test). Needs
scikit-learn and PyKrige. Prints a Markdown table: RMSE and CRPS in units of the standard deviation
of the hidden values, coverage of 90 % intervals, seconds, and the geometric mean of ratios.
"""

import argparse
import csv
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from sparsefield.baselines.registry import available_baselines, reconstruct_baseline
from sparsefield.metrics import crps_gaussian

METHODS = ("kriging", "sklearn_gp", "pykrige", "tps")
PLACES = ("x", "y")
QUANTILE_95 = 1.6449


def tables(folder: Path, limit: int) -> Iterator[tuple[str, np.ndarray, ...]]:
    """Yield name, coords, values, queries and truth of each variable of each table.

    Args:
        folder: Where the CSV files are.
        limit: Measurements at most, a random part of more.
    """
    for path in sorted(folder.glob("*.csv")):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        if "split" not in rows[0]:
            continue
        places = np.array([[float(row[name]) for name in PLACES] for row in rows])
        train = np.array([row["split"] == "train" for row in rows])
        for name in (key for key in rows[0] if key not in (*PLACES, "split")):
            values = np.array([[float(row[name] or "nan")] for row in rows])
            known = np.isfinite(values[:, 0])
            given = np.flatnonzero(known & train)
            given = np.random.default_rng(0).permutation(given)[:limit]
            hidden = known & ~train
            label = f"{path.stem} {name}"
            yield label, places[given], values[given], places[hidden], values[hidden]


def score(
    name: str, coords: np.ndarray, values: np.ndarray, query: np.ndarray, truth: np.ndarray
) -> tuple[float, ...]:
    """Return RMSE, CRPS, coverage of 90 % and seconds of a baseline."""
    found = reconstruct_baseline(name, coords, values, query)
    scale = truth.std()
    error = found.mean - truth
    rmse = float(np.sqrt((error**2).mean()) / scale)
    if found.std is None:
        return rmse, np.nan, np.nan, found.seconds
    mean, std, real = (torch.from_numpy(x)[None] for x in (found.mean, found.std, truth))
    crps = float(crps_gaussian(mean, std, real).mean() / scale)
    coverage = float((np.abs(error) <= QUANTILE_95 * found.std).mean())
    return rmse, crps, coverage, found.seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path)
    parser.add_argument("--limit", type=int, default=500, help="measurements of a variable")
    parser.add_argument("--methods", default=",".join(METHODS))
    chosen = parser.parse_args()
    names = chosen.methods.split(",")
    if missing := set(names) - set(available_baselines(2, peers=True)):
        parser.error(f"not installed: {', '.join(sorted(missing))}")
    warnings.simplefilter("ignore")
    print(
        "| variable | n | " + " | ".join(f"{name} RMSE / CRPS / 90 % / s" for name in names) + " |"
    )
    print("|---" * (2 + len(names)) + "|", flush=True)
    ratios = []
    for label, *points in tables(chosen.tables, chosen.limit):
        scores = np.array([score(name, *points) for name in names])
        cells = [f"{r:.3f} / {c:.3f} / {k:.2f} / {s:.1f}" for r, c, k, s in scores]
        print(f"| {label} | {len(points[0])} | {' | '.join(cells)} |", flush=True)
        ratios.append(scores[:, :2] / scores[0, :2])
    means = np.exp(np.log(ratios).mean(axis=0))
    print(
        "| geometric mean over the first | | "
        + " | ".join(f"{r:.3f} / {c:.3f}" for r, c in means)
        + " |"
    )


if __name__ == "__main__":
    main()
