"""Run a compiled kernel on the threads that torch computes with.

Torch's OpenMP threads go on spinning for some milliseconds after every operator, each on a
processor of its own. Threads of another pool would share these processors with them and run one
after the other; so the kernels borrow torch's.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

import torch

Work = Callable[[int], None]
RANGES_PER_THREAD = 4
_forked = False


def run_in_threads(kernel: Callable[[int, int, int], None], tasks: int) -> None:
    """Call kernel(worker, start, stop) on ranges of the tasks, each thread on one at a time.

    Threads that are done sooner do more ranges, since processors are not equally fast. When the
    call ends, by an error as well, no thread works in the caller's memory any more.
    """
    workers = max(1, min(torch.get_num_threads(), tasks))
    if workers == 1:
        kernel(0, 0, tasks)
        return
    ranges = iter(_split(tasks, workers * RANGES_PER_THREAD))
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for start, stop in ranges:
                kernel(worker, start, stop)
        except BaseException as error:  # an exception cannot leave a thread of C code
            errors.append(error)

    _team()(work, workers)
    if errors:
        raise errors[0]


def _split(tasks: int, count: int) -> list[tuple[int, int]]:
    """Cut the tasks into at most `count` ranges, none of them empty."""
    count = min(count, tasks)
    return [(tasks * i // count, tasks * (i + 1) // count) for i in range(count)]


@cache
def _team() -> Callable[[Work, int], None]:
    """Return what calls work(0) ... work(n - 1) at the same time."""
    library = None if _forked else _openmp_of_torch()
    return _run_in_pool if library is None else _OpenMPTeam(library)


class _OpenMPTeam:
    """Run work on the threads of an OpenMP runtime with the interface of GNU's."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self._parallel = library.GOMP_parallel
        self._parallel.argtypes = [self._body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._parallel.restype = None

    def __call__(self, work: Work, workers: int) -> None:
        # the runtime may provide fewer threads than asked for: each takes work until none is left
        numbers = iter(range(workers))

        def body(_: Any) -> None:
            for number in numbers:
                work(number)

        self._parallel(self._body(body), None, workers, 0)


def _openmp_of_torch() -> ctypes.CDLL | None:
    """Return the OpenMP runtime that torch has loaded, if it is one that can be called."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    for path in sorted((Path(torch.__file__).parent / "lib").glob("lib*omp*")):
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError:
            continue
        if hasattr(library, "GOMP_parallel"):
            return library
    return None


def _run_in_pool(work: Work, workers: int) -> None:
    others = [_pool().submit(work, worker) for worker in range(1, workers)]
    try:
        work(0)
    finally:
        wait(others)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="sparsefield")


def _after_fork() -> None:
    """Start over with threads of our own: neither torch's nor those of a pool survive a fork."""
    global _forked
    _forked = True
    _team.cache_clear()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
