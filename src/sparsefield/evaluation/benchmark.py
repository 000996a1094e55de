"""Time and memory of contestants side by side, and the selective scan's backends as contestants.

Contestants take turns (A B A B ...), because a machine is not equally fast all the time, and the
median counts. Peak memory is what the resident set of a process of its own grows by.
"""

import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsefield.errors import InputError, unknown_name
from sparsefield.evaluation.report import code_version
from sparsefield.nn.scan import BACKENDS, selective_scan

Work = Callable[[], object]
# Makes everything ready and returns the work to measure; raises InputError if that cannot run.
# Must be picklable, since peak memory is measured in another process.
Setup = Callable[[], Work]


def compare(contestants: Mapping[str, Setup], repeats: int) -> dict[str, dict[str, Any]]:
    """Measure all contestants, one run each per round.

    Args:
        contestants: What to measure, by name.
        repeats: Rounds, at least 1, after one that does not count.

    Returns:
        By name: `seconds`, the median of `runs`, and `peak_bytes`, None where the system does
        not tell; or `refused`, the reason why the contestant cannot run.
    """
    results: dict[str, dict[str, Any]] = {}
    ready: dict[str, Work] = {}
    for name, setup in contestants.items():
        try:
            ready[name] = setup()
            ready[name]()
        except InputError as error:
            ready.pop(name, None)
            results[name] = {"refused": str(error)}
    runs: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(repeats):
        for name, work in ready.items():
            runs[name].append(_seconds(work))
    ready.clear()  # its memory is needed by the processes that follow
    for name, times in runs.items():
        peak = peak_memory(contestants[name])
        results[name] = {"seconds": statistics.median(times), "runs": times, "peak_bytes": peak}
    return {name: results[name] for name in contestants}


