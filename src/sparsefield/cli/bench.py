"""sparsefield bench: time and memory of the selective scan, of models, and of larger grids."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.core.errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]


def command(
    what: Annotated[Positional[Literal["scan", "model", "size"]], arg(metavar="scan|model|size")],
    shapes: Annotated[tuple[str, ...], arg(metavar="BxLxDxN ...")] = (),
    backends: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = (),
    presets: Annotated[tuple[str, ...], arg(metavar="PRESET ...")] = (),
    sizes: Annotated[tuple[int, ...], arg(metavar="N ...")] = (),
    settings: Annotated[tuple[str, ...], arg(metavar="key=value ...")] = (),
    batch_size: Annotated[int, arg(metavar="N")] = 16,
    precision: Precision = "auto",
    device: options.Device = "auto",
    repeats: Annotated[int, arg(metavar="N")] = 5,
    patience: Annotated[float, arg(metavar="SECONDS")] = float("inf"),
    threads: Annotated[int | None, arg(metavar="N")] = None,
    json: options.JsonFile = None,
) -> int:
    """Measure the backends of the selective scan, whole models, or growing grids, side by side.

    They take turns, and medians are shown. Memory is what one run adds to a process of its own,
    results included; for models, beyond weights and data.

    Args:
        what: The scan; forward and training of the presets; or one posterior mean of the bundled
            models and the presets at several sizes, a fifth of 32 x 32 cells observed.
        shapes: Sizes of scans; four from short to long by default.
        backends: Scan backends; mambapy, a peer; exponentials, a bound; attention and
            attention_bfloat16 of the same width. All but attention by default.
        presets: Presets or TOML files of models, for sizes bundled models too; all by default.
        sizes: Cells per axis; 32 64 128 256 512 by default.
        settings: Settings in place of the presets'.
        batch_size: Images per training step of a model.
        precision: Autocast type of models, in forward and training; auto as in training.
        device: Where models run; the scan's backends run on the processor.
        repeats: Runs of which the median is taken.
        patience: Seconds after which one that is slow sits out the remaining runs.
        threads: Threads to use; as many as PyTorch would by default.
    """
    import torch

    if min(repeats, batch_size, threads or 1) < 1:
        raise InputError("--repeats, --batch-size and --threads must be at least 1")
    if not patience > 0:
        raise InputError(f"--patience must be above 0 seconds, not {patience:g}")
    torch.set_num_threads(threads or torch.get_num_threads())
    console = Console()

    def announce(case: str) -> None:
        Console(stderr=True).print(f"measuring {case}", style="dim", highlight=False)

    if what == "scan":
        report = _measure_scans(shapes, backends, (repeats, patience), announce)
        table = _scan_table(report["rows"])
    elif what == "size":
        from sparsefield.profiling.sizes import SIZES, measure_sizes

        report = measure_sizes(
            presets, settings, sizes or SIZES, device, (repeats, patience), announce
        )
        table = _size_table(report["rows"])
    else:
        from sparsefield.profiling.models import measure_models

        report = measure_models(
            presets, settings, batch_size, precision, device, (repeats, patience), announce
        )
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
    from sparsefield.profiling.scans import SCAN_SHAPES, compare_scans, parse_shape

    sizes = [parse_shape(text) for text in shapes] or SCAN_SHAPES
    return compare_scans(sizes, backends, *rounds, announce)


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
    from sparsefield.profiling.models import SIZES

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


def _size_table(rows: list[dict[str, Any]]) -> Table:
    sizes = list(rows[0]["sizes"])
    table = Table("model", "claims", box=None)
    columns = [name for size in sizes for name in (f"{size} x {size}, ms", "MiB")]
    for column in ("parameters", "exponent", *columns):
        table.add_column(column, justify="right")
    reasons = []
    for row in rows:
        results = [row["sizes"][size] for size in sizes]
        cells = [
            cell for result in results for cell in (_milliseconds(result), _mebibytes(result))
        ]
        exponent = "" if row["exponent"] is None else f"{row['exponent']:.2f}"
        claim = "linear" if row["linear_cost"] else ""
        table.add_row(row["name"], claim, f"{row['parameters']:,}", exponent, *cells)
        reasons += [f"{row['name']}: {r['refused']}" for r in results if "refused" in r]
    table.caption = "\n".join(reasons) or None
    table.caption_justify = "left"
    return table


def _milliseconds(result: dict[str, Any]) -> str:
    return f"{1e3 * result['seconds']:.1f}" if "seconds" in result else "refused"


def _mebibytes(result: dict[str, Any]) -> str:
    peak = result.get("peak_bytes")
    return "" if peak is None else f"{peak / 2**20:.0f}"
