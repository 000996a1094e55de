"""Turn finished training runs into a bundled model: float16 weights and a model card.

    python experiments/bundle_model.py NAME RUN [RUN ...] [--scores out.json ...]

RUNs are given in the order in which they were trained, the last one holding the final weights; the
card lists the data, steps and seconds of each. --scores adds what `sparsefield evaluate` measured:
means and baselines from the first report, calibration from the first that has samples.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pages import score

from sparsefield.core.files import write_text
from sparsefield.evaluation.calibration import LEVELS
from sparsefield.inference.checkpoint import (
    BUNDLED,
    ModelSpec,
    load_checkpoint,
    read_spec,
    resolve,
    save_checkpoint,
    write_sums,
)
from sparsefield.training.config import config_to_dict
from sparsefield.training.run import Run

SCORES = {"psnr": "PSNR, dB", "psnr_missing": "PSNR on missing points, dB", "ssim": "SSIM"}
# Score of the samples -> what to call it, its ideal.
CALIBRATION: dict[str, tuple[str, float | None]] = {
    "crps": ("CRPS", None),
    "energy_score": ("energy score", None),
    **{name: (f"coverage of {level:.0%} intervals", level) for name, level in LEVELS.items()},
    "delta_cal": ("variance of samples / squared error of the mean (delta_cal)", 1.0),
    "spread_skill": ("spread / skill", 1.0),
    "gap_db": ("squared error of a sample / of the mean, dB", 10 * math.log10(2)),
}
HEAD = ("data", "n", "density", "seed", "nfe")
DIGITS = {"ssim": 3, "crps": 4, "energy_score": 4, "ratio": 3} | dict.fromkeys(LEVELS, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--scores", nargs="+", type=Path)
    arguments = parser.parse_args()
    target = BUNDLED / f"{arguments.name}.safetensors"
    stages = [describe_stage(Run(folder)) for folder in arguments.runs]
    source = arguments.runs[-1] / "latest.safetensors" if arguments.runs else target
    flow, spec = load_checkpoint(resolve(source))
    card: dict[str, Any] = {"training": stages or read_spec(target).card["training"]}
    if arguments.scores:
        card |= read_scores(arguments.scores)
    spec = ModelSpec(**{**vars(spec), "card": card})
    save_checkpoint(target, spec, flow.backbone.state_dict(), torch.float16)
    write_sums()
    write_text(target.with_suffix(".md"), render_card(arguments.name, spec, flow))


def describe_stage(run: Run) -> dict[str, Any]:
    """Return the data, settings, steps, images and seconds of a finished run."""
    config, log = run.read_config(), run.read_metrics()
    settings = config_to_dict(config)
    data = [Path(path).name for path in settings["data"].pop("paths")]
    settings.pop("init")
    steps = [0, *[line["step"] for line in log]]
    seconds = sum(
        (now - before) * config.batch_size / line["images_per_second"]
        for before, now, line in zip(steps, steps[1:], log, strict=False)
    )
    return {
        "data": data,
        "settings": settings,
        "steps": steps[-1],
        "images": steps[-1] * config.batch_size,
        "seconds": round(seconds),
        "val_psnr": log[-1].get("val_psnr"),
    }


def read_scores(paths: Sequence[Path]) -> dict[str, Any]:
    """Return what a card quotes of evaluations.

    `scores` are means and baselines of the first report. `calibration` is that of the first report
    with samples, beside the probabilistic baselines on the same fields; samples cost more than
    means, and may be made for fewer fields.
    """
    reports = [json.loads(path.read_text()) for path in paths]
    card = {"scores": _quote(reports[0], "mean") | {"baselines": baselines_of(reports[0])}}
    sampled = next((report for report in reports if "samples" in report), None)
    if sampled:
        baselines = {n: row for n, row in baselines_of(sampled).items() if "crps" in row}
        card["calibration"] = _quote(sampled, "samples") | {"baselines": baselines}
    return card


def baselines_of(report: dict[str, Any]) -> dict[str, Any]:
    """Return the baselines of a report or card, which one release before called floors."""
    return report.get("baselines", report.get("floors", {}))


def _quote(report: dict[str, Any], *parts: str) -> dict[str, Any]:
    return {key: report[key] for key in (*HEAD, *parts) if key in report}


def render_card(name: str, spec: ModelSpec, flow: torch.nn.Module) -> str:
    """Write the model card as Markdown."""
    weights = sum(weight.numel() for weight in flow.parameters())
    lines = [
        f"# Model card: {name}",
        "",
        f"Model `{spec.model}` with {weights:,} parameters, trained on grids of "
        f"{' x '.join(map(str, spec.shape))}. Made by `experiments/bundle_model.py`.",
        "",
        "| stage | data | trained | steps | images | seconds | learning rate |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, stage in enumerate(spec.card["training"], 1):
        settings = stage["settings"]
        part = "posterior mean" if settings["flow"]["mean_fraction"] == 1 else "flow"
        if len(scales := settings["data"].get("scales", [1])) > 1:
            part += f", cells of 1/{max(scales)} and larger"
        lines.append(
            f"| {number} | {' + '.join(stage['data'])} | {part} | {stage['steps']:,} | "
            f"{stage['images']:,} | {stage['seconds']:,} | {settings['optimizer']['lr']} |"
        )
    if "scores" in spec.card:
        lines += ["", *render_scores(spec.card["scores"])]
    if "calibration" in spec.card:
        lines += ["", *render_calibration(spec.card["calibration"])]
    return "\n".join(lines) + "\n"


def render_scores(scores: dict[str, Any]) -> list[str]:
    """Write the scores of the mean and of the baselines as a Markdown table."""
    mean = scores["mean"]
    rows = {"this model, posterior mean": mean} | baselines_of(scores)
    kept = [key for key in SCORES if key in mean]
    table = [
        f"{scores['data']}, {scores['n']:,} fields, {scores['density']:.0%} observed, "
        f"seed {scores['seed']}; 95 % bootstrap intervals:",
        "",
        f"| method | {' | '.join(SCORES[key] for key in kept)} |",
        "|---" * (len(kept) + 1) + "|",
    ]
    for name, row in rows.items():
        table.append(f"| {name} | {' | '.join(format_score(row, key) for key in kept)} |")
    return table


def render_calibration(card: dict[str, Any]) -> list[str]:
    """Write the calibration of the samples, beside that of probabilistic baselines."""
    samples, baselines = card["samples"], baselines_of(card)
    methods = {"this model": samples} | baselines
    reach = (samples["draws"] - 1) / (samples["draws"] + 1)
    lines = [
        f"{samples['draws']} samples ({samples['sampler']}, {samples['steps']} steps) of "
        f"{card['n']:,} fields of {card['data']}, {card['density']:.0%} observed, seed "
        f"{card['seed']}; 95 % bootstrap intervals. The widest interval of {samples['draws']} "
        f"calibrated samples covers {reach:.3g} of the truths, whatever its name asks for:",
        "",
        f"| calibration | {' | '.join(methods)} | ideal |",
        "|---" * (len(methods) + 2) + "|",
    ]
    for key, (title, ideal) in CALIBRATION.items():
        if key in samples:
            cells = [format_score(row, key) for row in methods.values()]
            aim = samples.get(f"{key}_level", ideal)
            shown = "" if aim is None else f"{aim:.3g}"
            lines.append(f"| {title} | {' | '.join(cells)} | {shown} |")
    if "calibration" in samples:
        lines += ["", *render_averages(samples["calibration"]["averages"])]
    return lines


def render_averages(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Write the squared error of averages of samples, relative to the posterior mean's."""
    return [
        "| average of | squared error / that of the posterior mean | theory |",
        "|---|---|---|",
        *(
            f"| {row['draws']} | {format_score(row, 'ratio')} | {row['expected']:.3f} |"
            for row in rows
        ),
    ]


def format_score(row: dict[str, Any], key: str) -> str:
    """Write a score with its interval."""
    return score(row, key, f".{DIGITS.get(key, 2)}f")


if __name__ == "__main__":
    main()
