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

Where other programs keep the processors busy, the end of a region waits for threads that get no
processor, and waits spinning. So one thread works alone where no processor is free. Elsewhere each
call is judged by what one thread would have needed: see `_Judge`.
"""

import ctypes
import os
import time
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

RANGES_PER_THREAD = 4
# What the places of a queue hold.
TASKS, RANGES, NEXT_RANGE, NEXT_WORKER, DONE = range(5)
# When the call began, the sum of the times until each thread did, and until the first ran out of
# tasks; how many threads and tasks there were by then. Times are in nanoseconds.
BEGAN, LATENESS, FIRST_IDLE, STARTED, DONE_BY_THEN = range(5, 10)
PLACES = 10
PENALTY = 30  # a call that lost may be repeated when this many times its loss has passed
LOOK = 20_000_000  # nanoseconds between looks at how many processes run
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


_CLOCK = "clock_gettime"
HAS_CLOCK = hasattr(time, _CLOCK) and bool(binding.address_of_symbol(_CLOCK))
_clock_gettime = types.ExternalFunction(_CLOCK, types.int32(types.int32, types.intp))


@njit
def _elapsed(queue: Any) -> int:
    """Return the nanoseconds since the call began, 0 where there is no clock."""
    if not HAS_CLOCK:
        return 0
    now = np.empty(2, np.int64)
    _clock_gettime(np.int32(1), np.intp(now.ctypes.data))  # the monotonic clock
    return now[0] * 1_000_000_000 + now[1] - queue[BEGAN]


@njit
def take_worker(queue: Any) -> int:
    """Return a number that no other thread of the call has, from 0; every thread takes one."""
    if not queue[FIRST_IDLE]:
        _count(queue, LATENESS, _elapsed(queue))
        _count(queue, STARTED, 1)
    return _count(queue, NEXT_WORKER, 1)


@njit
def take_range(queue: Any) -> Any:
    """Return the first of the next tasks and the one after the last; no tasks if all are taken."""
    number, ranges = _count(queue, NEXT_RANGE, 1), queue[RANGES]
    if number == ranges:
        queue[DONE_BY_THEN] = queue[DONE]
        queue[FIRST_IDLE] = _elapsed(queue)
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
    if workers == 1 or _judge.prefers_one():
        kernel(_queue(tasks, 1), *args)
        return
    kernel(_queue(0, 0), *args)  # compiles, which no two threads should do
    queue = _queue(tasks, min(tasks, workers * RANGES_PER_THREAD))
    work = partial(kernel, queue, *args)
    work.memory = memory  # type: ignore[attr-defined]  # as long as a thread holds the work
    queue[BEGAN] = time.monotonic_ns()
    _team()(work, workers)
    _judge.see(queue)
    if queue[DONE] < tasks:
        raise RuntimeError(f"a thread of {kernel} failed; the error it printed says why")


def _queue(tasks: int, ranges: int) -> np.ndarray:
    """Return a queue of the tasks 0 to tasks - 1, cut into ranges of nearly the same length."""
    queue = np.zeros(PLACES, np.int64)
    queue[TASKS], queue[RANGES] = tasks, ranges
    return queue


class _Judge:
    """Decides whether several threads are worth while, from how the last calls went.

    Until the first thread ran out of tasks, all tasks were done or half done. One thread would
    have taken the time that all threads worked till then, divided by this share. A call that took
    longer lost the difference, mostly by waiting for a thread that other programs kept from
    working. Then one thread works alone for `PENALTY` times as long: what calls lose is at most
    that share of the time.
    """

    def __init__(self) -> None:
        self.alone_until = self.next_look = 0

    def prefers_one(self) -> bool:
        """Tell whether one thread shall work alone."""
        now = time.monotonic_ns()
        if now >= max(self.alone_until, self.next_look):
            self.next_look = now + LOOK
            if _running_others() >= (os.cpu_count() or 1):
                self.alone_until = self.next_look
        return now < self.alone_until

    def see(self, queue: np.ndarray) -> None:
        """Take in a call that has ended now."""
        now = time.monotonic_ns()
        lost = now - int(queue[BEGAN]) - _alone(queue)
        if queue[FIRST_IDLE] and lost > 0:
            self.alone_until = now + PENALTY * int(lost)


def _running_others() -> int:
    """Return how many threads of this machine but the calling one run or wait for a processor."""
    try:
        with open("/proc/loadavg") as file:
            return int(file.read().split()[3].partition("/")[0]) - 1
    except (OSError, ValueError, IndexError):
        return 0


def _alone(queue: np.ndarray) -> float:
    """Return about how long one thread would have taken for the tasks of a call, in ns."""
    worked = int(queue[FIRST_IDLE]) * int(queue[STARTED]) - int(queue[LATENESS])
    share = (1 + int(queue[DONE_BY_THEN]) / int(queue[TASKS])) / 2
    return worked / share


_judge = _Judge()


@contextmanager
def alone_when_busy() -> Iterator[None]:
    """Let torch's own operators work on one thread as well, while that is what kernels do.

    It is a setting of the calling thread: no other one notices.
    """
    library = None if _forked else _openmp_of_torch()
    before = torch.get_num_threads()
    if library is None or before == 1 or not _judge.prefers_one():
        yield
        return
    try:
        library.omp_set_num_threads(1)
        yield
    finally:
        library.omp_set_num_threads(before)


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


@cache
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
