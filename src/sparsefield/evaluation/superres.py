"""Super-resolution scored against real truth: coarse cells are observed, finer ones asked for.

What is observed are values of some cells of a coarse grid, which are area averages, at the centres
of those cells. The truth are area averages over the cells of a finer grid. No fine cell is
observed: where centres coincide, on grids an odd number of times finer, baselines and models that
do not read the size of cells return the coarse value, which is that of a larger area.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsefield import metrics
from sparsefield.baselines.interpolators import available_baselines, reconstruct_baseline
from sparsefield.core.errors import InputError
from sparsefield.data.cells import CellGrids, keep_means
from sparsefield.data.dataset import FieldDataset, open_dataset
from sparsefield.data.photographs import scenes
from sparsefield.data.synthetic import wave_images
from sparsefield.evaluation.baseline_scores import FIELDS_PER_PART, choose_baselines, run_parts
from sparsefield.evaluation.comparison import Contestant, Drawing, paired_differences
from sparsefield.evaluation.protocol import (
    Protocol,
    Scores,
    Task,
    data_range,
    join,
    make_task,
    score,
)
from sparsefield.evaluation.report import code_version, summarise
from sparsefield.inference.model import Model
from sparsefield.metrics.spectrum import lattice_energy, power_spectrum, radial_spectrum

# Cells per axis of the grid that is observed: the one that bundled models are trained on.
OBSERVED_SIDE = 32
# Points of all fields of a batch together; changes speed and memory, nothing else.
POINTS_AT_ONCE = 2**16
ANALYTIC_FIELDS = 50
# Baselines beside those of the same points: the model itself on the observed grid, enlarged, as
# it is and with `keep_means`, which the mean of a model that reads cells has too.
ENLARGED = BICUBIC, BICUBIC_KEPT = "bicubic", "bicubic_kept"
# A truth with less than this share of its energy beyond the observed grid has no detail.
NO_DETAIL = 1e-4
# Scores that are no single number per field.
SPECTRAL = ("spectrum", "lattice")


@dataclass(frozen=True)
class Enlargement:
    """Fields of which cells of a coarse grid are observed, and the truth on a finer one.

    Attributes:
        coarse: Fields (N, m, m, C), area averages.
        fine: The same fields (N, n, n, C), n a multiple of m.
        protocol: Masks, which are those of the coarse grid, and seeds.
        value_range: Range that PSNR refers to.
    """

    coarse: FieldDataset
    fine: FieldDataset
    protocol: Protocol
    value_range: float = 1.0

    def __len__(self) -> int:
        """Return the number of fields N."""
        return len(self.coarse)

    @property
    def side(self) -> int:
        """Observed cells per axis m."""
        return self.coarse.shape[0]

    @property
    def size(self) -> int:
        """Cells per axis of the truth n."""
        return self.fine.shape[0]

    def batches(self, limit: int | None = None) -> list[range]:
        """Return all items, or the first `limit` of them, some at a time."""
        count, step = len(range(len(self))[:limit]), max(1, POINTS_AT_ONCE // self.fine.points)
        return [range(count)[start : start + step] for start in range(0, count, step)]

    def coarse_task(self, items: Sequence[int]) -> Task:
        """Observe some coarse cells, and ask for all of them: no super-resolution."""
        return make_task(self.coarse, self.protocol, items)

    def task(self, items: Sequence[int]) -> Task:
        """Observe some coarse cells, and ask for all fine ones.

        Missing are the fine cells that lie in no observed coarse cell.
        """
        coarse, fine = self.coarse_task(items), make_task(self.fine, self.protocol, items)
        missing = coarse.missing.unflatten(1, coarse.shape)
        for axis in (1, 2):
            missing = missing.repeat_interleave(self.size // self.side, axis)
        return replace(fine, obs=coarse.obs, missing=missing.flatten(1), observed=coarse.shape)


def open_enlargements(
    data: str, sizes: Sequence[int], protocol: Protocol, limit: int | None = None
) -> list[Enlargement]:
    """Open the same fields for several sizes, 32 x 32 cells of which are to be observed.

    Args:
        data: "photographs" (`scenes`), "analytic" (`wave_images`), or a data set of squares as
            `open_dataset` reads it, whose own size is the finest truth there is.
        sizes: Cells per axis of the truth, multiples of 32 above it.
        protocol: Masks and seeds, and the split of a data set that has several.
        limit: Number of fields at most, from the first.

    Raises:
        InputError: A size is no multiple of 32 above it, or the data are not fine enough for it
            or cannot be read.
    """
    for size in sizes:
        if size <= OBSERVED_SIDE or size % OBSERVED_SIDE:
            raise InputError(f"sizes are multiples of {OBSERVED_SIDE} above it; {size} is none")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}")
    value_range = 1.0
    at: Callable[[int], FieldDataset] = scenes
    if data == "analytic":
        at = partial(wave_images, limit or ANALYTIC_FIELDS)
    elif data != "photographs":
        fields = open_dataset(data, protocol.split, limit)
        value_range, at = data_range(fields), partial(_average, fields)
    grids = (at(size) for size in (OBSERVED_SIDE, *sizes))
    coarse, *finer = [grid.subset(range(len(grid))[:limit]) for grid in grids]
    return [Enlargement(coarse, fine, protocol, value_range) for fine in finer]


def _average(fields: FieldDataset, size: int) -> FieldDataset:
    if len(fields.shape) != 2 or len(set(fields.shape)) > 1 or fields.shape[0] % size:
        raise InputError(
            f"{fields.name} has fields of {' x '.join(map(str, fields.shape))} cells; for "
            f"{size} x {size} it takes squares whose side is a multiple of {size}"
        )
    return fields.resized((size, size))


def choose_scattered_baselines(names: str) -> list[str]:
    """Return the baselines that "all", "none" or a list stands for, of those for scattered points.

    Raises:
        InputError: A name is unknown, or its baseline needs a grid that holds the observations.
    """
    scattered = available_baselines(2, on_grid=False)
    chosen = scattered if names == "all" else choose_baselines(names, 2)
    for name in chosen:
        if name not in scattered:
            raise InputError(
                f"{name} fills the cells of the observed grid and knows no finer one; "
                f"choose from {', '.join(scattered)}"
            )
    return chosen


def enlarge(values: Tensor, side: int, size: int) -> Tensor:
    """Return fields (B, side side, C) on a finer grid (B, size size, C) by cubic convolution.

    Values are those at cell centres; at the border the weights of the cells that exist are scaled
    to sum up to 1.

    Reference: Keys, Cubic convolution interpolation for digital image processing (1981).
    """
    grid = values.unflatten(1, (side, side)).movedim(-1, 1)
    # Of the two kernels that torch has, the one that goes with antialiasing is Keys' own, which
    # keeps what is linear. On a finer grid there is nothing to smooth.
    fine = F.interpolate(grid, (size, size), mode="bicubic", antialias=True)
    return fine.movedim(1, -1).flatten(1, 2)


def enlarged_means(
    model: Model, enlargement: Enlargement, items: Sequence[int]
) -> dict[str, Tensor]:
    """Return the model's posterior mean of the coarse cells, enlarged to (B, n n, C), twice.

    As it is, and moved so that parts of an observed cell have its mean.
    """
    task, clip = enlargement.coarse_task(items), model.spec.normalizer.clip
    fine = enlarge(task.mean(model), enlargement.side, enlargement.size)
    coords = enlargement.fine.coords.expand(len(fine), -1, -1)
    kept = keep_means(fine, coords, task.obs, CellGrids(task.shape, enlargement.fine.shape), clip)
    return {BICUBIC: clip(fine), BICUBIC_KEPT: kept}


def score_fine(prediction: Tensor, task: Task, enlargement: Enlargement) -> Scores:
    """Score predictions (B, n n, C): the scores of `protocol.score` (B,) and `spectra`."""
    scores = score(prediction, task, enlargement.value_range)
    return scores | spectra(prediction, enlargement)


def spectra(values: Tensor, enlargement: Enlargement) -> Scores:
    """Return spectra of fields (B, n n, C).

    Returns:
        spectrum: Energy in rings of frequencies (B, n // 2), see `radial_spectrum`.
        lattice: Energy at the frequencies of the observed grid, and what is expected there
            (B, 2), see `lattice_energy`.
    """
    power = power_spectrum(values.unflatten(1, enlargement.fine.shape))
    lattice = lattice_energy(power, enlargement.side)
    return {"spectrum": radial_spectrum(power).numpy(), "lattice": lattice.numpy()}


@dataclass
class SizeResult:
    """Scores of all methods at one size.

    Attributes:
        side: Observed cells per axis m.
        truth: Spectra of the truth.
        mean: Scores of the posterior mean.
        baselines: Scores of each baseline.
        samples: Scores of the draws, empty without draws.
        sampling: How the draws were made.
        seconds: Time that the model took.
        nfe: Network evaluations per field, all draws together.
    """

    side: int
    truth: Scores
    mean: Scores
    baselines: dict[str, Scores] = field(default_factory=dict)
    samples: Scores = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    nfe: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return means and 95 % intervals, spectra, and what they say; absent parts are left out.

        `detail` is the energy beyond the highest frequency of the observed grid, m/2 cycles per
        image, over the truth's where it has some; `artefact` the ratio of the two energies of
        `lattice_energy`, and `artefact_excess` by how much it is above the truth's, which varies
        with the fields; `differences` are those of the baselines from the mean, field by field.
        """
        methods = {"mean": self.mean, "samples": self.samples, **self.baselines}
        shown = {"truth": self.truth} | {name: part for name, part in methods.items() if part}
        rings = {name: part["spectrum"].mean(axis=0) for name, part in shown.items()}
        beyond = {name: float(ring[self.side // 2 :].sum()) for name, ring in rings.items()}
        lattice = {name: part["lattice"].mean(axis=0) for name, part in shown.items()}
        report = {
            "seconds": self.seconds,
            "nfe": self.nfe,
            "mean": _summary(self.mean),
            "samples": self.sampling | _summary(self.samples),
            "baselines": {name: _summary(scores) for name, scores in self.baselines.items()},
            "differences": self._differences(),
            "spectrum": {name: ring.tolist() for name, ring in rings.items()},
            "detail": _ratios({name: (e, beyond["truth"]) for name, e in beyond.items()})
            if beyond["truth"] > NO_DETAIL * rings["truth"].sum()
            else {},
            "artefact": _ratios({name: (pair[0], pair[1]) for name, pair in lattice.items()}),
            "artefact_excess": {
                name: _excess(part["lattice"], self.truth["lattice"])
                for name, part in methods.items()
                if part and lattice[name][1] > 0 and lattice["truth"][1] > 0
            },
        }
        return {name: part for name, part in report.items() if part != {}}

    def _differences(self) -> dict[str, dict[str, Any]]:
        shared = ("psnr", "psnr_missing", "ssim", "mae")
        parts = {"mean": self.mean, **self.baselines}
        entries = {
            name: Contestant("baseline", name, mean={k: part[k] for k in shared if k in part})
            for name, part in parts.items()
        }
        return paired_differences(entries, "mean")


def _summary(scores: Scores) -> dict[str, Any]:
    return summarise({name: part for name, part in scores.items() if name not in SPECTRAL})


def _excess(lattice: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Return by how much the artefact score of some fields is above the truth's, with interval."""
    both = np.concatenate([lattice, truth[: len(lattice)]], axis=1)

    def excess(fields: np.ndarray) -> float:
        seen, expected, seen_of_truth, expected_of_truth = fields.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(seen / expected - seen_of_truth / expected_of_truth)

    interval = metrics.bootstrap_interval(both, statistic=excess)
    return {"artefact": excess(both), "artefact_ci": list(interval)}


def _ratios(pairs: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return the ratios that exist: a constant field has no energy to compare with."""
    return {name: float(energy / base) for name, (energy, base) in pairs.items() if base > 0}


def evaluate_size(
    model: Model,
    enlargement: Enlargement,
    drawing: Drawing,
    chunk: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> SizeResult:
    """Score a model at one size, and as baselines its own mean of the coarse cells, enlarged.

    Args:
        model: Model to evaluate.
        enlargement: Fields and what is observed of them.
        drawing: How draws are made.
        chunk: Points of the mean computed at a time, see `posterior_mean`.
        progress: Called with the number of fields done, once for the mean, once for the draws.
    """
    parts: list[dict[str, Scores]] = []
    seconds = 0.0
    for items in enlargement.batches():
        task = enlargement.task(items)
        start = time.perf_counter()
        mean = task.mean(model, chunk)
        seconds += time.perf_counter() - start
        found = {"mean": mean} | enlarged_means(model, enlargement, items)
        scores = {name: score_fine(x, task, enlargement) for name, x in found.items()}
        parts.append(scores | {"truth": spectra(task.truth, enlargement)})
        progress(len(items))
    whole = {name: join([part[name] for part in parts]) for name in parts[0]}
    result = SizeResult(enlargement.side, whole["truth"], whole["mean"], seconds=seconds)
    result.baselines = {name: whole[name] for name in ENLARGED}
    if drawing.draws:
        _add_draws(result, model, enlargement, drawing, progress)
    return result


def _add_draws(
    result: SizeResult,
    model: Model,
    enlargement: Enlargement,
    drawing: Drawing,
    progress: Callable[[int], None],
) -> None:
    parts, nfe = [], 0
    for items in enlargement.batches(drawing.limit):
        task = enlargement.task(items)
        start = time.perf_counter()
        draws, nfe = _draw(model, task, drawing)
        result.seconds += time.perf_counter() - start
        parts.append(_score_draws(draws, task, enlargement))
        progress(len(items))
    result.samples, result.nfe = join(parts), 1 + drawing.draws * nfe
    how = {"draws": drawing.draws, "sampler": drawing.sampler, "steps": drawing.steps, "nfe": nfe}
    result.sampling = {"n": drawing.fields(len(enlargement)), **how}


def _draw(model: Model, task: Task, drawing: Drawing) -> tuple[Tensor, int]:
    """Return draws (S, B, L, C) and the network evaluations that each took."""
    how = (drawing.sampler, drawing.steps)
    drawn = [task.sample(model, draw, *how) for draw in range(drawing.draws)]
    return torch.stack([values for values, _ in drawn]), drawn[0][1]


def _score_draws(draws: Tensor, task: Task, enlargement: Enlargement) -> Scores:
    """Return PSNR and spectra of single draws, averaged over the draws, and CRPS."""
    each = [score_fine(draw, task, enlargement) for draw in draws]
    kept = ("psnr", *SPECTRAL)
    scores = {name: np.mean([single[name] for single in each], axis=0) for name in kept}
    return scores | {"crps": metrics.crps_ensemble(draws, task.truth).numpy()}


def evaluate_fine_baselines(
    enlargement: Enlargement,
    names: Sequence[str],
    progress: Callable[[int], None] = lambda count: None,
    processes: int | None = None,
) -> dict[str, Scores]:
    """Score baselines that interpolate the same points at the fine cells, on all cores.

    Args:
        enlargement: Fields and what is observed of them.
        names: What `choose_scattered_baselines` returned.
        progress: Called with the number of fields done after each part.
        processes: Worker processes; one per core by default.

    Returns:
        Scores per field of each baseline: those of `score_fine`, `seconds`, and `crps` for one
        that gives a standard deviation.
    """
    work = partial(_evaluate_part, enlargement, tuple(names))
    each = max(1, FIELDS_PER_PART * enlargement.coarse.points // enlargement.fine.points)
    return run_parts(work, len(enlargement), names, progress, processes, each)


def _evaluate_part(
    enlargement: Enlargement, names: Sequence[str], items: range
) -> dict[str, Scores]:
    scores: dict[str, list[Scores]] = {name: [] for name in names}
    for item in items:
        task = enlargement.task([item])
        for name in names:
            scores[name].append(_score_baseline(name, task, enlargement))
    return {name: join(parts) for name, parts in scores.items()}


def _score_baseline(name: str, task: Task, enlargement: Enlargement) -> Scores:
    """Score a baseline on a task of a single field."""
    points = (task.obs.coords[0], task.obs.values[0], task.coords[0])
    prediction = reconstruct_baseline(name, *(x.numpy() for x in points))
    mean = torch.from_numpy(prediction.mean).float()[None]
    scores = score_fine(enlargement.fine.normalizer.clip(mean), task, enlargement)
    scores["seconds"] = np.array([prediction.seconds])
    if prediction.std is not None:
        std = torch.from_numpy(prediction.std).float()[None]
        scores["crps"] = metrics.crps_gaussian(mean, std, task.truth).numpy()
    return scores


def superres_report(
    model: Model, enlargement: Enlargement, results: Mapping[int, SizeResult]
) -> dict[str, Any]:
    """Return the report that is published.

    Args:
        model: Model that was evaluated.
        enlargement: Any of those that it was evaluated on.
        results: Scores by size.
    """
    return {
        "model": model.name,
        "training": "multi-resolution" if model.reads_cells else "zero-shot",
        "data": enlargement.fine.name,
        "n": len(enlargement),
        "observed": enlargement.side,
        "density": enlargement.protocol.density,
        "split": enlargement.protocol.split,
        "seed": enlargement.protocol.seed,
        "seconds": sum(result.seconds for result in results.values()),
        "device": str(model.device),
        "commit": code_version(),
        "sizes": {str(size): result.to_dict() for size, result in results.items()},
    }
