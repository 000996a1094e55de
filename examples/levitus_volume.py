"""Ocean temperature as a volume from 2 % of its cells, beside kriging; slices as a figure.

    python examples/levitus_volume.py --data levitus_climatology.cdf --out levitus.png

The file is the Levitus climatology as it comes with Ferret: TEMP on 20 depths, of which the North
Atlantic is taken. Nothing is fitted to it: the model `universal` takes any scalar field in one to
three dimensions.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

import sparsefield as sf
from sparsefield.baselines.registry import reconstruct_baseline
from sparsefield.data.dataset import Selection, open_selection

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BOX = {"south": 0.0, "north": 60.0, "west": 280.0, "east": 350.0}


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Reconstruct three levels, draw them, and return the RMSE of each method in the file's unit.

    Scored are the cells of these levels that were not observed.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variable", default="TEMP")
    parser.add_argument("--density", type=float, default=0.02)
    parser.add_argument("--step", type=int, default=1, help="use every STEP-th row and column")
    options = parser.parse_args(argv)
    volume, places, bounds = read_box(options.data, options.variable, options.step)
    wet = np.flatnonzero(np.isfinite(volume.ravel()))
    order = np.random.default_rng(0).permutation(wet)
    count = max(8, int(options.density * len(wet)))
    levels = [int(share * (len(volume) - 1)) for share in (0.0, 0.4, 0.7)]
    sliced = np.isin(np.arange(volume.size) // volume[0].size, levels)
    asked = np.setdiff1d(wet[sliced[wet]], order[:count])
    values = volume.ravel()[:, None]
    told = {
        "universal": universal(places, values, order[:count], asked),
        "kriging": reconstruct_baseline(
            "kriging", places[order[:count]], values[order[:count]], places[asked]
        ).mean[:, 0],
    }
    rmse = {name: float(np.sqrt(np.mean((x - values[asked, 0]) ** 2))) for name, x in told.items()}
    panels = lay_out(volume, order[:count], asked, told)
    draw(options.out, panels, levels, bounds)
    for name, error in rmse.items():
        print(f"{name}: RMSE {error:.3f} on {len(asked):,} cells from {count:,} of {len(wet):,}")
    return rmse


def universal(
    places: np.ndarray, values: np.ndarray, seen: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Return the posterior mean at the cells asked for."""
    obs = sf.Observation(places[seen], values[seen])
    return sf.load("universal").condition(obs).mean(sf.Points(places[asked])).mean[:, 0].numpy()


def read_box(
    path: Path, variable: str, step: int
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Return temperatures (Z, Y, X), NaN on land, the cells' places (L, 3), and the box.

    Levels count as equally far apart: they are spaced as the water changes.
    """
    fields = open_selection(path, Selection(values=(variable,)))
    _, lat, lon = fields.series.axes
    rows = np.flatnonzero((lat > BOX["south"]) & (lat < BOX["north"]))[::step]
    columns = np.flatnonzero((lon > BOX["west"]) & (lon < BOX["east"]))[::step]
    volume = fields.values[0, :, rows[:, None], columns, 0].transpose(2, 0, 1)
    axes = [np.linspace(-1, 1, 2 * n + 1)[1::2] for n in volume.shape]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    bounds = (lon[columns[0]], lon[columns[-1]], lat[rows[0]], lat[rows[-1]])
    return volume, places, bounds


def lay_out(
    volume: np.ndarray, seen: np.ndarray, asked: np.ndarray, told: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return volumes (Z, Y, X) by title: what was observed, what each method says, the truth."""
    observed = np.full(volume.size, np.nan)
    observed[seen] = volume.ravel()[seen]
    panels = {"observed": observed}
    for name, values in told.items():
        panels[name] = observed.copy()
        panels[name][asked] = values
    return {name: x.reshape(volume.shape) for name, x in panels.items()} | {"truth": volume}


def draw(
    out: Path, panels: dict[str, np.ndarray], levels: list[int], bounds: tuple[float, ...]
) -> None:
    """Draw some levels of volumes as maps; land is grey."""
    size = (3.6 * len(panels), 3.0 * len(levels))
    figure, axes = plt.subplots(len(levels), len(panels), figsize=size, layout="constrained")
    for row, level in zip(axes, levels, strict=True):
        truth = panels["truth"][level]
        for axis, (title, values) in zip(row, panels.items(), strict=True):
            axis.set_facecolor("0.85")
            shown = axis.imshow(
                values[level],
                extent=bounds,
                origin="lower",
                vmin=np.nanmin(truth),
                vmax=np.nanmax(truth),
                cmap="RdYlBu_r",
            )
            axis.set_title(f"{title}, level {level + 1} of {len(values)}", fontsize=9)
        figure.colorbar(shown, ax=row, shrink=0.8, label="degrees C")
    count = int(np.isfinite(panels["observed"]).sum())
    figure.suptitle(f"North Atlantic temperature from {count:,} cells of the volume")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
