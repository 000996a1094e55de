"""Measure the scan on one thread and on several while other programs keep processors busy.

    python experiments/bench_threads.py --json results/threads.json

The neighbours are processes that do nothing but count, at the same priority. What else ran on the
machine when a measurement began is counted beside them. Contestants take
turns of a second each: one thread; all threads in every call, as before calls were judged; and
calls that are judged.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from sparsefield.evaluation.report import write_report
from sparsefield.nn.scan import selective_scan
from sparsefield.nn.scan.cpu import threads
from sparsefield.profiling.scans import ScanShape, make_scan_inputs, parse_shape
from sparsefield.profiling.timing import environment

SHAPES = ("8x408x512x16", "1x2048x512x16", "1x512x128x16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("results/threads.json"))
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report = environment() | {"rounds": args.rounds, "rows": []}
    for count in args.neighbours:
        with neighbours(count):
            for text in args.shapes:
                others = threads._running_others() - count
                times = compare(parse_shape(text), args.threads, args.rounds)
                row = {"neighbours": count, "others": others, "shape": text, "seconds": times}
                report["rows"].append(row)
                print(count, text, {k: f"{1e3 * v:.1f} ms" for k, v in times.items()}, flush=True)
    write_report(args.json, report)


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep as many processors busy."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_spin, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def _spin() -> None:
    while True:
        sum(range(100_000))


def compare(shape: ScanShape, count: int, rounds: int) -> dict[str, float]:
    """Return the mean seconds of forward and backward by contestant."""
    work = _training_step(shape)
    contestants = {"one": (1, False), "always": (count, False), "judged": (count, True)}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, (number, judged) in contestants.items():
            torch.set_num_threads(number)
            with nullcontext() if judged else _unjudged():
                seconds[name].append(_mean_seconds(work))
    torch.set_num_threads(count)
    return {name: statistics.mean(times) for name, times in seconds.items()}


def _training_step(shape: ScanShape) -> Callable[[], object]:
    """Return forward and backward of the scan alone, without a loss."""
    leaves = make_scan_inputs(shape)
    dy = torch.ones(shape.items, shape.length, shape.width)

    def step() -> object:
        return torch.autograd.grad(selective_scan(**leaves, backend="cpu"), leaves.values(), dy)

    return step


def _unjudged() -> AbstractContextManager[Any]:
    return mock.patch.object(threads._Judge, "prefers_one", return_value=False)


def _mean_seconds(work: Callable[[], Any], least: float = 1.0) -> float:
    work()
    calls, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < least:
        work()
        calls += 1
    return spent / calls


if __name__ == "__main__":
    main()
