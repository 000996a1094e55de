"""Train the four Mamba-GINR as far as a few CPU-minutes go, and write what limits each.

    python experiments/ginr.py --data TRAIN [--data MORE] --validation DATA --finer DATA
    python experiments/ginr.py --report

VALIDATION are images of 32 x 32, FINER images of 64 x 64, of which 32 x 32 cells are observed. The
first command trains and scores the runs one after another in one thread; started again, it
resumes. The second one writes docs/results/ginr.md anew from results/ginr.json.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from budget import describe_run, train_for
from pages import (
    PAGES,
    RESULTS,
    compress_chart,
    compress_picture,
    markdown,
    read,
    update,
    with_interval,
)

import sparsefield as sf
from sparsefield.data.dataset import FieldDataset, open_dataset
from sparsefield.evaluation.methods import evaluate_mean
from sparsefield.evaluation.report import write_report
from sparsefield.evaluation.task import Protocol
from sparsefield.figures.panels import save_figure
from sparsefield.inference.model import Model
from sparsefield.inference.model import load as load_model
from sparsefield.metrics.statistics import Estimate, estimate
from sparsefield.nn.fourier import FourierFeatures, fourier_features
from sparsefield.training.config import TrainConfig, load_config
from sparsefield.training.data import TrainingData, open_training_data
from sparsefield.training.run import Run

SCRIPT = "ginr.py"
VARIANTS = ("ginr", "ginr_fourier", "ginr_scent", "ginr_hybrid")
ALL, SCORED, WATCHED, SHOWN = Protocol(1.0), 200, 32, 4
PATCH, PATCHES = 2, (256, 128, 64)
SIZES = (32, 64, 128, 256)
SHARED = {"batch_size": "4", "data.validation": "64", "optimizer.warmup": "100"}
# A picture or a hundred, as often as the time allows, and always upright.
REPEATED = SHARED | {"data.flip": "false", "optimizer.weight_decay": "0"}


class Trial(NamedTuple):
    """A variant, its settings, CPU-minutes, and the number of images; 0 for all there are."""

    variant: str
    minutes: float
    images: int = 0
    settings: Mapping[str, str] = {}
    redrawn: bool = False


def _trials() -> dict[str, Trial]:
    found = {}
    for name in VARIANTS:
        found[name] = Trial(name, 8.0)
        found[f"{name} sparse"] = Trial(name, 5.0, settings={"data.density": "[0.2, 1.0]"})
        found[f"{name} one"] = Trial(name, 2.5, 1, {"batch_size": "1", "data.queries": "1024"})
        found[f"{name} hundred"] = Trial(name, 3.0, 100)
    found["ginr redrawn"] = Trial("ginr", 8.0, redrawn=True)
    twice = {"batch_size": "1", "data.queries": "1024", "model.max_frequency": "16.0"}
    found["ginr one twice the band"] = Trial("ginr", 2.5, 1, twice)
    large = {"batch_size": "1", "data.queries": "1024", "model.hidden": "512", "model.blocks": "4"}
    found["ginr one larger"] = Trial("ginr", 2.5, 1, large)
    return found


TRIALS = _trials()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", default=[], metavar="D")
    parser.add_argument("--validation", type=Path, metavar="D")
    parser.add_argument("--finer", type=Path, metavar="D")
    parser.add_argument("--trials", nargs="+", default=list(TRIALS), choices=list(TRIALS))
    parser.add_argument("--runs", type=Path, default=Path("runs/ginr"))
    parser.add_argument("--report", action="store_true", help="write the page, train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.report:
        data = open_training_data(settings_of(options.trials[0], options.data))
        for name in options.trials:
            train_trial(name, folder_of(name, options.runs), options.data, data)
        collect(options.runs, options.validation, options.finer)
    draw_curves(read("ginr")["trials"], PAGES / "images" / "ginr_curves.png")
    return update(PAGES / "ginr.md", SCRIPT, parts(read("ginr")))


def folder_of(name: str, runs: Path) -> Path:
    """Return the folder of a trial's run."""
    return runs / name.replace(" ", "-")


