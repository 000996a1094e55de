"""sparsefield models: list models, presets and bundled weights."""

from dataclasses import asdict
from typing import Any

import rich
from rich.table import Table


def command(json: bool = False) -> int:
    """List models with their claims, presets, and bundled weights with their scores.

    Args:
        json: Print JSON.
    """
    catalogue = describe_models()
    if json:
        rich.print_json(data=catalogue)
        return 0
    rich.print(_model_table(catalogue["models"]))
    rich.print(f"\npresets: {', '.join(catalogue['presets']) or 'none'}\n")
    rich.print(
        _bundle_table(catalogue["bundled"]) if catalogue["bundled"] else "no bundled weights"
    )
    rich.print(_interpolator_table(catalogue["interpolators"]))
    return 0


def describe_models() -> dict[str, Any]:
    """Return models, presets and bundled weights, with parameter counts from building them."""
    import torch

    from sparsefield.inference.checkpoint import bundled_models, read_spec
    from sparsefield.models import MODELS, build_model, find_model
    from sparsefield.profiling.flops import flops_per_point
    from sparsefield.training.config import preset_names

    def count(module: torch.nn.Module) -> int:
        return sum(weight.numel() for weight in module.parameters())

    specs = {name: read_spec(path) for name, path in bundled_models().items()}
    # Tensors without memory, so that large models are counted in milliseconds too.
    with torch.device("meta"):
        models = {
            name: {"parameters": count(build_model(name)), "claims": asdict(kind.claims)}
            for name, kind in MODELS.items()
        }
        bundled = {
            name: {
                "model": spec.model,
                "parameters": count(spec.build()),
                "shape": spec.shape,
                "claims": asdict(find_model(spec.model).claims),
                "card": spec.card,
            }
            for name, spec in specs.items()
        }
    for name, row in models.items():
        row["flops_per_point"] = flops_per_point(name)
    return {
        "models": models,
        "presets": preset_names(),
        "bundled": bundled,
        "interpolators": _describe_interpolators(),
    }


def _describe_interpolators() -> dict[str, Any]:
    """Return the bundled interpolators of scattered points, with their cards."""
    import torch

    from sparsefield.inference.checkpoint import bundled_interpolators
    from sparsefield.inference.interpolator import read_card
    from sparsefield.models.universal import UniversalInterpolator

    found = {}
    for name, path in bundled_interpolators().items():
        card = read_card(path)
        with torch.device("meta"):
            network = UniversalInterpolator(**card["options"])
        text = path.with_suffix(".md")
        found[name] = {
            "parameters": sum(weight.numel() for weight in network.parameters()),
            "dims": [1, 2, 3],
            "card": card | {"text": text.read_text(encoding="utf-8") if text.is_file() else ""},
        }
    return found


def _model_table(models: dict[str, Any]) -> Table:
    table = Table("model", box=None)
    table.add_column("parameters", justify="right")
    table.add_column("MFLOP / point", justify="right")
    table.add_column("claims")
    for name, row in models.items():
        claims = [claim.replace("_", " ") for claim, holds in row["claims"].items() if holds]
        cost = f"{1e-6 * row['flops_per_point']:.1f}"
        table.add_row(name, f"{row['parameters']:,}", cost, ", ".join(claims))
    table.caption = "defaults; one evaluation on 16 x 16 points, a fifth of them observed"
    table.caption_justify = "left"
    return table


def _scores(card: dict[str, Any]) -> str:
    """Say in a line how good a model was measured to be."""
    scores = card.get("scores")
    if not scores:
        return "not evaluated"
    mean = scores["mean"]
    return (
        f"{mean['psnr']:.2f} dB, SSIM {mean['ssim']:.3f} on {scores['data']} at "
        f"{scores['density']:.0%}"
    )


def _bundle_table(bundled: dict[str, Any]) -> Table:
    table = Table("bundled", "model", box=None)
    table.add_column("parameters", justify="right")
    table.add_column("grid")
    table.add_column("scores")
    for name, row in bundled.items():
        grid = " x ".join(map(str, row["shape"]))
        table.add_row(name, row["model"], f"{row['parameters']:,}", grid, _scores(row["card"]))
    return table


def _interpolator_table(interpolators: dict[str, Any]) -> Table:
    table = Table("interpolator", box=None)
    table.add_column("parameters", justify="right")
    table.add_column("dimensions")
    table.add_column("steps", justify="right")
    for name, row in interpolators.items():
        dims = f"{row['dims'][0]} to {row['dims'][-1]}"
        table.add_row(name, f"{row['parameters']:,}", dims, f"{row['card']['steps']:,}")
    table.caption = "of scattered points in any unit; --json has their cards"
    table.caption_justify = "left"
    return table
