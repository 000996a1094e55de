"""sparsefield compare: models and baselines on identical masks and noise, field by field."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.cli.figures import need_matplotlib, write_figure
from sparsefield.cli.progress import count_fields, duration
from sparsefield.core.errors import InputError

if TYPE_CHECKING:
    from sparsefield.data.dataset import FieldDataset
    from sparsefield.evaluation.comparison import Contestant, Drawing
    from sparsefield.evaluation.protocol import Protocol
    from sparsefield.inference.model import Model

FIGURE_FIELDS = 3
# Column -> (score, format), of the means and of the draws.
COLUMNS = {
    "mean": {"PSNR": ("psnr", ".2f"), "SSIM": ("ssim", ".3f"), "speckle": ("speckle", ".5f")},
    "samples": {
        "draw PSNR": ("psnr", ".2f"),
        "CRPS": ("crps", ".4f"),
        "cover 50": ("coverage50", ".2f"),
        "cover 90": ("coverage90", ".2f"),
        "delta cal": ("delta_cal", ".2f"),
        "speckle": ("speckle", ".5f"),
    },
}


def command(
    models: Annotated[Positional[tuple[str, ...]], arg(metavar="[LABEL=]NAME|PATH ...")],
    data: Annotated[Path, arg(metavar="D")],
    reference: Annotated[str | None, arg(metavar="NAME")] = None,
    split: options.Split = "validation",
    limit: options.Limit = None,
    density: options.Density = 0.2,
    seed: options.Seed = 0,
    samples: options.Samples = 0,
    sampler: options.SamplerName = options.DEFAULT_SAMPLER,
    steps: options.Steps = 10,
    samples_limit: Annotated[int | None, arg(metavar="N")] = None,
    size: options.Size = None,
    baselines: Annotated[str, arg(metavar="all|none|NAMES")] = "all",
    device: options.Device = "auto",
    json: options.JsonFile = None,
    figures: Annotated[Path | None, arg(metavar="DIR")] = None,
) -> int:
    """Compare models and baselines on identical masks and noise.

    Differences are taken field by field, with 95 % bootstrap intervals; significance is corrected
    for the number of comparisons (Holm).

    Args:
        models: Bundled models, run folders or checkpoints.
        data: Data set, see 'sparsefield evaluate --help'.
        reference: Contestant that the others are compared with; the first by default.
        samples_limit: Draw samples for the first N fields only.
        size: Grid to which fields are area-averaged; as they are by default.
        baselines: all, none, or names with commas between, such as tps,kriging.
        figures: Write figures into this folder.
    """
    from sparsefield.data.dataset import open_dataset
    from sparsefield.evaluation.baseline_scores import choose_baselines
    from sparsefield.evaluation.comparison import (
        Comparison,
        Drawing,
        choose_reference,
        measure_baselines,
        name_contestants,
    )
    from sparsefield.evaluation.protocol import Protocol
    from sparsefield.evaluation.report import write_report

    drawing = Drawing(samples, sampler, steps, samples_limit)
    _check(drawing, figures)
    loaded = _load(name_contestants(models), device)
    fields = open_dataset(data, split, limit, size=size)
    protocol = Protocol(density, seed, split)
    names = choose_baselines(baselines, len(fields.shape))
    chosen = choose_reference(reference, [*loaded, *names])
    contestants = _measure_models(loaded, fields, protocol, drawing)
    if names:
        with count_fields("baselines", len(fields)) as progress:
            contestants |= measure_baselines(fields, protocol, names, drawing, progress)
    where = str(next(iter(loaded.values())).device) if loaded else "cpu"
    comparison = Comparison(fields.name, len(fields), protocol, contestants, chosen, where)
    report = comparison.to_dict()
    _show(report)
    if json is not None:
        write_report(json, report)
    if figures is not None:
        _draw(figures, report, loaded, (fields, protocol, drawing))
    return 0


def _check(drawing: "Drawing", figures: Path | None) -> None:
    """Refuse before the work what could not be finished after it."""
    from sparsefield.samplers import build_sampler

    if drawing.draws == 1 or drawing.draws < 0:
        raise InputError(
            f"a spread needs at least 2 samples; --samples {drawing.draws} gives none"
        )
    if drawing.draws:
        build_sampler(drawing.sampler, drawing.steps)
    if drawing.limit is not None and drawing.limit < 1:
        raise InputError(f"--samples-limit must be at least 1, not {drawing.limit}")
    if figures is not None:
        need_matplotlib("--figures")


def _load(checkpoints: dict[str, str], device: str) -> dict[str, "Model"]:
    from sparsefield.core.devices import choose_device
    from sparsefield.inference.model import load

    place = choose_device(device)
    return {label: load(checkpoint, place) for label, checkpoint in checkpoints.items()}


def _measure_models(
    models: dict[str, "Model"], fields: "FieldDataset", protocol: "Protocol", drawing: "Drawing"
) -> dict[str, "Contestant"]:
    from sparsefield.evaluation.comparison import measure_model
    from sparsefield.evaluation.protocol import check_fit

    for model in models.values():
        check_fit(model, fields)
    contestants = {}
    for label, model in models.items():
        with count_fields(label, len(fields) + drawing.fields(len(fields))) as progress:
            contestants[label] = measure_model(model, fields, protocol, drawing, progress)
    return contestants


def _show(report: dict[str, Any]) -> None:
    from sparsefield.evaluation.comparison import findings

    console = Console()
    console.print(
        f"{report['n']} fields of {report['data']}, {report['split']} masks of seed "
        f"{report['seed']}, {report['density']:.0%} observed; models on {report['device']}"
    )
    console.print(_mean_table(report))
    if any("samples" in row for row in report["contestants"].values()):
        console.print(_draw_table(report))
    console.print(
        f"* differs from {report['reference']}: paired bootstrap over fields, "
        f"{report['comparisons']} comparisons, Holm at 5 % in all. Runs with another training "
        "seed are not part of it."
    )
    for sentence in findings(report):
        console.print(sentence, highlight=False, markup=False)


def _mean_table(report: dict[str, Any]) -> Table:
    """Return a table of all contestants, best PSNR first."""
    rows = {name: report["contestants"][name] for name in report["ranking"]}
    table = _new_table(*COLUMNS["mean"], f"PSNR - {report['reference']}", "parameters", "time")
    for name, row in rows.items():
        parameters = f"{row['parameters']:,}" if "parameters" in row else "baseline"
        cells = [_difference(report, name), parameters, duration(row["seconds"])]
        table.add_row(name, *_cells(row, "mean"), *cells)
    return table


def _draw_table(report: dict[str, Any]) -> Table:
    """Return a table of those that give a distribution, in the same order."""
    table = _new_table(*COLUMNS["samples"])
    for name in report["ranking"]:
        row = report["contestants"][name]
        if "samples" in row:
            table.add_row(name, *_cells(row, "samples"))
    return table


def _new_table(*titles: str) -> Table:
    table = Table("", box=None)
    for title in titles:
        table.add_column(title, justify="right")
    return table


def _cells(row: dict[str, Any], part: str) -> list[str]:
    scores = row.get(part, {})
    return [
        format(scores[score], form) if score in scores else ""
        for score, form in COLUMNS[part].values()
    ]


def _difference(report: dict[str, Any], name: str) -> str:
    from sparsefield.evaluation.comparison import signed

    entry = report["differences"].get(name, {})
    if "psnr" not in entry:
        return ""
    # A backslash, or the table takes the interval for markup.
    return signed(entry, "psnr").replace("[", "\\[") + (" *" if entry["significant"] else "  ")


def _draw(
    folder: Path,
    report: dict[str, Any],
    models: dict[str, "Model"],
    setting: tuple["FieldDataset", "Protocol", "Drawing"],
) -> None:
    """Write a chart of the scores, and the first fields as means and as draws."""
    from sparsefield.evaluation.comparison import baseline_fields
    from sparsefield.evaluation.protocol import data_range, make_task
    from sparsefield.figures.comparison import plot_errors, plot_scores

    fields, protocol, drawing = setting
    task = make_task(fields, protocol, range(min(FIGURE_FIELDS, len(fields))))
    scale = data_range(fields)
    means = {name: task.mean(model) for name, model in models.items()}
    baseline = next((n for n in report["ranking"] if n not in models), None)
    if baseline:
        means[baseline] = baseline_fields(baseline, task, fields)
    drawn = {"scores": plot_scores(report)}
    drawn["means"] = plot_errors(task, means, "Posterior means and their errors", scale)
    if drawing.draws and models:
        draws = {
            name: task.sample(model, 0, drawing.sampler, drawing.steps)[0]
            for name, model in models.items()
        }
        drawn["draws"] = plot_errors(task, draws, "One draw each, and its error", scale)
    for name, figure in drawn.items():
        write_figure(figure, folder / f"{name}.png")
