"""sparsefield evaluate: score a model beside the baselines, or the baselines alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.cli.figures import check_figure, write_figure
from sparsefield.cli.progress import count_fields, duration
from sparsefield.cli.tables import sampler_table, score_table
from sparsefield.core.errors import InputError

if TYPE_CHECKING:
    from sparsefield.data.dataset import FieldDataset
    from sparsefield.evaluation.protocol import Protocol
    from sparsefield.evaluation.report import Evaluation
    from sparsefield.inference.model import Model

# Score of the draws -> format.
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
    data: Annotated[Path, arg(metavar="D")],
    split: options.Split = "validation",
    limit: options.Limit = None,
    density: options.Density = 0.2,
    seed: options.Seed = 0,
    samples: options.Samples = 0,
    sampler: options.SamplerNames = (options.DEFAULT_SAMPLER,),
    steps: options.Steps = 10,
    size: options.Size = None,
    baselines: Annotated[str, arg(metavar="all|none|NAMES")] = "all",
    device: options.Device = "auto",
    json: options.JsonFile = None,
    figure: Annotated[Path | None, arg(metavar="FILE.png")] = None,
) -> int:
    """Score a model, and the baselines beside it, on frozen masks.

    Data are a parquet file or folder of images in the Hugging Face layout, an image file or
    folder, the CIFAR-10 python archive or its folder, or a .npy or .npz array (N, H, W, C).

    Args:
        model: A bundled model, a run folder or a checkpoint; 'baselines' scores these alone.
        data: Data set.
        size: Grid to which fields are area-averaged; as they are by default.
        baselines: all, none, or names with commas between, such as tps,kriging.
        figure: Write a figure of the draws' calibration: ranks, coverage, errors of averages,
            spread and error by distance to the nearest observation. Of several samplers, a chart.
    """
    from sparsefield.data.dataset import open_dataset
    from sparsefield.evaluation.baseline_scores import choose_baselines, evaluate_baselines
    from sparsefield.evaluation.protocol import Protocol
    from sparsefield.evaluation.report import Evaluation, write_report

    _check(model, samples, sampler, figure)
    loaded = None if model == "baselines" else _load(model, device)
    fields = open_dataset(data, split, limit, size=size)
    protocol = Protocol(density, seed, split)
    result = Evaluation(model, fields.name, len(fields), protocol)
    names = choose_baselines(baselines, len(fields.shape))
    if loaded is not None:
        drawing = (samples, sampler[0], steps)
        if len(sampler) > 1:
            return _compare(loaded, fields, protocol, drawing, sampler, json, figure)
        _score_model(loaded, fields, protocol, drawing, result)
    if names:
        with count_fields("baselines", len(fields)) as progress:
            result.baselines = evaluate_baselines(fields, protocol, names, progress)
    if loaded is None:
        result.seconds = sum(
            float(scores["seconds"].sum()) for scores in result.baselines.values()
        )
    report = result.to_dict()
    _show(report)
    if json is not None:
        write_report(json, report)
    if figure is not None:
        _draw(report, figure)
    return 0


def _check(model: str, samples: int, samplers: tuple[str, ...], figure: Path | None) -> None:
    """Refuse before the work what could not be finished after it."""
    if len(samplers) != 1 and (not samplers or not samples or model == "baselines"):
        raise InputError("--sampler compares several for a model; it needs --samples")
    if samples == 1 or samples < 0:
        raise InputError(f"a spread needs at least 2 samples; --samples {samples} gives none")
    if figure is None:
        return
    if not samples or model == "baselines":
        raise InputError("--figure shows the calibration of draws; it needs a model and --samples")
    check_figure(figure)


def _load(name: str, device: str) -> "Model":
    from sparsefield.core.devices import choose_device
    from sparsefield.inference.model import load

    return load(name, choose_device(device))


def _score_model(
    model: "Model",
    fields: "FieldDataset",
    protocol: "Protocol",
    drawing: tuple[int, str, int],
    result: "Evaluation",
) -> None:
    """Add the scores of the mean, and of draws if there are any, to a result."""
    from sparsefield.evaluation.protocol import check_fit, evaluate_mean, evaluate_samples
    from sparsefield.samplers import build_sampler

    draws, sampler, steps = drawing
    check_fit(model, fields)
    if draws:
        build_sampler(sampler, steps)
    result.device = str(model.device)
    with count_fields("mean", len(fields)) as progress:
        result.mean, result.seconds = evaluate_mean(model, fields, protocol, progress)
    result.nfe = 1
    if not draws:
        return
    with count_fields("samples", len(fields)) as progress:
        scores, seconds, nfe = evaluate_samples(
            model, fields, protocol, draws, sampler, steps, progress
        )
    result.samples = scores
    result.sampling = {
        "n": len(fields),
        "draws": draws,
        "sampler": sampler,
        "steps": steps,
        "nfe": nfe,
    }
    result.seconds += seconds
    result.nfe += draws * nfe


def _compare(
    model: "Model",
    fields: "FieldDataset",
    protocol: "Protocol",
    drawing: tuple[int, str, int],
    samplers: tuple[str, ...],
    json: Path | None,
    figure: Path | None,
) -> int:
    """Compare samplers at the evaluations that the first one takes."""
    from sparsefield.evaluation.protocol import check_fit
    from sparsefield.evaluation.report import write_report
    from sparsefield.evaluation.samplers import best_sampler, compare_samplers
    from sparsefield.samplers import evaluations

    draws, first, steps = drawing
    check_fit(model, fields)
    console, budget = Console(), evaluations(first, steps)
    report = compare_samplers(model, fields, protocol, samplers, [budget], draws, console.print)
    console.print(sampler_table(report))
    console.print(f"best by CRPS at {' x '.join(map(str, fields.shape))}: {best_sampler(report)}")
    if json is not None:
        write_report(json, report)
    if figure is not None:
        _save_samplers(report, figure)
    return 0


def _save_samplers(report: dict[str, Any], path: Path) -> None:
    from sparsefield.figures.samplers import plot_samplers

    write_figure(plot_samplers(report), path)


def _show(report: dict[str, Any]) -> None:
    from sparsefield.evaluation.report import verdict

    console = Console()
    console.print(
        f"{report['n']} fields of {report['data']}, {report['split']} masks of seed "
        f"{report['seed']}, {report['density']:.0%} observed"
    )
    rows = {report["model"]: report["mean"]} if "mean" in report else {}
    rows |= report.get("baselines", {})
    console.print(score_table(rows))
    if "samples" in report:
        for line in _describe_samples(report["samples"]):
            console.print(line)
    if report["nfe"]:
        console.print(f"network evaluations per field: {report['nfe']}")
    console.print(f"{duration(report['seconds'])} on {report['device']}")
    if verdict(report):
        console.print(verdict(report))


def _describe_samples(samples: dict[str, Any]) -> list[str]:
    """Say how good the draws are and how often their intervals hold the truth."""
    scores = ", ".join(
        f"{name.replace('_', ' ')} {samples[name]:{form}}"
        for name, form in SAMPLE_COLUMNS.items()
        if name in samples
    )
    lines = [f"{samples['draws']} draws: {scores}"]
    if all(name in samples for name in COVERAGES):
        shown = ", ".join(
            f"{name.removeprefix('coverage')} % {samples[name]:.3f}"
            f" (ideal {samples[f'{name}_level']:.3f})"
            for name in COVERAGES
        )
        lines.append(f"coverage: {shown}")
    return lines


def _draw(report: dict[str, Any], path: Path) -> None:
    from sparsefield.figures.calibration import plot_calibration

    write_figure(plot_calibration(report), path)