def settings_of(name: str, paths: list[str]) -> TrainConfig:
    """Return the settings of a trial, its steps not yet fixed."""
    trial = TRIALS[name]
    settings = {**(REPEATED if trial.images else SHARED), **trial.settings}
    config = load_config(f"{trial.variant}-small", [f"{k}={x}" for k, x in settings.items()])
    return replace(config, data=replace(config.data, paths=tuple(paths)))


def train_trial(name: str, folder: Path, paths: list[str], data: TrainingData) -> None:
    """Train a trial to its last step; a few images are learned and watched themselves."""
    trial, config = TRIALS[name], settings_of(name, paths)
    if trial.images:
        few = data.training.subset(range(trial.images))
        data = TrainingData(few, few)
    watched = data.validation.subset(range(min(WATCHED, len(data.validation))))
    with redrawn() if trial.redrawn else nullcontext():
        train_for(trial.minutes, folder, config, data, watched, ALL)


def redrawn() -> AbstractContextManager[Any]:
    """Draw the frequencies anew at every call, as the prototype's decoder does."""

    def forward(self: FourierFeatures, coords: torch.Tensor) -> torch.Tensor:
        fresh = torch.randn_like(self.frequencies) * self.frequencies.std()
        return fourier_features(coords, fresh)

    return mock.patch.object(FourierFeatures, "forward", forward)


def collect(runs: Path, validation: Path, finer: Path) -> None:
    """Score all trials that are trained, and draw what they make of a few images."""
    fields = open_dataset(validation, "validation", SCORED, size=(32, 32))
    fine = open_dataset(finer, "validation", SCORED)
    trials, models = {}, {}
    for name in TRIALS:
        folder = folder_of(name, runs)
        if not (folder / "latest.safetensors").is_file():
            continue
        trials[folder.name] = describe_run(folder) | describe(name)
        if not TRIALS[name].images:
            models[name] = load_model(Run(folder).latest)
            with redrawn() if TRIALS[name].redrawn else nullcontext():
                trials[folder.name] |= measure(folder, models[name], fields, fine)
    baselines = {"bicubic": enlarge(fine), "patch_means": flatten_patches(fields)}
    write_report(RESULTS / "ginr.json", {"images": SCORED, "trials": trials} | baselines)
    draw_sizes(models, fine, PAGES / "images" / "ginr_sizes.png")
    draw_patches(models, fields, PAGES / "images" / "ginr_patches.png")


def describe(name: str) -> dict[str, Any]:
    """Return what a trial is."""
    trial = TRIALS[name]
    return {"variant": trial.variant, "minutes": trial.minutes, "learned": trial.images}


def measure(
    folder: Path, model: Model, fields: FieldDataset, fine: FieldDataset
) -> dict[str, Any]:
    """Score a model on whole images, on parts of them and on a finer grid, or read the scores."""
    file = folder / "scores.json"
    if not file.is_file():
        scores = {
            "whole": summary(evaluate_mean(model, fields, ALL).scores["psnr"]),
            "patches": {
                str(count): summary(from_patches(model, fields, count)) for count in PATCHES
            },
            "fine": summary(score_finer(lambda coarse: decode(model, coarse, 64), fine)),
        }
        file.write_text(json.dumps(scores))
    return json.loads(file.read_text())


def summary(scores: np.ndarray) -> dict[str, Any]:
    """Return the mean of scores and its interval."""
    found = estimate(np.asarray(scores, dtype=float))
    return {"psnr": found.value, "psnr_ci": list(found.interval)}


def from_patches(model: Model, fields: FieldDataset, count: int) -> np.ndarray:
    """Return PSNR of the unobserved cells, or of all if there are none, given `count` patches."""
    scores = []
    for item in range(len(fields)):
        image = unit(fields.values[item])
        seen = patch_mask(count, item, image.shape[:2])
        made = decode(model, image, image.shape[0], seen)
        missing = np.ones_like(seen) if seen.all() else ~seen
        scores.append(psnr(made[missing], image[missing]))
    return np.asarray(scores)


