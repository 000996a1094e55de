"""Sea-surface temperature of COADS on the sphere: the gaps of a month, filled.

Land is never wanted. A gap is a cell without a value in the month that has one in another month.
A tenth of the known cells is held back to score what was filled.

    python examples/coads_gaps.py coads_climatology.cdf --out docs/images/examples
"""

import argparse
import json
from pathlib import Path

import numpy as np

import sparsefield as sf
from sparsefield.baselines.registry import reconstruct_baseline
from sparsefield.data.formats.netcdf import opened
from sparsefield.inference.loading import load

BASELINES = ("nearest", "idw", "kriging")


def read_sst(path: Path, every: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return latitudes, longitudes and temperatures (months, lat, lon), every n-th cell."""
    with opened(path) as dataset:
        values = dataset["SST"].values[:, ::every, ::every].astype(float)
        return dataset.COADSY.values[::every], dataset.COADSX.values[::every], values


def main() -> None:
    """Fill the gaps of one month, and score on cells that were held back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--month", type=int, default=0, help="0 is January")
    parser.add_argument("--every", type=int, default=2, help="keep every n-th cell along an axis")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    lat, lon, months = read_sst(options.file, options.every)
    sst = months[options.month]
    sea, known = np.isfinite(months).any(0), np.isfinite(sst)
    held = known & (np.random.default_rng(options.seed).uniform(size=sst.shape) < 0.1)
    places = np.stack(np.meshgrid(lat, lon, indexing="ij"), axis=-1)
    frame = sf.Frame(("lat", "lon"), (-90, float(lon[0]) - 1), (90, float(lon[0]) + 359))
    given = sf.Observation.at(places[known & ~held], sst[known & ~held][:, None], frame=frame)
    given = given.labelled(("sea-surface temperature", "°C"))

    posterior = load("universal").condition(given)
    wanted = sea & (~known | held)
    field = posterior.mean(sf.Points(places[wanted]))
    truth, scored = sst[held][:, None], held[wanted]
    query = frame.positions(frame.to_unit(places[held]))
    means = {"universal": field.mean.numpy()[scored]} | {
        name: reconstruct_baseline(
            name, given.positions().numpy(), given.values.numpy(), query
        ).mean
        for name in BASELINES
    }
    low, high = field.quantiles((0.05, 0.95)).numpy()[:, scored]
    report = {
        "known": int((known & ~held).sum()), "held_out": int(held.sum()),
        "filled": int((sea & ~known).sum()),
        "coverage90": round(float(((truth >= low) & (truth <= high)).mean()), 3),
        "rmse_celsius": {name: round(float(np.sqrt(((mean - truth) ** 2).mean())), 3)
                         for name, mean in means.items()},
    }  # fmt: skip
    print(json.dumps(report, indent=2))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "coads_gaps.json").write_text(json.dumps(report, indent=2) + "\n")
    filled, std = np.where(known & ~held, sst, np.nan), np.where(known & ~held, 0.0, np.nan)
    filled[wanted], std[wanted] = field.mean.numpy()[:, 0], field.std.numpy()[:, 0]
    save_map(options.out / "coads_gaps.png", np.where(known & ~held, sst, np.nan), filled, std,
             extent=(lon[0], lon[-1], lat[0], lat[-1]))  # fmt: skip


def save_map(
    path: Path, given: np.ndarray, filled: np.ndarray, std: np.ndarray, *, extent: tuple
) -> None:
    """Write what is known, the filled field and its standard deviation, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 2.9))
    figure.set_layout_engine("constrained")
    limits = {"vmin": np.nanmin(filled), "vmax": np.nanmax(filled), "cmap": "viridis"}
    panels = (("known", given, limits), ("filled", filled, limits),
              ("standard deviation", std, {"vmin": 0, "cmap": "magma"}))  # fmt: skip
    for axes, (title, values, how) in zip(figure.subplots(1, 3), panels, strict=True):
        drawn = axes.imshow(values, origin="lower", extent=extent, aspect="auto", **how)
        axes.set(facecolor="0.85", title=title, xlabel="longitude", ylabel="latitude")
        figure.colorbar(drawn, ax=axes, label="°C")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
