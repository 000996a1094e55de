"""sparsefield evaluate: score a model beside the baselines, or the baselines alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.cli.figures import check_figure, write_figure
from sparsefield.cli.progress import count_fields, duration
from sparsefield.cli.tables import (
    footnotes,
    numbers,
    sampler_table,
    score_table,
    series_table,
)
from sparsefield.core.errors import InputError
from sparsefield.core.words import counted

if TYPE_CHECKING:
    from sparsefield.data.dataset import FieldDataset
    from sparsefield.evaluation.comparison import Evaluation
    from sparsefield.evaluation.methods import Method
    from sparsefield.evaluation.predictors import SamplingConfig
    from sparsefield.evaluation.report import Summary
    from sparsefield.evaluation.run import Result
    from sparsefield.evaluation.samplers import SamplerComparison
    from sparsefield.evaluation.task import Protocol
    from sparsefield.inference.model import Model

# Score of the samples -> format.
SAMPLE_COLUMNS = {
    "psnr": ".2f",
    "crps": ".4f",
    "energy_score": ".4f",
    "delta_cal": ".3f",
    "spread_skill": ".3f",
    "gap_db": ".2f",
}
COVERAGES = ("coverage50", "coverage80", "coverage90", "coverage95")


def command(
    model: Annotated[Positional[str], arg(metavar="NAME|PATH|baselines")],
    scoring: options.ScoringOptions,
    sampling: options.SeveralSamplersOptions = options.NO_SAMPLES_OF_SEVERAL,
    *,
    baselines: options.Baselines = "all",
    value: Annotated[str | None, arg(metavar="COLUMN")] = None,
    coords: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = (),
    noise: Annotated[float | str | None, arg(metavar="SIGMA|NAME")] = None,
    folds: Annotated[int, arg(metavar="K")] = 5,
    device: options.Device = "auto",
    json: options.JsonFile = None,
    figure: Annotated[Path | None, arg(metavar="FILE.png")] = None,
) -> int:
    """Score a model, and the baselines beside it, on fixed masks.

    Data are a parquet file or folder of images in the Hugging Face layout, an image file or
    folder, the CIFAR-10 python archive or its folder, or a .npy or .npz array (N, H, W, C). With
    --value it is a table of scattered points: new measurements are predicted at the rows whose
    column 'split' holds test, or fold by fold, by an interpolator such as 'universal'. Fields over
    time in NetCDF are scored in their unit, from fixed and from moving stations, beside kriging of
    anomalies from the climatology that the model has learnt.

    Args:
        model: A bundled model, a run folder or a checkpoint; 'baselines' scores these alone.
        value: Column of a table that is predicted.
        coords: Columns with the places of a table; latitude and longitude, or z, y and x, by
            default.
        noise: Standard deviation of the error of the values of a table, or the column that holds
            it; unknown by default.
        folds: Folds of a table without a column 'split'.
        figure: Write a figure of the samples' calibration: ranks, coverage, errors of averages,
            standard deviation and error by distance to the nearest observation. Of several
            samplers, a chart.
    """
    from sparsefield.evaluation.baseline_scores import choose_baselines
    from sparsefield.evaluation.report import write_report

    if value is not None:
        from sparsefield.cli.scattered import evaluate_table

        column = {"value": value, "coords": coords, "noise": noise, "folds": folds}
        return evaluate_table(model, scoring, column, baselines=baselines, json=json)
    _check(model, sampling, figure)
    config = sampling.first().config()
    loaded = None if model == "baselines" else _load(model, device)
    fields, protocol = scoring.open(), scoring.protocol()
    if fields.series is not None:
        return _evaluate_series(loaded, fields, protocol, config.samples, baselines, json)
    names = choose_baselines(baselines, len(fields.shape))
    if loaded is not None and len(sampling.sampler) > 1:
        report: SamplerComparison | Evaluation = _compare(loaded, fields, protocol, sampling)
    else:
        report = _evaluate(loaded, fields, protocol, config=config, names=names)
    if json is not None:
        write_report(json, report)
    if figure is not None:
        _save_figure(report, figure)
    return 0


def _evaluate_series(
    model: "Model | None",
    fields: "FieldDataset",
    protocol: "Protocol",
    samples: int,
    baselines: str,
    json: Path | None,
) -> int:
    """Score fields over time, and print the scores."""
    from sparsefield.evaluation.report import write_report
    from sparsefield.evaluation.series import choose_series_baselines, evaluate_series
    from sparsefield.evaluation.task import check_fit

    names = choose_series_baselines(baselines, model)
    if model is not None:
        check_fit(model, fields)
    with count_fields("fields", 2 * len(fields)) as progress:
        report = evaluate_series(
            model, fields, protocol, samples=samples or 16, names=names, progress=progress
        )
    console = Console()
    console.print(
        f"{counted(len(fields), 'field')} of {fields.name} on {counted(report.days, 'day')}, "
        f"{protocol.density:.0%} observed; {report.unit or 'units of the data'} on cells "
        "that were not observed"
    )
    for kind, found in (("moving", report.moving), ("fixed", report.fixed)):
        console.print(f"{kind} stations")
        console.print(series_table(str(report.head.model), found))
    if json is not None:
        write_report(json, report)
    return 0


def _check(model: str, sampling: options.SeveralSamplers, figure: Path | None) -> None:
    """Refuse before the work what could not be finished after it."""
    samples, samplers = sampling.samples, sampling.sampler
    if len(samplers) != 1 and (not samplers or not samples or model == "baselines"):
        raise InputError("--sampler compares several for a model; it needs --samples")
    if figure is not None and (not samples or model == "baselines"):
        raise InputError(
            "--figure shows the calibration of samples; it needs a model and --samples"
        )
    check_figure(figure)


def _load(name: str, device: str) -> "Model":
    from sparsefield.core.devices import choose_device
    from sparsefield.inference.model import load

    return load(name, choose_device(device))


def _evaluate(
    model: "Model | None",
    fields: "FieldDataset",
    protocol: "Protocol",
    *,
    config: "SamplingConfig",
    names: list[str],
) -> "Evaluation":
    """Score a model and baselines, and print the scores."""
    from sparsefield.evaluation.comparison import evaluation
    from sparsefield.evaluation.report import head

    method = None if model is None else _measure(model, fields, protocol, config)
    results = _measure_baselines(fields, protocol, names)
    device, name = ("cpu", "baselines") if model is None else (model.device, model.name)
    report = evaluation(head(fields, protocol, device, model=name), method, results)
    _show(report)
    return report


def _measure(
    model: "Model", fields: "FieldDataset", protocol: "Protocol", config: "SamplingConfig"
) -> "Method":
    from sparsefield.evaluation.methods import measure_model
    from sparsefield.evaluation.task import check_fit

    check_fit(model, fields)
    total = len(fields) + config.count(len(fields))
    with count_fields("model", total) as progress:
        return measure_model(model, fields, protocol, config=config, progress=progress)


def _measure_baselines(
    fields: "FieldDataset", protocol: "Protocol", names: list[str]
) -> "dict[str, Result]":
    from sparsefield.evaluation.methods import evaluate_baselines

    if not names:
        return {}
    with count_fields("baselines", len(fields)) as progress:
        return evaluate_baselines(fields, protocol, names, progress=progress)


def _compare(
    model: "Model",
    fields: "FieldDataset",
    protocol: "Protocol",
    sampling: options.SeveralSamplers,
) -> "SamplerComparison":
    """Compare samplers at the evaluations that the first one takes, and print the scores."""
    from sparsefield.evaluation.samplers import compare_samplers, plan_budgets
    from sparsefield.evaluation.task import check_fit
    from sparsefield.samplers import evaluations

    check_fit(model, fields)
    console = Console()
    plan = plan_budgets(sampling.sampler, [evaluations(sampling.sampler[0], sampling.steps)])
    report = compare_samplers(
        model,
        fields,
        protocol,
        plan=plan,
        samples=sampling.samples,
        announce=lambda what: Console(stderr=True).print(what, style="dim", highlight=False),
    )
    console.print(sampler_table(report))
    best, size = report.best(), " x ".join(map(str, fields.shape))
    console.print(f"best by CRPS at {size}: {best.sampler} with {best.nfe} evaluations")
    return report


def _save_figure(report: "Evaluation | SamplerComparison", path: Path) -> None:
    from sparsefield.evaluation.charts import calibration_figure, sampler_figure
    from sparsefield.evaluation.comparison import Evaluation

    if isinstance(report, Evaluation):
        write_figure(calibration_figure(report), path)
    else:
        write_figure(sampler_figure(report), path)


def _show(report: "Evaluation") -> None:
    from sparsefield.evaluation.comparison import best_baseline

    console, head, baselines = Console(), report.head, report.baselines or {}
    console.print(
        f"{counted(head.n, 'field')} of {head.data}, {head.split} masks of seed "
        f"{head.seed}, {head.density:.0%} observed"
    )
    rows = {str(head.model): report.mean} if report.mean else {}
    console.print(score_table({name: numbers(x) for name, x in (rows | baselines).items()}))
    for line in footnotes(baselines, head.n):
        console.print(line, highlight=False, markup=False)
    for line in _describe_samples(report.samples) if report.samples else []:
        console.print(line)
    if report.nfe:
        console.print(f"network evaluations per field: {report.nfe}")
    console.print(f"{duration(report.seconds)} on {head.device}")
    if sentence := best_baseline(str(head.model), report.mean, baselines):
        console.print(sentence)


def _describe_samples(samples: "Summary") -> list[str]:
    """Say how good the samples are and how often their intervals hold the truth."""
    assert samples.sampling is not None, "samples say how they were made"
    scores = ", ".join(
        f"{name.replace('_', ' ')} {samples[name].value:{form}}"
        for name, form in SAMPLE_COLUMNS.items()
        if name in samples
    )
    lines = [f"{samples.sampling.samples} samples: {scores}"]
    if samples.levels and all(name in samples for name in COVERAGES):
        shown = ", ".join(
            f"{name.removeprefix('coverage')} % {samples[name].value:.3f}"
            f" (ideal {samples.levels[f'{name}_level']:.3f})"
            for name in COVERAGES
        )
        lines.append(f"coverage: {shown}")
    return lines
