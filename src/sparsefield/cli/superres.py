"""sparsefield superres: score a model against real truth, finer than what it observes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.cli.figures import check_figure, write_figure
from sparsefield.cli.progress import count_fields, duration
from sparsefield.cli.tables import FORMATS, footnotes, numbers, score_table
from sparsefield.core.errors import InputError
from sparsefield.core.words import counted

if TYPE_CHECKING:
    from sparsefield.evaluation.predictors import SamplingConfig
    from sparsefield.evaluation.superres import (
        Enlargement,
        SizeReport,
        SizeResult,
        SuperresReport,
    )
    from sparsefield.inference.model import Model

FIGURE_FIELDS = 3


def command(
    model: Annotated[Positional[str], arg(metavar="NAME|PATH")],
    masks: options.MaskOptions,
    sizes: Annotated[tuple[int, ...], arg(metavar="N ...")] = (64,),
    *,
    sampling: options.SamplingOptions = options.NO_SAMPLES,
    baselines: options.Baselines = "all",
    chunk: options.Chunk = None,
    device: options.Device = "auto",
    json: options.JsonFile = None,
    figure: Annotated[Path | None, arg(metavar="FILE.png")] = None,
) -> int:
    """Score a model against real truth, finer than what it observes.

    Some cells of a 32 x 32 grid, area averages, are observed. The truth is the cells of finer
    grids. D is 'photographs' (those of scikit-image, up to 256), 'analytic' (waves, any size), or
    a data set of squares such as tiny_imagenet, see 'sparsefield evaluate --help'; its own size
    is the finest.

    Beside the baselines that interpolate the same points stand 'bicubic', the model's own 32 x 32
    mean, enlarged, and 'bicubic_consistent', the same, moved so that the parts of an observed cell
    have its mean.

    Args:
        model: A bundled model, a run folder or a checkpoint.
        sizes: Cells per axis of the truth, multiples of 32.
        figure: Write a figure of some fields at the largest size, and of all spectra.
    """
    from sparsefield.core.devices import choose_device
    from sparsefield.evaluation.report import write_report
    from sparsefield.evaluation.superres import (
        choose_scattered_baselines,
        open_enlargements,
        superres_report,
    )
    from sparsefield.evaluation.task import check_fit
    from sparsefield.inference.model import load

    config = sampling.config()
    if not sizes:
        raise InputError("--sizes needs at least one number, such as 64")
    check_figure(figure)
    names = choose_scattered_baselines(baselines)
    loaded = load(model, choose_device(device))
    every = open_enlargements(
        masks.data, sorted(set(sizes)), masks.protocol(), masks.limit, channels=masks.channels
    )
    check_fit(loaded, every[0].fine)
    results = {x.size: _measure(loaded, x, config, names=names, chunk=chunk) for x in every}
    report = superres_report(loaded, every[0], results)
    _show(report)
    if json is not None:
        write_report(json, report)
    if figure is not None:
        _save_figure(figure, loaded, every[-1], report=report, names=names)
    return 0


def _measure(
    model: "Model",
    enlargement: "Enlargement",
    config: "SamplingConfig",
    *,
    names: list[str],
    chunk: int | None,
) -> "SizeResult":
    """Score the model and the baselines at one size."""
    from sparsefield.evaluation.superres import evaluate_fine_baselines, evaluate_size
    from sparsefield.inference.model import bounded_chunk

    count, size = len(enlargement), enlargement.size
    at_a_time = bounded_chunk(model, enlargement.coarse.points) if chunk is None else chunk
    with count_fields(f"{size}", count + config.count(count)) as progress:
        result = evaluate_size(model, enlargement, config, chunk=at_a_time, progress=progress)
    if names:
        with count_fields(f"{size} baselines", count) as progress:
            found = evaluate_fine_baselines(enlargement, names, progress=progress)
            result.baselines |= found
    return result


def _show(report: "SuperresReport") -> None:
    console, head, side = Console(highlight=False), report.head, report.observed
    console.print(
        f"{counted(head.n, 'field')} of {head.data}, {head.split} masks of seed "
        f"{head.seed}, {head.density:.0%} of {side} x {side} cells observed"
    )
    for size, part in report.sizes.items():
        console.print(f"\n{size} x {size}", style="bold")
        _show_size(console, str(head.model), part)
        for line in footnotes(part.baselines, head.n):
            console.print(line, markup=False)
    console.print(
        f"\nbicubic: the model's own {side} x {side} mean, enlarged; detail: energy beyond "
        f"{side // 2} cycles per image over the truth's; artefact: energy at the frequencies of "
        f"the {side}-grid over that beside them, 1 without artefacts"
    )
    console.print(f"{duration(report.seconds)} on {head.device}")


def _show_size(console: Console, model: str, part: "SizeReport") -> None:
    from sparsefield.evaluation.comparison import best_baseline

    console.print(score_table(_rows(model, part)))
    if samples := part.samples:
        assert samples.sampling is not None, "samples say how they were made"
        scores = f"psnr {samples['psnr'].value:.3f}, crps {samples['crps'].value:.3f}"
        console.print(f"{samples.sampling.samples} samples: {scores}")
    console.print(best_baseline(model, part.mean, part.baselines))


def _rows(model: str, part: "SizeReport") -> dict[str, dict[str, str]]:
    """Return one row per method, and the truth's artefact score to compare with."""
    extras = {"detail": part.detail or {}, "artefact": part.artefact}

    def cells(name: str) -> dict[str, str]:
        found = {key: ratios[name] for key, ratios in extras.items() if name in ratios}
        return {key: format(ratio, FORMATS[key]) for key, ratio in found.items()}

    rows = {model: numbers(part.mean) | cells("mean")}
    rows |= {name: numbers(row) | cells(name) for name, row in part.baselines.items()}
    if "truth" in part.artefact:
        rows["truth"] = {"artefact": format(part.artefact["truth"], FORMATS["artefact"])}
    return rows


def _save_figure(
    path: Path,
    model: "Model",
    enlargement: "Enlargement",
    *,
    report: "SuperresReport",
    names: list[str],
) -> None:
    """Write a figure of the first fields at the largest size, and of the spectra at all sizes."""
    from sparsefield.evaluation.charts import superres_figure
    from sparsefield.inference.model import bounded_chunk

    items = range(min(FIGURE_FIELDS, len(enlargement)))
    chunk = bounded_chunk(model, enlargement.coarse.points)
    figure = superres_figure(model, enlargement, report, items=items, baselines=names, chunk=chunk)
    write_figure(figure, path)
