"""Turn finished training runs into a bundled model: float16 weights and a model card.

    python benchmarks/bundle_model.py NAME RUN [RUN ...] [--scores out.json]

RUNs are given in the order in which they were trained, the last one holding the final weights; the
card lists the data, steps and seconds of each. --scores adds what `sparsefield evaluate` measured.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from sparsefield.checkpoint import (
    BUNDLED,
    ModelSpec,
    load_checkpoint,
    read_spec,
    resolve,
    save_checkpoint,
)
from sparsefield.files import write_text
from sparsefield.training.config import config_to_dict
from sparsefield.training.run import Run

SCORES = {"psnr": "PSNR, dB", "psnr_missing": "PSNR on missing points, dB", "ssim": "SSIM"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--scores", type=Path)
    arguments = parser.parse_args()
    target = BUNDLED / f"{arguments.name}.safetensors"
    stages = [describe_stage(Run(folder)) for folder in arguments.runs]
    source = arguments.runs[-1] / "latest.safetensors" if arguments.runs else target
    flow, spec = load_checkpoint(resolve(source))
    card: dict[str, Any] = {"training": stages or read_spec(target).card["training"]}
    if arguments.scores:
        card["scores"] = read_scores(arguments.scores)
    spec = ModelSpec(**{**vars(spec), "card": card})
    save_checkpoint(target, spec, flow.backbone.state_dict(), torch.float16)
    target.chmod(0o644)
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


def read_scores(path: Path) -> dict[str, Any]:
    """Return what a card quotes of an evaluation."""
    report = json.loads(path.read_text())
    kept = ("data", "n", "density", "seed", "nfe", "mean", "samples", "floors")
    return {key: report[key] for key in kept if key in report}


def render_card(name: str, spec: ModelSpec, flow: torch.nn.Module) -> str:
    """Write the model card as Markdown."""
    weights = sum(weight.numel() for weight in flow.parameters())
    lines = [
        f"# Model card: {name}",
        "",
        f"Model `{spec.model}` with {weights:,} parameters, trained on grids of "
        f"{' x '.join(map(str, spec.shape))}. Made by `benchmarks/bundle_model.py`.",
        "",
        "| stage | data | trained | steps | images | seconds | learning rate |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, stage in enumerate(spec.card["training"], 1):
        settings = stage["settings"]
        part = "posterior mean" if settings["flow"]["mean_fraction"] == 1 else "flow"
        lines.append(
            f"| {number} | {' + '.join(stage['data'])} | {part} | {stage['steps']:,} | "
            f"{stage['images']:,} | {stage['seconds']:,} | {settings['optimizer']['lr']} |"
        )
    lines += ["", *render_scores(spec.card["scores"])] if "scores" in spec.card else []
    return "\n".join(lines) + "\n"


def render_scores(scores: dict[str, Any]) -> list[str]:
    """Write the scores of the mean and of the floors as a Markdown table."""
    mean = scores["mean"]
    rows = {"this model, posterior mean": mean} | scores["floors"]
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


def format_score(row: dict[str, Any], key: str) -> str:
    """Write a score with its interval."""
    if key not in row:
        return ""
    digits = 3 if key == "ssim" else 2
    text = f"{row[key]:.{digits}f}"
    if f"{key}_ci" in row:
        low, high = row[f"{key}_ci"]
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text


if __name__ == "__main__":
    main()