def _seconds(work: Work) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_memory(setup: Setup) -> int | None:
    """Return by how many bytes one run of the work grows the resident set of a new process.

    What the setup makes does not count; all that the work allocates does, results included.
    None where the system keeps no record of it or ends the process for want of memory.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_measure_peak, setup, torch.get_num_threads()).result()
        except BrokenProcessPool:
            return None


def _measure_peak(setup: Setup, threads: int) -> int | None:
    torch.set_num_threads(threads)
    work = setup()
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    except OSError:
        return None
    before = _status_bytes("VmRSS")
    work()
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def environment() -> dict[str, Any]:
    """Return what a measurement depends on: device, threads, versions."""
    return {
        "device": f"cpu, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "commit": code_version(),
    }


class ScanShape(NamedTuple):
    """Sizes of a scan: items B, tokens L, channels D, states N."""

    items: int
    length: int
    width: int
    states: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


SCAN_SHAPES = (
    ScanShape(8, 408, 512, 16),
    ScanShape(1, 2048, 512, 16),
    ScanShape(1, 16384, 256, 16),
    ScanShape(1, 65536, 256, 16),
)
PASSES = {"forward": False, "forward_backward": True}


def parse_shape(text: str) -> ScanShape:
    """Read sizes such as 8x408x512x16.

    Raises:
        InputError: if these are not four positive integers.
    """
    sizes = text.split("x")
    if len(sizes) != 4 or not all(size.isdecimal() and int(size) for size in sizes):
        raise InputError(f"'{text}' is not a scan's shape; write BxLxDxN, such as 8x408x512x16")
    return ScanShape(*map(int, sizes))


def scan_contestants() -> list[str]:
    """Return the names that `compare_scans` knows: all backends, and implementations elsewhere."""
    return [*BACKENDS, *PEERS]


def compare_scans(
    shapes: Sequence[ScanShape],
    names: Sequence[str] = (),
    repeats: int = 5,
    progress: Callable[[str], None] = lambda case: None,
) -> dict[str, Any]:
    """Measure scans with skip connection, gate and bias, as a Mamba layer calls them, in float32.

    The loss is the sum of y; gradients of all inputs are computed.

    Args:
        shapes: Sizes of the inputs.
        names: Contestants out of `scan_contestants`; all if there are none.
        repeats: Runs of which the median is taken.
        progress: Called with a description of what is measured next.

    Returns:
        The environment and `rows`, one per shape and contestant.

    Raises:
        InputError: if a name is unknown.
    """
    names = list(names) or scan_contestants()
    for name in names:
        if name not in scan_contestants():
            raise unknown_name("scan backend", name, scan_contestants())
    rows = []
    for shape in shapes:
        results = {}
        for kind, backward in PASSES.items():
            progress(f"{shape} {kind.replace('_', ' + ')}")
            setups = {name: partial(prepare_scan, name, shape, backward) for name in names}
            results[kind] = compare(setups, repeats)
        for name in names:
            measured = {kind: results[kind][name] for kind in PASSES}
            rows.append({"shape": list(shape), "backend": name, **measured})
    return {"benchmark": "scan", **environment(), "repeats": repeats, "rows": rows}


def prepare_scan(name: str, shape: ScanShape, backward: bool) -> Work:
    """Make inputs and return a run of a contestant; one on tiny inputs has compiled it.

    Raises:
        InputError: if the contestant refuses.
    """
    _check_memory(name, shape, backward)
    scan = PEERS[name] if name in PEERS else partial(selective_scan, backend=name)
    constant = name == "einsum"
    _run_scan(scan, make_scan_inputs(ScanShape(1, 2, 2, shape.states), constant), backward)
    return partial(_run_scan, scan, make_scan_inputs(shape, constant), backward)


def make_scan_inputs(shape: ScanShape, constant: bool = False) -> dict[str, Tensor]:
    """Return random float32 leaves by argument name; delta, B and C of one token if `constant`."""
    items, length, width, states = shape
    generator = torch.Generator().manual_seed(0)
    tokens = (1, 1) if constant else (items, length)
    sizes = {
        "u": (items, length, width),
        "delta": (*tokens, width),
        "A": (width, states),
        "B": (*tokens, states),
        "C": (*tokens, states),
        "D": (width,),
        "z": (items, length, width),
        "delta_bias": (width,),
    }
    inputs = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    inputs["A"] = -inputs["A"].exp()
    return {name: x.requires_grad_() for name, x in inputs.items()}


def _run_scan(scan: Callable[..., Tensor], leaves: Mapping[str, Tensor], backward: bool) -> None:
    for leaf in leaves.values():
        leaf.grad = None
    by_token = {name: leaves[name].expand(*leaves["u"].shape[:2], -1) for name in ("delta", *"BC")}
    with torch.set_grad_enabled(backward):
        y = scan(**{**leaves, **by_token}).sum()
        if backward:
            y.backward()


def _scan_mambapy(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """Scan with mambapy (https://github.com/alxndrTL/mamba.py), a parallel scan in PyTorch."""
    try:
        from mambapy.mamba import MambaBlock
    except ImportError as error:
        raise InputError(f"mambapy is not installed: {error}") from error
    steps = F.softplus(delta + delta_bias)
    return MambaBlock.selective_scan(None, u, steps, A, B, C, D) * F.silu(z)


PEERS: dict[str, Callable[..., Tensor]] = {"mambapy": _scan_mambapy}
# (B, L, D, N) tensors that exist at the peak of a forward and of a forward + backward
STATE_TENSORS = {"naive": (1, 6), "mambapy": (6, 10)}


def _check_memory(name: str, shape: ScanShape, backward: bool) -> None:
    """Refuse what would not fit the free memory; better than being killed half way."""
    if name not in STATE_TENSORS or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return
    length = 2 ** (shape.length - 1).bit_length()  # mambapy pads to a power of two
    size = 4 * shape.items * length * shape.width * shape.states
    needed = STATE_TENSORS[name][backward] * size
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise InputError(
            f"{name} needs about {needed / 2**30:.1f} GiB for {shape}; "
            f"{free / 2**30:.1f} GiB are free"
        )
