"""sparsefield bench: time and memory of the selective scan and of whole models."""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.errors import InputError

if TYPE_CHECKING:
    from sparsefield.flow.flow import Flow
    from sparsefield.training.config import TrainConfig

Precision = Literal["auto", "float32", "bfloat16"]
SIZES = (32, 64)
CHANNELS, DENSITY = 3, 0.2


def command(
    what: Annotated[Positional[Literal["scan", "model"]], arg(metavar="scan|model")],
    shapes: Annotated[tuple[str, ...], arg(metavar="BxLxDxN ...")] = (),
    backends: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = (),
    presets: Annotated[tuple[str, ...], arg(metavar="PRESET ...")] = (),
    batch_size: Annotated[int, arg(metavar="N")] = 16,
    precision: Precision = "auto",
    repeats: Annotated[int, arg(metavar="N")] = 5,
    patience: Annotated[float, arg(metavar="SECONDS")] = float("inf"),
    threads: Annotated[int | None, arg(metavar="N")] = None,
    json: options.JsonFile = None,
) -> int:
    """Measure the backends of the selective scan, or whole models, side by side.

    They take turns, and medians are shown. Memory is what one run adds to a process of its own,
    results included; for models, beyond weights and data.

    Args:
        what: The scan, or the models of the presets.
        shapes: Sizes of scans; four from short to long by default.
        backends: Scan backends; mambapy, a peer; exponentials, a bound; attention and
            attention_bfloat16 of the same width. All but attention by default.
        presets: Presets or TOML files of models; all presets by default.
        batch_size: Images per training step of a model.
        precision: Autocast type of models, in forward and training; auto as in training.
        repeats: Runs of which the median is taken.
        patience: Seconds after which one that is slow sits out the remaining runs.
        threads: Threads to use; as many as PyTorch would by default.
    """
    import torch

    if min(repeats, batch_size, threads or 1) < 1:
        raise InputError("--repeats, --batch-size and --threads must be at least 1")
    torch.set_num_threads(threads or torch.get_num_threads())
    console = Console()

    def announce(case: str) -> None:
        Console(stderr=True).print(f"measuring {case}", style="dim", highlight=False)

    if what == "scan":
        report = _measure_scans(shapes, backends, (repeats, patience), announce)
        table = _scan_table(report["rows"])
    else:
        report = measure_models(presets, batch_size, precision, (repeats, patience), announce)
        table = _model_table(report["rows"])
    console.print(
        f"{report['device']}, {report['threads']} threads, median of {report['repeats']}, "
        f"commit {report['commit']}",
        highlight=False,
    )
    console.print(table)
    if json is not None:
        from sparsefield.evaluation.report import write_report

        write_report(json, report)
    return 0


def _measure_scans(
    shapes: tuple[str, ...],
    backends: tuple[str, ...],
    rounds: tuple[int, float],
    announce: Callable[[str], None],
) -> dict[str, Any]:
    from sparsefield.evaluation.scan_benchmark import SCAN_SHAPES, compare_scans, parse_shape

    sizes = [parse_shape(text) for text in shapes] or SCAN_SHAPES
    return compare_scans(sizes, backends, *rounds, announce)


def measure_models(
    presets: tuple[str, ...],
    batch_size: int,
    precision: Precision,
    rounds: tuple[int, float],
    announce: Callable[[str], None],
) -> dict[str, Any]:
    """Measure one forward per grid and a training step of every preset; see `command`."""
    from sparsefield.evaluation.benchmark import compare, environment
    from sparsefield.training.config import load_config, preset_names

    configs = {
        name: dataclasses.replace(
            load_config(name), batch_size=batch_size, precision=precision, device="cpu"
        )
        for name in presets or preset_names()
    }
    rows: dict[str, dict[str, Any]] = {
        name: {"preset": name, "parameters": _parameters(config), "autocast": _autocast(config)}
        for name, config in configs.items()
    }
    for size in SIZES:
        announce(f"forward at {size} x {size}")
        setups = {name: partial(prepare_forward, c, size) for name, c in configs.items()}
        for name, result in compare(setups, *rounds).items():
            rows[name][f"forward_{size}"] = result
    announce("training")
    setups = {name: partial(prepare_training, c) for name, c in configs.items()}
    for name, result in compare(setups, *rounds).items():
        if "seconds" in result:
            result["images_per_second"] = batch_size / result["seconds"]
        rows[name]["training"] = result
    head = {"benchmark": "model", **environment(), "repeats": rounds[0], "batch_size": batch_size}
    return head | {"density": DENSITY, "rows": list(rows.values())}


