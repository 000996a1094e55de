"""Time and memory of contestants side by side.

Contestants take turns (A B A B ...), because a machine is not equally fast all the time, and the
median counts. Peak memory is what the resident set of a process of its own grows by.
"""

import gc
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from sparsefield.core.errors import InputError
from sparsefield.core.version import code_version

Work = Callable[[], object]
# Makes everything ready and returns the work to measure; raises InputError if that cannot run.
# Must be picklable, since peak memory is measured in another process.
Setup = Callable[[], Work]


def compare(
    contestants: Mapping[str, Setup], repeats: int, patience: float = math.inf
) -> dict[str, dict[str, Any]]:
    """Measure all contestants, one run each per round.

    Args:
        contestants: What to measure, by name.
        repeats: Rounds, at least 1, after one that does not count.
        patience: Seconds of counted runs after which a contestant sits out the other rounds.

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
            if sum(runs[name]) < patience:
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
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Return what a measurement depends on: device (processor if None), threads, versions."""
    device = device or torch.device("cpu")
    cpu = device.type == "cpu"
    kind = torch.backends.cpu.get_cpu_capability() if cpu else torch.cuda.get_device_name(device)
    return {
        "device": f"{device.type}, {kind}",
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "commit": code_version(),
    }
