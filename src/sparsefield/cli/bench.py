"""sparsefield bench: time and memory of the selective scan, of models, and of larger grids."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import arg, subcommand

from sparsefield.cli import options
from sparsefield.core.errors import InputError
from sparsefield.core.words import counted

Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    arg(help="Autocast type, in forward and training; auto as in training."),
]
Presets = Annotated[
    tuple[str, ...], arg(metavar="PRESET ...", help="Presets or TOML files; all by default.")
]
Settings = Annotated[
    tuple[str, ...], arg(metavar="key=value ...", help="Settings in place of the presets'.")
]


@dataclass(frozen=True)
class Rounds:
    """How often everything is measured, and with how many threads."""

    repeats: Annotated[int, arg(metavar="N", help="Runs of which the median is taken.")] = 5
    patience: Annotated[
        float,
        arg(metavar="SECONDS", help="After so long, a slow contestant sits out the other runs."),
    ] = float("inf")
    threads: Annotated[
        int | None,
        arg(metavar="N", help="Threads to use; as many as PyTorch would by default."),
    ] = None
    json: options.JsonFile = None

    def prepare(self) -> tuple[int, float]:
        """Set the threads; return repeats and patience."""
        import torch

        if min(self.repeats, self.threads or 1) < 1:
            raise InputError("--repeats and --threads must be at least 1")
        if not self.patience > 0:
            raise InputError(f"--patience must be above 0 seconds, not {self.patience:g}")
        torch.set_num_threads(self.threads or torch.get_num_threads())
        return self.repeats, self.patience


@dataclass(frozen=True)
class Scan(Rounds):
    """Measure the backends of the selective scan, forward and backward, on the processor."""

    shapes: Annotated[
        tuple[str, ...],
        arg(metavar="BxLxDxN ...", help="Sizes; four from short to long by default."),
    ] = ()
    backends: Annotated[
        tuple[str, ...],
        arg(
            metavar="NAME ...",
            help="Scan backends; mambapy, a peer; attention and attention_bfloat16 of the same "
            "width. All but attention by default.",
        ),
    ] = ()

    def measure(self) -> tuple[dict[str, Any], Table]:
        """Return the report and its table."""
        from sparsefield.profiling.scans import SCAN_SHAPES, compare_scans, parse_shape

        rounds = self.prepare()
        sizes = [parse_shape(text) for text in self.shapes] or SCAN_SHAPES
        report = compare_scans(sizes, self.backends, *rounds, _announce)
        return report, _scan_table(report["rows"])


@dataclass(frozen=True)
class Model(Rounds):
    """Measure a forward at two sizes and a training step of presets."""

    presets: Presets = ()
    settings: Settings = ()
    batch_size: Annotated[int, arg(metavar="N", help="Images per training step.")] = 16
    precision: Precision = "auto"
    device: options.Device = "auto"

    def measure(self) -> tuple[dict[str, Any], Table]:
        """Return the report and its table."""
        from sparsefield.profiling.models import measure_models

        if self.batch_size < 1:
            raise InputError("--batch-size must be at least 1")
        how = (self.presets, self.settings, self.batch_size, self.precision, self.device)
        report = measure_models(*how, self.prepare(), _announce)
        return report, _model_table(report["rows"])


@dataclass(frozen=True)
class Size(Rounds):
    """Measure one posterior mean at several sizes, a fifth of 32 x 32 cells observed."""

    presets: Annotated[
        tuple[str, ...],
        arg(metavar="NAME ...", help="Bundled models, presets or TOML files; all by default."),
    ] = ()
    settings: Settings = ()
    sizes: Annotated[
        tuple[int, ...],
        arg(metavar="N ...", help="Cells per axis; 32 64 128 256 512 by default."),
    ] = ()
    device: options.Device = "auto"

    def measure(self) -> tuple[dict[str, Any], Table]:
        """Return the report and its table."""
        from sparsefield.profiling.sizes import SIZES, measure_sizes

        how = (self.presets, self.settings, self.sizes or SIZES, self.device)
        report = measure_sizes(*how, self.prepare(), _announce)
        return report, _size_table(report["rows"])


Benchmark = (
    Annotated[Scan, subcommand("scan", prefix_name=False)]
    | Annotated[Model, subcommand("model", prefix_name=False)]
    | Annotated[Size, subcommand("size", prefix_name=False)]
)


def command(benchmark: Annotated[Benchmark, arg(name="")]) -> int:
    """Measure contestants side by side: scan backends, whole models, or growing grids.

    They take turns, and medians are shown. Memory is what one run adds to a process of its own,
    results included; for models, beyond weights and data.
    """
    report, table = benchmark.measure()
    console = Console()
    console.print(
        f"{report['device']}, {counted(report['threads'], 'thread')}, median of "
        f"{report['repeats']}, commit {report['commit']}",
        highlight=False,
    )
    console.print(table)
    if benchmark.json is not None:
        from sparsefield.evaluation.report import write_report

        write_report(benchmark.json, report)
    return 0


def _announce(case: str) -> None:
    Console(stderr=True).print(f"measuring {case}", style="dim", highlight=False)


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