def prepare_forward(config: "TrainConfig", size: int) -> Callable[[], object]:
    """Return one evaluation on a grid of which a fifth is observed, as a sampler would make it.

    Presets that are trained at t = 0 only are evaluated there, all others at t = 1/2.
    """
    import torch

    from sparsefield.fields.grids import cell_centres
    from sparsefield.fields.masks import observed_indices
    from sparsefield.fields.observation import Observation
    from sparsefield.training.loop import autocast_type

    flow = _build_flow(config).eval()
    coords = cell_centres((size, size))[None]
    seen = torch.from_numpy(observed_indices(size * size, DENSITY, 0, "validation", 0))
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(1, size * size, CHANNELS, generator=generator)
    obs = Observation(coords[:, seen], torch.randn(1, len(seen), CHANNELS, generator=generator))
    t = torch.full((1,), 0.0 if config.flow.mean_fraction == 1 else 0.5)
    dtype = autocast_type(config.precision, x_t.device)

    def work() -> object:
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not None):
            return flow.denoise(x_t, t, coords, obs)

    return work


def prepare_training(config: "TrainConfig") -> Callable[[], object]:
    """Return one training step on random images of the preset's grid."""
    import numpy as np

    from sparsefield.fields.datasets import FieldDataset
    from sparsefield.training.loop import Trainer
    from sparsefield.training.run import Run

    shape = config.data.size or (SIZES[0],) * 2
    pixels = np.random.default_rng(0).random((config.batch_size, *shape, CHANNELS))
    images = FieldDataset((255 * pixels).astype(np.uint8), "noise")
    nowhere = Run(Path(os.devnull))  # nothing is saved
    return Trainer(config, nowhere, images, images, lambda progress: None).run_step


def _build_flow(config: "TrainConfig") -> "Flow":
    from sparsefield.flow.flow import Flow
    from sparsefield.models import build_model

    settings = {key: value for key, value in config.model.items() if key != "name"}
    backbone = build_model(config.model["name"], **settings)
    return Flow(backbone, config.flow.prediction, time_shift=config.flow.time_shift)


def _parameters(config: "TrainConfig") -> int:
    import torch

    with torch.device("meta"):
        return sum(weight.numel() for weight in _build_flow(config).parameters())


def _autocast(config: "TrainConfig") -> str:
    """Return the type in which matrices are multiplied."""
    import torch

    from sparsefield.training.loop import autocast_type

    dtype = autocast_type(config.precision, torch.device("cpu"))
    return "float32" if dtype is None else str(dtype).removeprefix("torch.")


def _scan_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("B x L x D x N", "backend", box=None)
    for column in ("forward, ms", "MiB", "forward + backward, ms", "MiB"):
        table.add_column(column, justify="right")
    reasons = []
    for row in rows:
        passes = [row["forward"], row["forward_backward"]]
        cells = [cell for result in passes for cell in (_milliseconds(result), _mebibytes(result))]
        table.add_row(" x ".join(map(str, row["shape"])), row["backend"], *cells)
        reasons += [f"{row['backend']}: {r['refused']}" for r in passes if "refused" in r]
    table.caption = "\n".join(dict.fromkeys(reasons)) or None
    table.caption_justify = "left"
    return table


def _model_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("preset", "autocast", box=None)
    columns = ["parameters"]
    columns += [name for size in SIZES for name in (f"{size} x {size}, ms", "MiB")]
    for column in (*columns, "training, images/s", "MiB"):
        table.add_column(column, justify="right")
    for row in rows:
        forward = [row[f"forward_{size}"] for size in SIZES]
        cells = [
            cell for result in forward for cell in (_milliseconds(result), _mebibytes(result))
        ]
        training = row["training"]
        rate = f"{training['images_per_second']:.1f}" if "seconds" in training else "refused"
        count = f"{row['parameters']:,}"
        table.add_row(row["preset"], row["autocast"], count, *cells, rate, _mebibytes(training))
    return table


def _milliseconds(result: dict[str, Any]) -> str:
    return f"{1e3 * result['seconds']:.1f}" if "seconds" in result else "refused"


def _mebibytes(result: dict[str, Any]) -> str:
    peak = result.get("peak_bytes")
    return "" if peak is None else f"{peak / 2**20:.0f}"
