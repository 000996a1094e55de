"""Place new stations on ERA5 by joint samples, by the greatest variance, by distance, at random.

    python experiments/placement.py DATA.nc [--days 21] [--hour 15] [--render]

At one hour of every day, 1 % of the cells are observed. Each method adds six stations, the
universal model predicts all cells from the old and the new ones, and the RMSE is that over all
cells. Days are the items of the intervals. Writes results/placement.json, the figure and the table
of docs/results/placement.md; --render writes the last two from the first.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from pages import PAGES, RESULTS, compress_chart, markdown, read, update, with_ends

import sparsefield as sf
from sparsefield.core.files import write_text
from sparsefield.core.version import code_version
from sparsefield.core.words import counted
from sparsefield.evaluation.serialise import tidy
from sparsefield.inference.placement import place
from sparsefield.metrics.statistics import bootstrap_interval

DENSITY, SAMPLES, ADDED, RANDOM = 0.01, 300, 6, 4
COUNTS = (3, 6)
FIGURE = PAGES / "images" / "placement.png"
NAMES = {
    "place": "joint samples (`place`)",
    "variance": "greatest variance",
    "variance_sequential": "greatest variance, updated",
    "distance": "farthest from all stations",
    "random": "random",
}


class Case(NamedTuple):
    """One hour: all cells, and which are observed.

    Attributes:
        coords: Latitude and longitude of the cells (L, 2).
        values: Temperature (L, 1), in K.
        observed: Numbers of the observed cells (M,).
    """

    coords: np.ndarray
    values: np.ndarray
    observed: np.ndarray

    def field(self, rows: np.ndarray, samples: int = 0) -> sf.Field:
        """Return the field that the universal model makes of some cells."""
        frame = sf.Frame.of(self.coords, ("latitude", "longitude"))
        obs = sf.Observation.at(self.coords[rows], self.values[rows], 1e-3, frame=frame)
        posterior, at = sf.load("universal").condition(obs), sf.Points(self.coords)
        return posterior.sample(at, samples, seed=0) if samples else posterior.mean(at)

    def rmse(self, added: np.ndarray) -> float:
        """Return the RMSE over all cells given the observed and some more."""
        found = self.field(np.concatenate([self.observed, added])).mean.numpy()
        return float(np.sqrt(((found - self.values) ** 2).mean()))


def main() -> int:
    """Run, or render what was run."""
    args = _arguments()
    torch.set_num_threads(1)
    if args.render:
        return render()
    cases = read_cases(args.data, args.days, args.hour)
    rows = [run(case, day) for day, case in enumerate(cases)]
    report = {
        "data": "ERA5 2 m temperature, United Kingdom, March 2019",
        "hour": args.hour,
        "days": len(rows),
        "observed": len(cases[0].observed),
        "cells": len(cases[0].values),
        "samples": SAMPLES,
        "commit": code_version(),
        "methods": summarise(rows),
        "example": example(cases[0]),
        "cases": rows,
    }
    write_text(RESULTS / "placement.json", tidy(report) + "\n")
    return render()


def read_cases(path: Path, days: int, hour: int) -> list[Case]:
    """Return one hour of each of the first days."""
    with xr.open_dataset(path) as data:
        field = data[next(iter(data.data_vars))].squeeze(drop=True)
        time, lat, lon = field.dims
        field = field[hour::24][:days].load()
    grid = np.stack(np.meshgrid(field[lat], field[lon], indexing="ij"), -1).reshape(-1, 2)
    count = round(DENSITY * len(grid))
    return [
        Case(
            grid.astype(float),
            each.values.astype(float).reshape(-1, 1),
            np.random.default_rng(day).permutation(len(grid))[:count],
        )
        for day, each in enumerate(field.transpose(time, lat, lon))
    ]


def run(case: Case, day: int) -> dict:
    """Return the RMSE of every method for every number of new stations."""
    chosen = choose(case, case.field(case.observed, SAMPLES), day)
    scores = {
        name: [float(np.mean([case.rmse(rows[:k]) for rows in sets])) for k in COUNTS]
        for name, sets in chosen.items()
    }
    before = case.rmse(np.array([], int))
    print(day, f"before {before:.3f}", {k: round(v[-1], 3) for k, v in scores.items()}, flush=True)
    return {"day": day, "before": before, "rmse": scores}


def choose(case: Case, field: sf.Field, day: int) -> dict[str, list[np.ndarray]]:
    """Return the sets of new stations of every method; several for random ones."""
    free = np.ones(len(case.values), bool)
    free[case.observed] = False
    rng = np.random.default_rng(1000 + day)
    cells = np.flatnonzero(free)
    return {
        "place": [place(field, ADDED, candidates=free).rows],
        "variance": [cells[np.argsort(-field.std[free, 0].numpy())[:ADDED]]],
        "variance_sequential": [_sequential(field, free)],
        "distance": [_farthest(case)],
        "random": [rng.permutation(cells)[:ADDED] for _ in range(RANDOM)],
    }


def _sequential(field: sf.Field, free: np.ndarray) -> np.ndarray:
    """Choose the greatest variance, given the places before it."""
    samples = field.samples[..., 0].double().numpy()
    root = (samples - samples.mean(0)) / (len(samples) - 1) ** 0.5
    chosen: list[int] = []
    for _ in range(ADDED):
        best = int(np.argmax(np.where(free, (root**2).sum(0), -1)))
        chosen.append(best)
        column = root[:, best].copy()
        root -= np.outer(column, column @ root) / (column @ column)
    return np.array(chosen)


def _farthest(case: Case) -> np.ndarray:
    """Choose the cell that is farthest from all stations, one after the other."""
    frame = sf.Frame.of(case.coords, ("latitude", "longitude"))
    places = frame.positions(frame.to_unit(case.coords))
    gap = np.linalg.norm(places[:, None] - places[case.observed], axis=-1).min(1)
    chosen: list[int] = []
    for _ in range(ADDED):
        chosen.append(int(np.argmax(gap)))
        gap = np.minimum(gap, np.linalg.norm(places - places[chosen[-1]], axis=-1))
    return np.array(chosen)


def summarise(rows: list[dict]) -> dict:
    """Return means, and paired differences from `place`, with intervals over days."""
    table = {name: np.array([row["rmse"][name] for row in rows]) for name in NAMES}
    return {
        name: {
            "rmse": [_estimate(column) for column in scores.T],
            "less_place": [_estimate(column) for column in (scores - table["place"]).T],
        }
        for name, scores in table.items()
    } | {"before": {"rmse": [_estimate(np.array([row["before"] for row in rows]))]}}


def _estimate(values: np.ndarray) -> list[float]:
    return [float(values.mean()), *bootstrap_interval(values)]


def example(case: Case) -> dict:
    """Return what the figure shows of one day."""
    field = case.field(case.observed, SAMPLES)
    chosen = choose(case, field, 0)
    return {
        "coords": case.coords.round(3).tolist(),
        "std": [round(float(x), 4) for x in field.std[:, 0]],
        "observed": case.observed.tolist(),
        "chosen": {name: sets[0].tolist() for name, sets in chosen.items()},
    }


def render() -> int:
    """Write the figure and the table."""
    report = read("placement")
    draw(report)
    return update(PAGES / "placement.md", "placement.py", {"": lambda: table(report)})


def table(report: dict) -> str:
    """Return the table of the page."""
    head = [
        "method",
        *(f"RMSE, {k} new (K)" for k in COUNTS),
        f"less `place`, {COUNTS[-1]} new (K)",
    ]
    methods = sorted(NAMES, key=lambda name: report["methods"][name]["rmse"][-1][0])
    lines = [_line(name, report["methods"][name]) for name in methods]
    before = report["methods"]["before"]["rmse"][0]
    return markdown(head, [["none", *[_interval(before)] * len(COUNTS), ""], *lines])


def _line(name: str, method: dict) -> list[str]:
    less = "" if name == "place" else _interval(method["less_place"][-1], "+")
    return [NAMES[name], *(_interval(each) for each in method["rmse"]), less]


def _interval(found: list[float], sign: str = "") -> str:
    return with_ends(found[0], found[1:], f"{sign}.3f")


def draw(report: dict) -> None:
    """Draw the deviation of one day with the chosen places, and the RMSE over their number."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    shown = report["example"]
    lat, lon = np.array(shown["coords"]).T
    shape = len(np.unique(lat)), len(np.unique(lon))
    grid = (each.reshape(shape) for each in (lon, lat, np.array(shown["std"])))
    cells = left.pcolormesh(*grid, shading="nearest", cmap="viridis")
    figure.colorbar(cells, ax=left, label="standard deviation (K)")
    seen = shown["observed"]
    left.plot(lon[seen], lat[seen], "o", ms=4, mfc="white", mec="black", label="stations")
    for name, mark in (("place", "r*"), ("variance", "w^")):
        rows = shown["chosen"][name]
        left.plot(
            lon[rows], lat[rows], mark, ms=11, mec="black", label=NAMES[name].replace("`", "")
        )
    left.set(xlabel="longitude (°)", ylabel="latitude (°)", title="Six new stations, one day")
    left.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False, fontsize=8
    )
    counts = [0, *COUNTS]
    before = report["methods"]["before"]["rmse"][0][0]
    for name in NAMES:
        values = [before, *(each[0] for each in report["methods"][name]["rmse"])]
        right.plot(counts, values, "o-", ms=4, label=_plain(name))
    right.set(xlabel="new stations", ylabel="RMSE over all cells (K)", xticks=counts)
    right.set_title(f"Mean over {counted(report['days'], 'day')}")
    right.legend(frameon=False, fontsize=8)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=110)
    compress_chart(FIGURE)


def _plain(name: str) -> str:
    return NAMES[name].replace("`", "")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="ERA5 temperatures, hourly (NetCDF)")
    parser.add_argument("--days", type=int, default=21)
    parser.add_argument("--hour", type=int, default=15)
    parser.add_argument("--render", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
