"""Depths of the sea off Baja California from ships' tracks, scored on tracks that are held out.

Neighbours on a track are much alike. A fair score holds back whole tracks, as a new ship would
follow one of its own. The file is the sample of Verde, columns longitude, latitude, bathymetry_m.

    python examples/baja_tracks.py baja-bathymetry.csv.xz --out docs/images/examples
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

import sparsefield as sf
from sparsefield.baselines.registry import reconstruct_baseline
from sparsefield.data.formats import write_field
from sparsefield.inference.loading import load

# A ship that is farther than this from its last sounding is on another track.
GAP_KM = 5.0
# The map shows cells that are not farther than this from a sounding.
REACH_KM = 40.0
BASELINES = ("nearest", "idw", "kriging")


def split_tracks(obs: sf.Observation) -> np.ndarray:
    """Return the number of the track that each sounding (M,) belongs to, in the file's order."""
    steps = np.linalg.norm(np.diff(obs.positions().numpy(), axis=0), axis=1)
    return np.concatenate([[0], np.cumsum(steps > GAP_KM)])


def hold_out(tracks: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return which soundings (M,) lie on tracks that are held out."""
    numbers = np.random.default_rng(seed).permutation(tracks.max() + 1)
    held = numbers[: max(1, round(share * len(numbers)))]
    return np.isin(tracks, held)


def interval(errors: np.ndarray, tracks: np.ndarray, seed: int) -> list[float]:
    """Return a 95 % interval of the root mean square error; whole tracks are drawn again."""
    _, group = np.unique(tracks, return_inverse=True)
    sums, counts = np.bincount(group, errors**2), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(len(counts), size=(2000, len(counts)))
    found = np.sqrt(sums[drawn].sum(1) / counts[drawn].sum(1))
    return np.quantile(found, [0.025, 0.975]).round(1).tolist()


def main() -> None:
    """Score all methods on the held-out tracks, and map the depths."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--every", type=int, default=30, help="keep every n-th sounding")
    parser.add_argument("--cells", type=int, default=80, help="cells of the map along an axis")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    whole = sf.read(options.file, value="bathymetry_m")
    tracks = split_tracks(whole)[:: options.every]
    places, depths = (x[:: options.every] for x in (whole.physical(), whole.values))
    held = hold_out(tracks, 0.2, options.seed)
    # Soundings of one place on crossing tracks differ: an error of 10 m lets both be.
    given = sf.Observation.at(places[~held], depths[~held], 10.0, frame=whole.frame)
    given = given.labelled(("bathymetry", "m"))
    posterior = load("universal").condition(given)
    field = posterior.mean(sf.Points(places[held]))

    truth, query = depths[held].numpy(), whole.positions().numpy()[:: options.every][held]
    merged = given.merged()
    means = {"universal": field.mean.numpy()} | {
        name: reconstruct_baseline(
            name, merged.positions().numpy(), merged.values.numpy(), query, noise=10.0
        ).mean
        for name in BASELINES
    }
    low, high = field.quantiles((0.05, 0.95)).numpy()
    report = {
        "soundings": int((~held).sum()), "held_out": int(held.sum()),
        "tracks": int(tracks.max() + 1), "held_out_tracks": len(np.unique(tracks[held])),
        "coverage90": round(float(((truth >= low) & (truth <= high)).mean()), 3),
        "rmse_m": {name: round(float(np.sqrt(((mean - truth) ** 2).mean())), 1)
                   for name, mean in means.items()},
        "interval_m": {name: interval((mean - truth)[:, 0], tracks[held], options.seed)
                       for name, mean in means.items()},
    }  # fmt: skip
    print(json.dumps(report, indent=2))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "baja_tracks.json").write_text(json.dumps(report, indent=2) + "\n")
    save_map(
        posterior.mean(sf.Grid(options.cells, options.cells)), options.out / "baja_tracks.png"
    )


def save_map(field: sf.Field, path: Path) -> None:
    """Write a map of what is near a sounding; the land was never sounded."""
    arrays = field.arrays()
    cells = field.frame.positions(field.coords)
    far = cKDTree(field.obs.positions()).query(cells)[0].reshape(field.shape) > REACH_KM
    for name in ("mean", "std"):
        arrays[name] = np.where(far[..., None], np.nan, arrays[name])
    write_field(path, arrays)


if __name__ == "__main__":
    main()
