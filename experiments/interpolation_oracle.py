"""Score the universal interpolator on Gaussian fields of known covariance, against the oracle.

    python experiments/interpolation_oracle.py --json OUT.json [--weights W] [--fields 12]

The oracle krigs with the true covariance, noise and mean. Ratios of root mean square errors to its
own are pooled over the fields of a row: the root of the ratio of summed squares.
"""

import argparse
import itertools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from interpolation_baselines import CORRELATIONS, kriging
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist

from sparsefield.core.files import write_json
from sparsefield.inference.interpolation import interpolate
from sparsefield.inference.interpolator import BUNDLED, build_interpolator, load_interpolator
from sparsefield.inference.measurements import Measurements
from sparsefield.models.universal import UniversalInterpolator

LENGTHS = (0.1, 0.3, 1.0)  # in sides of the domain
NUGGETS = (0.0, 0.1, 1.0)  # in variances of the field
QUERIES = 100


class Field(NamedTuple):
    """A Gaussian field, measured at random places, and the oracle's view of it."""

    coords: np.ndarray
    values: np.ndarray
    query: np.ndarray
    truth: np.ndarray
    oracle: np.ndarray


def main() -> None:
    """Score, write and print."""
    args = _arguments()
    torch.set_num_threads(1)
    model = build_interpolator() if args.untrained else load_interpolator(args.weights)
    report = {}
    for axes, count in itertools.product(args.axes, args.counts):
        rng = np.random.default_rng((axes, count))
        row = score([draw(rng, axes, count) for _ in range(args.fields)], model)
        report[f"{axes}-D, n = {count}"] = row
        print(axes, count, {k: round(v, 4) for k, v in row.items()}, flush=True)
    if args.json:
        write_json(args.json, report)


def draw(rng: np.random.Generator, axes: int, count: int) -> Field:
    """Return a field of random covariance, measured uniformly at random in a unit cube."""
    correlation = CORRELATIONS[list(CORRELATIONS)[rng.integers(len(CORRELATIONS))]]
    length, nugget = rng.choice(LENGTHS), max(rng.choice(NUGGETS), 1e-6)
    points = rng.random((count + QUERIES, axes))
    matrix = correlation(cdist(points, points) / length)
    noisy = matrix + nugget * np.eye(len(points))
    values = np.linalg.cholesky(noisy) @ rng.standard_normal(len(points))
    known = slice(None, count)
    factor = cho_factor(noisy[known, known])
    oracle = matrix[count:, known] @ cho_solve(factor, values[known])
    return Field(points[known], values[known], points[count:], values[count:], oracle)


def score(fields: list[Field], model: UniversalInterpolator) -> dict[str, float]:
    """Return errors over the oracle's, pooled over fields of different size of error."""
    rows = []
    for field in fields:
        least = float(((field.oracle - field.truth) ** 2).mean())
        fitted = kriging(field.coords, field.values, field.query).mean
        found = interpolate(model, Measurements(field.coords, field.values), field.query).value
        means = (fitted, found.mean.numpy())
        covered = (found.cdf(torch.from_numpy(field.truth)) - 0.5).abs() < 0.45
        errors = [float(((mean - field.truth) ** 2).mean()) / least for mean in means]
        rows.append([*errors, float(covered.double().mean())])
    fitted, ours, coverage = np.mean(rows, axis=0)
    return {
        "kriging": math.sqrt(fitted),
        "universal": math.sqrt(ours),
        "better": float(np.mean([row[1] < row[0] for row in rows])),
        "coverage90": coverage,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=BUNDLED)
    parser.add_argument("--untrained", action="store_true", help="the experts' average alone")
    parser.add_argument("--fields", type=int, default=12)
    parser.add_argument("--axes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 30, 100, 300])
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