def patch_mask(count: int, item: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return which cells lie in `count` patches drawn for an item."""
    rows, columns = shape[0] // PATCH, shape[1] // PATCH
    chosen = np.zeros(rows * columns, bool)
    chosen[np.random.default_rng([item, 0]).permutation(rows * columns)[:count]] = True
    return np.kron(chosen.reshape(rows, columns), np.ones((PATCH, PATCH), bool))


def decode(
    model: Model, image: np.ndarray, size: int, seen: np.ndarray | None = None
) -> np.ndarray:
    """Encode the seen cells of an image and decode it at size x size points."""
    height, width, channels = image.shape
    seen = np.ones((height, width), bool) if seen is None else seen
    coords = np.asarray(sf.Grid(height, width).coords)[seen.ravel()]
    obs = sf.Observation(coords, image.reshape(-1, channels)[seen.ravel()])
    mean = model.condition(obs).mean(sf.Grid(size, size)).mean
    return np.asarray(mean).reshape(size, size, channels)


def score_finer(enlarged: Callable[[np.ndarray], np.ndarray], fine: FieldDataset) -> np.ndarray:
    """Return PSNR on the finer grid of what is made from its means over 2 x 2 cells."""
    scores = []
    for item in range(len(fine)):
        truth = unit(fine.values[item])
        scores.append(psnr(enlarged(halve(truth)), truth))
    return np.asarray(scores)


def enlarge(fine: FieldDataset) -> dict[str, Any]:
    """Score bicubic interpolation on the finer grid."""

    def bicubic(coarse: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(coarse).permute(2, 0, 1)[None]
        made = torch.nn.functional.interpolate(x, scale_factor=2, mode="bicubic")
        return made[0].permute(1, 2, 0).numpy()

    return summary(score_finer(bicubic, fine))


def flatten_patches(fields: FieldDataset) -> dict[str, Any]:
    """Score images whose patches are replaced by their means."""
    images = [unit(fields.values[item]) for item in range(len(fields))]
    flat = [halve(image).repeat(PATCH, 0).repeat(PATCH, 1) for image in images]
    return summary(
        np.asarray([psnr(made, truth) for made, truth in zip(flat, images, strict=True)])
    )


def halve(image: np.ndarray) -> np.ndarray:
    """Average an image (2 m, 2 n, C) over 2 x 2 cells."""
    height, width, channels = image.shape
    return image.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))


def unit(values: np.ndarray) -> np.ndarray:
    """Return bytes as numbers from 0 to 1."""
    return np.asarray(values, np.float32) / 255


def psnr(made: np.ndarray, truth: np.ndarray) -> float:
    """Return -10 log10 of the mean squared error, values clipped to [0, 1]."""
    return float(-10 * np.log10(np.mean((made.clip(0, 1) - truth) ** 2)))


def parts(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what writes each table of the page."""
    trials = results["trials"]
    return {
        "scores": lambda: score_table(trials, results),
        "limits": lambda: limits_table(trials),
        "training": lambda: training_table(trials),
    }


def score_table(trials: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Write the scores of the models that learned from all images."""

    def cell(scores: Mapping[str, Any]) -> str:
        return with_interval(Estimate(scores["psnr"], *scores["psnr_ci"]), 2)

    lines = [
        [
            name,
            cell(trial["whole"]),
            *(cell(trial["patches"][str(count)]) for count in PATCHES[1:]),
            cell(trial["fine"]),
        ]
        for name, trial in trials.items()
        if not trial["learned"]
    ]
    empty = ["" for _ in PATCHES[1:]]
    lines.append(["*means of patches* (baseline)", cell(results["patch_means"]), *empty, ""])
    lines.append(["*bicubic* (baseline)", "", *empty, cell(results["bicubic"])])
    head = ["PSNR, dB", "all 256 patches", *(f"{n} patches, missing cells" for n in PATCHES[1:])]
    return markdown([*head, "64 x 64 from 32 x 32"], lines)


def limits_table(trials: Mapping[str, Any]) -> str:
    """Write how well each variant learns one image and a hundred."""
    lines = []
    for name, trial in trials.items():
        if trial["learned"]:
            lines.append(
                [
                    name,
                    str(trial["learned"]),
                    f"{trial['steps']:,}",
                    f"{trial['cpu_seconds'] / 60:.1f}",
                    f"{trial['curve_psnr'][-1]:.2f}",
                ]
            )
    head = ["trial", "images learned", "steps", "CPU minutes", "PSNR of these images, dB"]
    return markdown(head, lines)


def training_table(trials: Mapping[str, Any]) -> str:
    """Write how each trial was trained."""
    lines = [
        [
            name,
            f"{trial['steps']:,}",
            f"{trial['images']:,}",
            f"{trial['cpu_seconds'] / 60:.1f}",
            str(trial["seed"]),
            f"{trial['instructions']}, {trial['precision']}",
        ]
        for name, trial in trials.items()
    ]
    head = ["trial", "steps", "images", "CPU minutes of training", "seed", "instructions"]
    return markdown(head, lines)


def draw_curves(trials: Mapping[str, Any], path: Path) -> None:
    """Draw PSNR against passes over the images: held-out images, one and a hundred learned."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = {0: "held-out images", 1: "one image, learned", 100: "a hundred images, learned"}
    for axes, (count, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name, trial in trials.items():
            if trial["learned"] == count:
                seconds = np.asarray(trial["curve_cpu_seconds"])
                axes.plot(seconds / 60, trial["curve_psnr"], ".-", label=name)
        axes.set(xlabel="CPU minutes", ylabel="PSNR, dB", title=title)
        axes.legend(fontsize="x-small")
    save_figure(figure, path)
    compress_chart(path)


def draw_sizes(models: Mapping[str, Model], fine: FieldDataset, path: Path) -> None:
    """Draw one image decoded at several sizes, and the truth where there is one."""
    truth = unit(fine.values[SHOWN])
    coarse = halve(truth)
    rows = {"truth": [coarse, truth, None, None]}
    for name in VARIANTS:
        if name in models:
            rows[name] = [decode(models[name], coarse, size) for size in SIZES]
    draw_images(rows, [f"{size} x {size}" for size in SIZES], path)


def draw_patches(models: Mapping[str, Model], fields: FieldDataset, path: Path) -> None:
    """Draw one image from fewer and fewer patches."""
    image = unit(fields.values[SHOWN])
    masks = [patch_mask(count, SHOWN, image.shape[:2]) for count in PATCHES]
    rows: dict[str, list[Any]] = {
        "observed": [np.where(mask[..., None], image, 0.5) for mask in masks]
    }
    for name in VARIANTS:
        if (sparse := f"{name} sparse") in models:
            rows[sparse] = [decode(models[sparse], image, image.shape[0], m) for m in masks]
    draw_images(rows, [f"{count} patches" for count in PATCHES], path)


def draw_images(rows: Mapping[str, list[Any]], titles: list[str], path: Path) -> None:
    """Draw a table of images, named rows and columns."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.9 * len(titles), 1.9 * len(rows)), layout="constrained")
    table = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, (name, images) in zip(table, rows.items(), strict=True):
        for axes, image, title in zip(row, images, titles, strict=True):
            axes.set(xticks=[], yticks=[], frame_on=image is not None)
            if image is not None:
                axes.imshow(image.clip(0, 1), interpolation="nearest")
            if axes is row[0]:
                axes.set_ylabel(name)
            if row is table[0]:
                axes.set_title(title)
    save_figure(figure, path)
    compress_picture(path)


if __name__ == "__main__":
    sys.exit(main())
