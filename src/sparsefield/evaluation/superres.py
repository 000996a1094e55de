"""Super-resolution scored against real truth: coarse cells are observed, finer ones asked for.

What is observed are values of some cells of a coarse grid, which are area averages, at the centres
of those cells. The truth are area averages over the cells of a finer grid. No fine cell is
observed: where centres coincide, on grids an odd number of times finer, baselines and models that
do not read the size of cells return the coarse value, which is that of a larger area.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from sparsefield.baselines.registry import available_baselines
from sparsefield.core.errors import InputError
from sparsefield.data.axes import Channels
from sparsefield.data.cells import keep_means
from sparsefield.data.dataset import FieldDataset, open_dataset
from sparsefield.data.normalize import Normalizer
from sparsefield.data.photographs import scenes
from sparsefield.data.synthetic import wave_images
from sparsefield.evaluation.baseline_scores import choose_baselines
from sparsefield.evaluation.differences import Differences, paired_differences
from sparsefield.evaluation.methods import ITEMS_PER_PART, Progress
from sparsefield.evaluation.predictors import (
    Baseline,
    ModelMean,
    ModelSamples,
    Prediction,
    Predictor,
    SamplingConfig,
    truth,
)
from sparsefield.evaluation.report import Head, Sampling, Summary, head, sampling, summarise
from sparsefield.evaluation.run import Result, run
from sparsefield.evaluation.scorers import Scores, as_arrays, score_crps, score_field, score_mean
from sparsefield.evaluation.serialise import BASELINES, INLINE
from sparsefield.evaluation.task import Protocol, Task, Tasks, data_range, make_task
from sparsefield.inference.model import Model
from sparsefield.metrics.spectrum import lattice_energy, power_spectrum, radial_spectrum
from sparsefield.metrics.statistics import Estimate, estimate

# Cells per axis of the grid that is observed: the one that bundled models are trained on.
OBSERVED_SIDE = 32
# Points of all items of a batch together; changes speed and memory, nothing else.
POINTS_AT_ONCE = 2**16
ANALYTIC_FIELDS = 50
# Baselines beside those of the same points: the model itself on the observed grid, enlarged, as
# it is and data-consistent, which the mean of a model that reads cells is too.
ENLARGED = BICUBIC, BICUBIC_CONSISTENT = "bicubic", "bicubic_consistent"
# A truth with less than this share of its energy beyond the observed grid has no detail.
NO_DETAIL = 1e-4
# Scores that are no single number per item.
SPECTRAL = ("spectrum", "lattice")
# Scores that are compared item by item.
COMPARED = ("psnr", "psnr_missing", "ssim", "mae")


@dataclass(frozen=True)
class Enlargement:
    """Items of which cells of a coarse grid are observed, and the truth on a finer one.

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
        """Return the number of items N."""
        return len(self.coarse)

    @property
    def side(self) -> int:
        """Observed cells per axis m."""
        return self.coarse.shape[0]

    @property
    def size(self) -> int:
        """Cells per axis of the truth n."""
        return self.fine.shape[0]

    def tasks(self, limit: int | None = None, *, batch_size: int | None = None) -> Tasks:
        """Return the tasks of all items, or of the first `limit` of them."""
        count = len(range(len(self))[:limit])
        return Tasks(self.task, count, batch_size or max(1, POINTS_AT_ONCE // self.fine.points))

    def coarse_task(self, items: Sequence[int]) -> Task:
        """Observe some coarse cells, and ask for all of them: no super-resolution."""
        return make_task(self.coarse, self.protocol, items)

    def task(self, items: Sequence[int]) -> Task:
        """Observe some coarse cells, and ask for all fine ones.

        Missing are the fine cells that lie in no observed coarse cell.
        """
        coarse = self.coarse_task(items)
        fine = make_task(self.fine, self.protocol, items, value_range=self.value_range)
        missing = coarse.missing.unflatten(1, coarse.shape)
        for axis in (1, 2):
            missing = missing.repeat_interleave(self.size // self.side, axis)
        return replace(fine, obs=coarse.obs, missing=missing.flatten(1), observed=coarse.shape)


def open_enlargements(
    data: str,
    sizes: Sequence[int],
    protocol: Protocol,
    limit: int | None = None,
    *,
    channels: Channels = "auto",
) -> list[Enlargement]:
    """Open the same fields for several sizes, 32 x 32 cells of which are to be observed.

    Args:
        data: "photographs" (`scenes`), "analytic" (`wave_images`), or a data set of squares as
            `open_dataset` reads it, whose own size is the finest truth there is.
        sizes: Cells per axis of the truth, multiples of 32 above it.
        protocol: Masks and seeds, and the split of a data set that has several.
        limit: Number of items at most, from the first.
        channels: How the last axis of an array is understood, see `open_dataset`.

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
        fields = open_dataset(data, protocol.split, limit, channels=channels)
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


@dataclass(frozen=True)
class Enlarged:
    """A model's posterior mean of the coarse cells, enlarged: not the model on finer cells.

    Attributes:
        coarse: Returns the mean of some items on the coarse grid (B, m m, C).
        normalizer: Knows the range of values.
        consistent: Move values so that the parts of an observed cell have its mean.
    """

    coarse: Callable[[Sequence[int]], Tensor]
    normalizer: Normalizer
    consistent: bool = False

    def __call__(self, task: Task) -> Prediction:
        """Predict a task."""
        fine = enlarge(self.coarse(task.items), task.observed[0], task.shape[0])
        clip = self.normalizer.clip
        if self.consistent:
            return Prediction(keep_means(fine, task.coords, task.obs, task.grids, clip))
        return Prediction(clip(fine))


def enlarged(model: Model, enlargement: Enlargement) -> dict[str, Enlarged]:
    """Return the model's own mean of the coarse cells, enlarged, as ENLARGED baselines."""

    @lru_cache(maxsize=1)  # the two baselines follow each other on the same items
    def coarse(items: Sequence[int]) -> Tensor:
        return ModelMean(model)(enlargement.coarse_task(items)).mean

    normalizer = model.spec.normalizer
    return {
        BICUBIC: Enlarged(coarse, normalizer),
        BICUBIC_CONSISTENT: Enlarged(coarse, normalizer, consistent=True),
    }


def score_spectra(prediction: Prediction, task: Task) -> Scores:
    """Return the spectra of predicted fields, see `spectra`."""
    return spectra(prediction.mean, task)


def spectra(values: Tensor, task: Task) -> Scores:
    """Return spectra of fields (B, n n, C).

    Returns:
        spectrum: Energy in rings of frequencies (B, n // 2), see `radial_spectrum`.
        lattice: Energy at the frequencies of the observed grid, and what is expected there
            (B, 2), see `lattice_energy`.
    """
    power = power_spectrum(task.images(values))
    lattice = lattice_energy(power, task.observed[0])
    return as_arrays({"spectrum": radial_spectrum(power), "lattice": lattice})


def score_fine_samples(prediction: Prediction, task: Task) -> Scores:
    """Return PSNR and spectra of single samples, averaged over the samples."""
    assert prediction.samples is not None, "posterior samples are scored where there are some"
    each = [score_field(values, task) | spectra(values, task) for values in prediction.samples]
    names = ("psnr", *SPECTRAL)
    return {name: np.mean([scores[name] for scores in each], axis=0) for name in names}


@dataclass
class SizeResult:
    """Scores of all methods at one size.

    Attributes:
        side: Observed cells per axis m.
        truth: Spectra of the truth.
        mean: Scores of the posterior mean.
        baselines: Scores of each baseline.
        samples: Scores of the samples.
        sampling: How the samples were made.
    """

    side: int
    truth: Scores
    mean: Result
    baselines: dict[str, Result] = field(default_factory=dict)
    samples: Result | None = None
    sampling: Sampling | None = None

    @property
    def seconds(self) -> float:
        """Time that the model took."""
        return self.mean.seconds + (self.samples.seconds if self.samples else 0.0)

    @property
    def nfe(self) -> int:
        """Network evaluations per item, all samples together."""
        return self.mean.nfe + (self.samples.nfe if self.samples else 0)

    def report(self) -> "SizeReport":
        """Return the scores over all items, spectra, and what they say."""
        methods = {"mean": self.mean.scores}
        if self.samples:
            methods["samples"] = self.samples.scores
        methods |= {name: result.scores for name, result in self.baselines.items()}
        shown = {"truth": self.truth} | methods
        rings = {name: part["spectrum"].mean(axis=0) for name, part in shown.items()}
        lattice = {name: part["lattice"].mean(axis=0) for name, part in shown.items()}
        baselines = {name: result.scores for name, result in self.baselines.items()}
        compared = {"mean": self.mean.scores} | baselines
        numbers = {name: _only(part, COMPARED) for name, part in compared.items()}
        return SizeReport(
            self.seconds,
            self.nfe,
            mean=_summary(self.mean),
            samples=_summary(self.samples, self.sampling) if self.samples else None,
            baselines={name: _summary(x, timed=True) for name, x in self.baselines.items()},
            differences=paired_differences(numbers, "mean"),
            spectrum=rings,
            detail=_detail(rings, self.side) or None,
            artefact={n: float(seen / near) for n, (seen, near) in lattice.items() if near > 0},
            artefact_excess={
                name: {"artefact": _excess(part["lattice"], self.truth["lattice"])}
                for name, part in methods.items()
                if lattice[name][1] > 0 and lattice["truth"][1] > 0
            },
        )


@dataclass(frozen=True)
class SizeReport:
    """What is published of one size.

    Attributes:
        seconds: Time that the model took.
        nfe: Network evaluations per item, all samples together.
        mean: Scores of the posterior mean.
        samples: Scores of the samples.
        baselines: Scores of each baseline.
        differences: Of the baselines from the mean, item by item.
        spectrum: Energy in rings of frequencies, of the truth and of each method.
        detail: Energy beyond the highest frequency of the observed grid, m/2 cycles per image,
            over the truth's; None where that has none.
        artefact: Ratio of the two energies of `lattice_energy`.
        artefact_excess: By how much that is above the truth's, which varies with the items.
    """

    seconds: float
    nfe: int
    mean: Summary
    samples: Summary | None
    baselines: dict[str, Summary] = field(metadata=BASELINES)
    differences: dict[str, Differences]
    spectrum: dict[str, np.ndarray]
    detail: dict[str, float] | None
    artefact: dict[str, float]
    artefact_excess: dict[str, dict[str, Estimate]]


def _only(scores: Scores, names: Sequence[str]) -> Scores:
    return {name: scores[name] for name in names if name in scores}


def _summary(result: Result, how: Sampling | None = None, *, timed: bool = False) -> Summary:
    scores = {name: part for name, part in result.scores.items() if name not in SPECTRAL}
    return summarise(scores, how, result.seconds if timed else None, notes=result.notes)


def _detail(rings: Mapping[str, np.ndarray], side: int) -> dict[str, float]:
    """Return the energy beyond the observed grid over the truth's; nothing if it has none."""
    beyond = {name: float(ring[side // 2 :].sum()) for name, ring in rings.items()}
    if beyond["truth"] <= NO_DETAIL * rings["truth"].sum():
        return {}
    return {name: energy / beyond["truth"] for name, energy in beyond.items()}


def _excess(lattice: np.ndarray, truth: np.ndarray) -> Estimate:
    """Return by how much the artefact score of some items is above the truth's, with interval."""
    both = np.concatenate([lattice, truth[: len(lattice)]], axis=1)

    def excess(items: np.ndarray) -> float:
        seen, expected, seen_of_truth, expected_of_truth = items.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(seen / expected - seen_of_truth / expected_of_truth)

    return estimate(both, excess)


def evaluate_size(
    model: Model,
    enlargement: Enlargement,
    config: SamplingConfig,
    *,
    chunk: int | None = None,
    progress: Progress = lambda count: None,
) -> SizeResult:
    """Score a model at one size, and as baselines its own mean of the coarse cells, enlarged.

    Args:
        model: Model to evaluate.
        enlargement: Items and what is observed of them.
        config: How samples are made.
        chunk: Points of the mean computed at a time, see `posterior_mean`.
        progress: Called with the number of items done, once for the mean, once for the samples.
    """
    tasks, scorers = enlargement.tasks(), [score_mean, score_spectra]
    real = run(tasks, {"truth": truth}, [score_spectra])["truth"]
    predictors: dict[str, Predictor] = {"mean": ModelMean(model, chunk)}
    predictors |= enlarged(model, enlargement)
    found = run(tasks, predictors, scorers, progress=progress)
    result = SizeResult(enlargement.side, real.scores, found.pop("mean"), found)
    if config.samples:
        predictor = ModelSamples(model, config, with_mean=False)
        sampled = enlargement.tasks(config.limit)
        scorers = [score_fine_samples, score_crps]
        found = run(sampled, {"samples": predictor}, scorers, progress=progress)
        result.samples = found["samples"]
        result.sampling = sampling(config, len(enlargement), result.samples.nfe)
    return result


def evaluate_fine_baselines(
    enlargement: Enlargement,
    names: Sequence[str],
    *,
    progress: Progress = lambda count: None,
    processes: int | None = None,
) -> dict[str, Result]:
    """Score baselines that interpolate the same points at the fine cells, on all cores.

    Args:
        enlargement: Items and what is observed of them.
        names: What `choose_scattered_baselines` returned.
        progress: Called with the number of items done after each part.
        processes: Worker processes; one per core by default.

    Returns:
        By name the scores of `score_field`, spectra, and crps for one that gives a standard
        deviation.
    """
    return run(
        enlargement.tasks(batch_size=1),
        {name: Baseline(name, enlargement.fine.normalizer) for name in names},
        [score_mean, score_spectra, score_crps],
        progress=progress,
        processes=processes,
        each=max(1, ITEMS_PER_PART * enlargement.coarse.points // enlargement.fine.points),
    )


@dataclass(frozen=True)
class SuperresReport:
    """What is published of a super-resolution.

    Attributes:
        head: What was measured.
        training: Whether the model has learnt cells of several sizes, or is zero-shot.
        observed: Observed cells per axis.
        seconds: Time that the model took at all sizes.
        sizes: Scores by cells per axis of the truth.
    """

    head: Head = field(metadata=INLINE)
    training: str
    observed: int
    seconds: float
    sizes: dict[int, SizeReport]


def superres_report(
    model: Model, enlargement: Enlargement, results: Mapping[int, SizeResult]
) -> SuperresReport:
    """Return the report that is published.

    Args:
        model: Model that was evaluated.
        enlargement: Any of those that it was evaluated on.
        results: Scores by size.
    """
    return SuperresReport(
        head(enlargement.fine, enlargement.protocol, model.device, model=model.name),
        training="multi-resolution" if model.resolution_aware else "zero-shot",
        observed=enlargement.side,
        seconds=sum(result.seconds for result in results.values()),
        sizes={size: result.report() for size, result in results.items()},
    )
