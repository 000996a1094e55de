"""2 m temperature from a few stations, by the model of one region that ships as an example.

    python examples/era5_t2m.py --data FILE.nc --out era5.png

FILE.nc holds hourly ERA5 fields over 50-58 N, 10 W-2 E on a quarter of a degree. The figure shows
one hour: stations, mean, standard deviation, truth and error.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

import sparsefield as sf
from sparsefield.data.dataset import FieldDataset, open_dataset

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def main(argv: Sequence[str] | None = None) -> float:
    """Reconstruct one hour, draw it, and return the RMSE in K on what was not observed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="era5-t2m-uk")
    parser.add_argument("--item", type=int, default=-12, help="number of the hour in the file")
    parser.add_argument("--density", type=float, default=0.03)
    parser.add_argument("--samples", type=int, default=32)
    options = parser.parse_args(argv)
    fields = open_dataset(options.data)
    truth = fields.batch([options.item])[0]
    count = max(2, int(options.density * fields.points))
    seen = np.random.default_rng(0).permutation(fields.points)[:count]
    obs = sf.Observation(fields.coords[seen], truth[seen], grid=fields.shape)
    field = sf.load(options.model).condition(obs).sample(sf.Grid(*fields.shape), options.samples)
    draw(options.out, fields, seen, options.item, (field.mean, field.std, truth))
    missing = np.setdiff1d(np.arange(fields.points), seen)
    error = float((field.mean - truth)[missing].square().mean().sqrt())
    print(f"RMSE {error:.3f} K from {count} stations; figure in {options.out}")
    return error


def draw(out: Path, fields: FieldDataset, seen: np.ndarray, item: int, parts: Sequence) -> None:
    """Draw stations, mean, standard deviation, truth and error as maps."""
    mean, std, truth = (part[:, 0].reshape(fields.shape).numpy() for part in parts)
    (south, north), (west, east) = fields.series.bounds
    limits = {"vmin": truth.min(), "vmax": truth.max(), "cmap": "RdYlBu_r"}
    widest = max(abs(mean - truth).max(), 0.1)
    error = {"vmin": -widest, "vmax": widest, "cmap": "RdBu_r"}
    maps = {
        "stations, K": (None, limits),
        "posterior mean, K": (mean, limits),
        "standard deviation, K": (std, {"cmap": "viridis", "vmin": 0}),
        "truth, K": (truth, limits),
        "mean less truth, K": (mean - truth, error),
    }
    figure, axes = plt.subplots(1, 5, figsize=(18, 3.8), layout="constrained", sharey=True)
    rows, columns = np.unravel_index(seen, fields.shape)
    lat, lon = fields.series.axes
    for axis, (title, (values, style)) in zip(axes, maps.items(), strict=True):
        if values is None:
            shown = axis.scatter(
                lon[columns], lat[rows], c=truth[rows, columns], edgecolors="k", s=28, **style
            )
        else:
            shown = axis.imshow(values, extent=(west, east, south, north), origin="lower", **style)
        axis.set(
            title=title, xlim=(west, east), ylim=(south, north), xlabel="longitude, degrees E"
        )
        axis.set_aspect(1 / np.cos(np.radians((south + north) / 2)))
        figure.colorbar(shown, ax=axis, shrink=0.75)
    axes[0].set_ylabel("degrees N")
    times = fields.series.times
    when = "" if times is None else f" at {times[item].astype('datetime64[h]')} h UTC"
    figure.suptitle(f"ERA5 2 m temperature{when} from {len(seen)} of {fields.points} cells")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
