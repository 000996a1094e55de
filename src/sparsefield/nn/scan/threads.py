"""Run a compiled kernel on as many threads as torch uses."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import torch


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="sparsefield-scan")


# threads do not survive a fork: the child starts its own when it first needs them
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def run_in_threads(kernel: Callable[[int, int, int], None], tasks: int) -> None:
    """Call kernel(worker, start, stop) on consecutive ranges of the tasks, one per thread.

    The caller's thread does the first range itself, so that a single thread needs no pool. When
    the call ends, by an error as well, no thread works in the caller's memory any more.
    """
    workers = max(1, min(torch.get_num_threads(), tasks))
    ranges = [(w, tasks * w // workers, tasks * (w + 1) // workers) for w in range(workers)]
    others = [_pool().submit(kernel, *r) for r in ranges[1:]]
    try:
        kernel(*ranges[0])
    finally:
        wait(others)
    for other in others:
        other.result()
