"""sparsefield compare: models and baselines on identical masks and noise, field by field."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.cli.figures import need_matplotlib, write_figure
from sparsefield.cli.progress import count_fields, duration
from sparsefield.cli.tables import footnotes, new_table, score_cells
from sparsefield.core.words import counted

if TYPE_CHECKING:
    from sparsefield.data.dataset import FieldDataset
    from sparsefield.evaluation.comparison import Comparison
    from sparsefield.evaluation.methods import Method
    from sparsefield.evaluation.predictors import SamplingConfig
    from sparsefield.evaluation.task import Protocol
    from sparsefield.inference.model import Model

FIGURE_FIELDS = 3
# Column -> (score, format), of the means and of the samples.
MEAN_COLUMNS = {
    "PSNR": ("psnr", ".2f"),
    "SSIM": ("ssim", ".3f"),
    "residual energy": ("speckle", ".5f"),
}
SAMPLE_COLUMNS = {
    "sample PSNR": ("psnr", ".2f"),
    "CRPS": ("crps", ".4f"),
    "cover 50": ("coverage50", ".2f"),
    "cover 90": ("coverage90", ".2f"),
    "delta cal": ("delta_cal", ".2f"),
    "residual energy": ("speckle", ".5f"),
}


def command(
    models: Annotated[Positional[tuple[str, ...]], arg(metavar="[LABEL=]NAME|PATH ...")],
    scoring: options.ScoringOptions,
    sampling: options.SamplingOptions = options.NO_SAMPLES,
    *,
    samples_limit: Annotated[int | None, arg(metavar="N")] = None,
    reference: Annotated[str | None, arg(metavar="NAME")] = None,
    baselines: options.Baselines = "all",
    device: options.Device = "auto",
    json: options.JsonFile = None,
    figures: Annotated[Path | None, arg(metavar="DIR")] = None,
) -> int:
    """Compare models and baselines on identical masks and noise.

    Differences are taken field by field, with 95 % bootstrap intervals; significance is corrected
    for the number of comparisons (Holm).

    Args:
        models: Bundled models, run folders or checkpoints.
        samples_limit: Sample only the first N fields.
        reference: Method that the others are compared with; the first by default.
        figures: Write figures into this folder.
    """
    from sparsefield.evaluation.baseline_scores import choose_baselines
    from sparsefield.evaluation.comparison import compare
    from sparsefield.evaluation.methods import choose_reference, name_methods
    from sparsefield.evaluation.report import head, write_report

    config = sampling.config(samples_limit)
    if figures is not None:
        need_matplotlib("--figures")
    loaded = _load(name_methods(models), device)
    fields, protocol = scoring.open(), scoring.protocol()
    names = choose_baselines(baselines, len(fields.shape))
    chosen = choose_reference(reference, [*loaded, *names])
    methods = _measure(loaded, fields, protocol, config=config, names=names)
    where = next(iter(loaded.values())).device if loaded else "cpu"
    report = compare(head(fields, protocol, where), methods, chosen)
    _show(report)
    if json is not None:
        write_report(json, report)
    if figures is not None:
        _save_figures(figures, report, loaded, (fields, protocol, config))
    return 0


def _load(checkpoints: dict[str, str], device: str) -> dict[str, "Model"]:
    from sparsefield.core.devices import choose_device
    from sparsefield.inference.model import load

    place = choose_device(device)
    return {label: load(checkpoint, place) for label, checkpoint in checkpoints.items()}


def _measure(
    models: dict[str, "Model"],
    fields: "FieldDataset",
    protocol: "Protocol",
    *,
    config: "SamplingConfig",
    names: list[str],
) -> dict[str, "Method"]:
    """Score models and baselines."""
    from sparsefield.evaluation.methods import measure_baselines, measure_model
    from sparsefield.evaluation.task import check_fit

    for model in models.values():
        check_fit(model, fields)
    methods, total = {}, len(fields) + config.count(len(fields))
    for label, model in models.items():
        with count_fields(label, total) as progress:
            methods[label] = measure_model(
                model, fields, protocol, config=config, progress=progress
            )
    if names:
        with count_fields("baselines", len(fields)) as progress:
            methods |= measure_baselines(fields, protocol, names, config=config, progress=progress)
    return methods


def _show(report: "Comparison") -> None:
    console, head = Console(), report.head
    console.print(
        f"{counted(head.n, 'field')} of {head.data}, {head.split} masks of seed "
        f"{head.seed}, {head.density:.0%} observed; models on {head.device}"
    )
    console.print(_mean_table(report))
    if any(method.samples for method in report.methods.values()):
        console.print(_sample_table(report))
    for line in footnotes({name: each.mean for name, each in report.methods.items()}, head.n):
        console.print(line, highlight=False, markup=False)
    console.print(
        f"* differs from {report.reference}: paired bootstrap over fields, "
        f"{report.comparisons} comparisons, Holm at 5 % in all. Runs with another training "
        "seed are not part of it."
    )
    for sentence in report.summary():
        console.print(sentence, highlight=False, markup=False)


def _mean_table(report: "Comparison") -> Table:
    """Return a table of all methods, best PSNR first."""
    table = new_table(*MEAN_COLUMNS, f"PSNR - {report.reference}", "parameters", "time")
    for name in report.ranking:
        method = report.methods[name]
        parameters = "baseline" if method.parameters is None else f"{method.parameters:,}"
        cells = [_difference(report, name), parameters, duration(method.seconds)]
        table.add_row(name, *score_cells(method.mean, MEAN_COLUMNS), *cells)
    return table


def _sample_table(report: "Comparison") -> Table:
    """Return a table of those that give a distribution, in the same order."""
    table = new_table(*SAMPLE_COLUMNS)
    for name in report.ranking:
        if samples := report.methods[name].samples:
            table.add_row(name, *score_cells(samples, SAMPLE_COLUMNS))
    return table


def _difference(report: "Comparison", name: str) -> str:
    from sparsefield.evaluation.differences import signed

    entry = report.differences.get(name)
    difference = None if entry is None else entry.get("psnr")
    if difference is None:
        return ""
    # A backslash, or the table takes the interval for markup.
    return signed(difference).replace("[", "\\[") + (" *" if difference.significant else "  ")


def _save_figures(
    folder: Path,
    report: "Comparison",
    models: dict[str, "Model"],
    setting: tuple["FieldDataset", "Protocol", "SamplingConfig"],
) -> None:
    """Write a chart of the scores, and the first fields as means and as samples."""
    from sparsefield.evaluation.charts import mean_figure, sample_figure, score_figure
    from sparsefield.evaluation.task import make_task

    fields, protocol, config = setting
    task = make_task(fields, protocol, range(min(FIGURE_FIELDS, len(fields))))
    baseline = next((name for name in report.ranking if report.is_baseline(name)), None)
    figures = {"scores": score_figure(report)}
    figures["means"] = mean_figure(task, models, baseline, fields)
    if config.samples and models:
        figures["samples"] = sample_figure(task, models, config)
    for name, figure in figures.items():
        write_figure(figure, folder / f"{name}.png")
