"""Run a compiled kernel on the threads that torch computes with.

Torch's OpenMP threads go on spinning for some milliseconds after every operator, each on a
processor of its own. Threads of another pool would share these processors with them and run one
after the other; so the kernels borrow torch's.

A thread that runs Python inside the OpenMP region could be given a signal to handle, and an
exception that its handler raises cannot leave the C code around it. So no Python runs there: a
thread calls the kernel once, and the kernel takes its share of the work from a queue in memory.

Threads of our own replace OpenMP's after a fork and where there is no OpenMP. A handler may raise
between any two steps of Python in the thread that started them. So they share no lock with it
that such an end could leave closed, as the locks of `threading` and of `concurrent.futures` would.
"""

import ctypes
import os
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

RANGES_PER_THREAD = 4
# What the places of a queue hold.
TASKS, RANGES, NEXT_RANGE, NEXT_WORKER, DONE = range(5)
_forked = False


@intrinsic
def _add(typingctx: Any, address: Any, count: Any) -> Any:
    """Add to the int64 at an address, whatever other threads do; return what was there before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "seq_cst")

    return types.int64(types.intp, types.int64), codegen


@njit
def _count(queue: Any, place: int, count: int) -> int:
    return _add(np.intp(queue.ctypes.data + 8 * place), np.int64(count))


@njit
def take_worker(queue: Any) -> int:
    """Return a number that no other thread of the call has, from 0."""
    return _count(queue, NEXT_WORKER, 1)


@njit
def take_range(queue: Any) -> Any:
    """Return the first of the next tasks and the one after the last; no tasks if all are taken."""
    number, ranges = _count(queue, NEXT_RANGE, 1), queue[RANGES]
    if number >= ranges:
        return 0, 0
    tasks = queue[TASKS]
    return tasks * number // ranges, tasks * (number + 1) // ranges


@njit
def finish(queue: Any, count: int) -> None:
    """Say that as many of the tasks that were taken are done."""
    _count(queue, DONE, count)


def run_in_threads(
    kernel: Callable[..., object], tasks: int, *args: Any, memory: object = None
) -> None:
    """Call kernel(queue, *args) on several threads at the same time, until all tasks are done.

    The kernel calls `take_range` until it gets no tasks, and `finish` after every range. Threads
    that are done sooner do more ranges, since processors are not equally fast.

    On threads of our own, a second signal's handler can raise while the first is being dealt with
    and end the call before they do. They then work on in memory that lives as long as they need
    it: the arguments, and what holds the memory that arguments name by address.

    Args:
        kernel: What to call.
        tasks: How many tasks there are.
        *args: What the kernel takes after the queue.
        memory: Owner of all memory that the arguments name by address.

    Raises:
        RuntimeError: The kernel failed in one of the threads.
    """
    workers = max(1, min(torch.get_num_threads(), tasks))
    if workers == 1:
        kernel(_queue(tasks, 1), *args)
        return
    kernel(_queue(0, 0), *args)  # compiles, which no two threads should do
    queue = _queue(tasks, min(tasks, workers * RANGES_PER_THREAD))
    work = partial(kernel, queue, *args)
    work.memory = memory  # type: ignore[attr-defined]  # as long as a thread holds the work
    _team()(work, workers)
    if queue[DONE] < tasks:
        raise RuntimeError(f"a thread of {kernel} failed; the error it printed says why")


def _queue(tasks: int, ranges: int) -> np.ndarray:
    """Return a queue of the tasks 0 to tasks - 1, cut into ranges of nearly the same length."""
    queue = np.zeros(5, np.int64)
    queue[TASKS], queue[RANGES] = tasks, ranges
    return queue


@cache
def _team() -> Callable[[Callable[[], object], int], None]:
    """Return what calls a function on several threads at the same time."""
    library = None if _forked else _openmp_of_torch()
    return _run_in_own_threads if library is None else _OpenMPTeam(library)


class _OpenMPTeam:
    """Call a function on the threads of an OpenMP runtime with the interface of GNU's."""

    def __init__(self, library: ctypes.CDLL) -> None:
        # the runtime passes the data, a null pointer, which C functions may ignore
        self._body = ctypes.CFUNCTYPE(None)
        self._parallel = library.GOMP_parallel
        self._parallel.argtypes = [self._body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._parallel.restype = None

    def __call__(self, work: Callable[[], object], workers: int) -> None:
        self._parallel(self._body(work), None, workers, 0)


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


def _run_in_own_threads(work: Callable[[], object], workers: int) -> None:
    parts = [_Part(work) for _ in range(1, workers)]
    try:
        for part in parts:
            start_new_thread(part.run, ())
        work()
    finally:
        _wait(parts)


class _Part:
    """A call in another thread, which ends even if its caller is interrupted anywhere.

    The caller sets `unwanted` and then reads `started`. The thread sets `started` and then reads
    `unwanted`. So one of them sees what the other set: nothing runs that nobody waits for.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.started = self.unwanted = self.ended = False
        self.running = allocate_lock()
        self.running.acquire()

    def run(self) -> None:
        self.started = True
        try:
            if not self.unwanted:
                self.work()
        finally:
            self.ended = True
            self.running.release()

    def wait(self) -> None:
        """Return when the call has ended or never will begin; may be interrupted and repeated."""
        self.unwanted = True
        while self.started and not self.ended:
            self.running.acquire(timeout=1)


def _wait(parts: list[_Part]) -> None:
    """Wait until all have ended, also if a signal's handler raises; then let it raise."""
    try:
        for part in parts:
            part.wait()
    except BaseException:
        _wait(parts)
        raise


def _after_fork() -> None:
    """Use threads of our own from now on: torch's do not survive a fork."""
    global _forked
    _forked = True
    _team.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
