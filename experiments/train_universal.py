"""Train the universal interpolator; run again to go on, from the state in the run's folder.

    python experiments/train_universal.py RUN --data SHARED [--start WEIGHTS] [--until 16:05]

SHARED holds grids/*.cdf and cifar10/train-*.parquet; no table of scattered points is read.
Weights are chosen on held-out synthetic fields and on held-out grids (humidity, salinity and
photographs that training never sees), see `validation`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from sparsefield.core.files import write_tensors
from sparsefield.data.prior.grids import Grids, read_climatologies, read_photographs
from sparsefield.data.prior.items import Prior
from sparsefield.inference.interpolator import build_interpolator, load_interpolator
from sparsefield.training.universal import (
    Report,
    UniversalConfig,
    UniversalState,
    describe,
    losses,
    train_universal,
)
from sparsefield.training.universal_batches import Batch, UniversalBatches

PHOTOGRAPHS = 8000
VALIDATION_BATCHES = 24
VALIDATION_EVERY = 2  # windows


def main() -> None:
    """Train until the time is up or all steps are done."""
    args = _arguments()
    torch.set_num_threads(1)
    config = UniversalConfig(steps=args.steps, seed=args.seed, decay=args.decay)
    batches = UniversalBatches(training_prior(args.data), args.seed)
    torch.manual_seed(args.seed)
    model = load_interpolator(args.start) if args.start else build_interpolator()
    held_out = validation(args.data)
    started = time.time()

    def report(at: Report, state: UniversalState) -> None:
        row = at._asdict() | {"seconds": round(time.time() - started)}
        window = at.step // (config.window * config.repeats)
        if window % VALIDATION_EVERY == 0:
            row |= {name: score(state, part) for name, part in held_out.items()}
        with (args.run / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        export(args.run / "weights.safetensors", state, config)

    args.run.mkdir(parents=True, exist_ok=True)
    train_universal(config, batches, args.run, model, report, args.until)


def training_prior(shared: Path) -> Prior:
    """Return the prior with its real part: photographs and climatologies."""
    photographs = read_photographs(shared / "cifar10/train-00000-of-00001.parquet", PHOTOGRAPHS)
    climatologies = read_climatologies(shared / "grids")
    return Prior(((1.2, Grids(photographs)), (2.0, Grids(climatologies))))


def validation(shared: Path) -> dict[str, list[Batch]]:
    """Return held-out batches: synthetic fields, and real ones of kinds that training lacks."""
    photographs = read_photographs(shared / "cifar10/test-00000-of-00001.parquet", 1000)
    climatologies = read_climatologies(shared / "grids", held_out=True)
    real = Prior(((1.0, Grids(photographs)), (1.5, Grids(climatologies))), synthetic=False)
    priors = {"synthetic": Prior(), "real": real}
    return {
        name: [UniversalBatches(prior, 10**9 + 7)[i] for i in range(VALIDATION_BATCHES)]
        for name, prior in priors.items()
    }


@torch.no_grad()
def score(state: UniversalState, part: list[Batch]) -> dict[str, float]:
    """Return log score, CRPS and squared error of the averaged weights on held-out batches."""
    rows = [losses(state.average(batch.features), batch) for batch in part]
    names = ("log_score", "crps", "square", "field")
    means = np.array([[float(x) for x in row] for row in rows]).mean(0)
    return {name: round(float(x), 5) for name, x in zip(names, means, strict=True)}


def export(path: Path, state: UniversalState, config: UniversalConfig) -> None:
    """Write the averaged weights in half precision with what a reader wants to know."""
    card = {
        "options": state.model.options,
        "steps": state.step,
        "cpu_seconds": round(state.cpu_seconds),
        "settings": describe(config),
    }
    tensors = {n: p.detach().half() for n, p in state.average.named_parameters()}
    write_tensors(path, tensors, {"universal": json.dumps(card)})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--data", type=Path, required=True, help="folder of the shared data")
    parser.add_argument("--start", type=Path, help="weights to start from, without moments")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--decay", type=int, default=0, help="last steps, of falling rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", type=_time_of_day, default=float("inf"), help="HH:MM")
    return parser.parse_args()


def _time_of_day(text: str) -> float:
    """Return the next time at which the clock shows HH:MM."""
    hours, minutes = (int(part) for part in text.split(":"))
    now = time.localtime()
    then = time.mktime((*now[:3], hours, minutes, 0, 0, 0, now.tm_isdst))
    return then if then > time.time() else then + 86400


if __name__ == "__main__":
    main()
