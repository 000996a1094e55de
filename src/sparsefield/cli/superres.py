"""sparsefield superres: score a model against real truth, finer than what it observes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.cli.figures import check_figure, write_figure
from sparsefield.cli.progress import count_fields, duration
from sparsefield.cli.tables import score_table
from sparsefield.core.errors import InputError

if TYPE_CHECKING:
    from sparsefield.evaluation.comparison import Drawing
    from sparsefield.evaluation.superres import Enlargement, SizeResult
    from sparsefield.inference.model import Model

FIGURE_FIELDS = 3


def command(
    model: Annotated[Positional[str], arg(metavar="NAME|PATH")],
    data: Annotated[str, arg(metavar="D")],
    sizes: Annotated[tuple[int, ...], arg(metavar="N ...")] = (64,),
    split: options.Split = "validation",
    limit: options.Limit = None,
    density: options.Density = 0.2,
    seed: options.Seed = 0,
    samples: options.Samples = 0,
    sampler: options.SamplerName = options.DEFAULT_SAMPLER,
    steps: options.Steps = 10,
    baselines: Annotated[str, arg(metavar="all|none|NAMES")] = "all",
    chunk: options.Chunk = None,
    device: options.Device = "auto",
    json: options.JsonFile = None,
    figure: Annotated[Path | None, arg(metavar="FILE.png")] = None,
) -> int:
    """Score a model against real truth, finer than what it observes.

    Some cells of a 32 x 32 grid, area averages, are observed; the truth are the cells of finer
    grids. D is 'photographs' (those of scikit-image, up to 256), 'analytic' (waves, any size), or
    a data set of squares such as tiny_imagenet, see 'sparsefield evaluate --help'; its own size
    is the finest.

    Beside the baselines that interpolate the same points stand 'bicubic', the model's own 32 x 32
    mean, enlarged, and 'bicubic_kept', moved so that parts of an observed cell have its mean.

    Args:
        model: A bundled model, a run folder or a checkpoint.
        data: Where the truth comes from.
        sizes: Cells per axis of the truth, multiples of 32.
        baselines: all, none, or names with commas between, such as tps,kriging.
        figure: Write a figure of some fields at the largest size, and of all spectra.
    """
    from sparsefield.core.devices import choose_device
    from sparsefield.evaluation.comparison import Drawing
    from sparsefield.evaluation.protocol import Protocol, check_fit
    from sparsefield.evaluation.report import write_report
    from sparsefield.evaluation.superres import (
        choose_scattered_baselines,
        open_enlargements,
        superres_report,
    )
    from sparsefield.inference.model import load

    drawing = Drawing(samples, sampler, steps)
    _check(sizes, drawing, figure)
    names = choose_scattered_baselines(baselines)
    loaded = load(model, choose_device(device))
    protocol = Protocol(density, seed, split)
    enlargements = open_enlargements(data, sorted(set(sizes)), protocol, limit)
    check_fit(loaded, enlargements[0].fine)
    results = {x.size: _measure(loaded, x, drawing, names, chunk) for x in enlargements}
    report = superres_report(loaded, enlargements[0], results)
    _show(report)
    if json is not None:
        write_report(json, report)
    if figure is not None:
        _draw(figure, loaded, enlargements[-1], names, report)
    return 0


def _check(sizes: tuple[int, ...], drawing: "Drawing", figure: Path | None) -> None:
    """Refuse before the work what could not be finished after it."""
    from sparsefield.samplers import build_sampler

    if not sizes:
        raise InputError("--sizes needs at least one number, such as 64")
    if drawing.draws == 1 or drawing.draws < 0:
        raise InputError(
            f"a spread needs at least 2 samples; --samples {drawing.draws} gives none"
        )
    if drawing.draws:
        build_sampler(drawing.sampler, drawing.steps)
    check_figure(figure)


def _measure(
    model: "Model",
    enlargement: "Enlargement",
    drawing: "Drawing",
    names: list[str],
    chunk: int | None,
) -> "SizeResult":
    """Score the model and the baselines at one size."""
    from sparsefield.evaluation.superres import evaluate_fine_baselines, evaluate_size
    from sparsefield.inference.model import bounded_chunk

    count, size = len(enlargement), enlargement.size
    at_a_time = bounded_chunk(model, enlargement.coarse.points) if chunk is None else chunk
    with count_fields(f"{size}", count + drawing.fields(count)) as progress:
        result = evaluate_size(model, enlargement, drawing, at_a_time, progress)
    if names:
        with count_fields(f"{size} baselines", count) as progress:
            result.baselines |= evaluate_fine_baselines(enlargement, names, progress)
    return result


def _show(report: dict[str, Any]) -> None:
    from sparsefield.evaluation.report import verdict

    console = Console()
    side = report["observed"]
    console.print(
        f"{report['n']} fields of {report['data']}, {report['split']} masks of seed "
        f"{report['seed']}, {report['density']:.0%} of {side} x {side} cells observed",
        highlight=False,
    )
    for size, part in report["sizes"].items():
        console.print(f"\n{size} x {size}", style="bold", highlight=False)
        console.print(score_table(_rows(report["model"], part)))
        if "samples" in part:
            drawn = part["samples"]
            console.print(
                f"{drawn['draws']} draws: psnr {drawn['psnr']:.3f}, crps {drawn['crps']:.3f}"
            )
        console.print(verdict({"model": report["model"]} | part), highlight=False)
    console.print(
        f"\nbicubic: the model's own {side} x {side} mean, enlarged; detail: energy beyond "
        f"{side // 2} cycles per image over the truth's; artefact: energy at the frequencies of "
        f"the {side}-grid over that beside them, 1 without artefacts",
        highlight=False,
    )
    console.print(f"{duration(report['seconds'])} on {report['device']}", highlight=False)


def _rows(model: str, part: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return one row per method, and the truth's artefact score to compare with."""
    scores = {"mean": part["mean"], **part["baselines"]}
    rows = {}
    for name, row in scores.items():
        found = {key: part.get(key, {}).get(name) for key in ("detail", "artefact")}
        extra = {key: ratio for key, ratio in found.items() if ratio is not None}
        rows[model if name == "mean" else name] = row | extra
    truth = part.get("artefact", {}).get("truth")
    return rows if truth is None else rows | {"truth": {"artefact": truth}}


def _draw(
    path: Path,
    model: "Model",
    enlargement: "Enlargement",
    names: list[str],
    report: dict[str, Any],
) -> None:
    """Write a figure of the first fields at the largest size, and of the spectra at all sizes."""
    from sparsefield.evaluation.comparison import baseline_fields
    from sparsefield.evaluation.superres import BICUBIC, enlarged_means
    from sparsefield.figures.superres import plot_superres
    from sparsefield.inference.model import bounded_chunk

    items = range(min(FIGURE_FIELDS, len(enlargement)))
    task, chunk = enlargement.task(items), bounded_chunk(model, enlargement.coarse.points)
    fields = {name: baseline_fields(name, task, enlargement.fine) for name in names}
    fields[BICUBIC] = enlarged_means(model, enlargement, items)[BICUBIC]
    fields["mean"] = task.mean(model, chunk)
    write_figure(plot_superres(enlargement, items, fields, report), path)
