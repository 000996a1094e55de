"""How compiled kernels share a machine's processors with torch."""

import random
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numba import njit

from sparsefield.nn.local_attention import local_attention
from sparsefield.nn.neighbours import nearest
from sparsefield.nn.scan import selective_scan
from sparsefield.nn.scan.cpu import threads
from sparsefield.nn.scan.cpu.threads import finish, run_in_threads, take_range, take_worker


@pytest.fixture(params=["openmp", "own"])
def team(request, monkeypatch):
    """Run a test on torch's own threads and on those that replace them after a fork."""
    library = threads._openmp_of_torch()
    if request.param == "own":
        monkeypatch.setattr(threads, "_team", lambda: threads._run_in_own_threads)
    elif library is None:
        pytest.skip("torch's OpenMP runtime cannot be called here")
    return request.param


@pytest.fixture
def thread_count():
    """Return what sets the number of torch's threads, which is as before after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=[1, 2, 3])
def count(request, thread_count):
    thread_count(request.param)
    return request.param


def as_kernel(work):
    """Make a kernel of work(worker, start, stop)."""

    def kernel(queue):
        worker = take_worker(queue)
        start, stop = take_range(queue)
        while start < stop:
            work(worker, start, stop)
            finish(queue, stop - start)
            start, stop = take_range(queue)

    return kernel


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may bring another runtime")
def test_torchs_own_threads_are_found():
    assert threads._openmp_of_torch() is not None


@pytest.mark.parametrize("tasks", [1, 2, 7, 100])
def test_every_task_is_done_once_by_no_more_threads_than_torch_has(team, count, tasks):
    calls = []
    run_in_threads(as_kernel(lambda *call: calls.append(call)), tasks)
    assert {worker for worker, _, _ in calls} <= set(range(count))
    done = [task for _, start, stop in calls for task in range(start, stop)]
    assert sorted(done) == list(range(tasks))


@njit(nogil=True)
def _count_visits(queue, visits):
    start, stop = take_range(queue)
    while start < stop:
        for task in range(start, stop):
            visits[task] += 1
        finish(queue, stop - start)
        start, stop = take_range(queue)


def test_compiled_threads_take_no_task_twice(team, count):
    visits = np.zeros(1001, np.int64)
    for _ in range(200):
        run_in_threads(_count_visits, len(visits), visits)
    assert (visits == 200).all()


def test_threads_work_at_the_same_time(team, count):
    """Each waits for all others, which only threads that run together can do."""
    meeting = threading.Barrier(count)
    run_in_threads(as_kernel(lambda *call: meeting.wait(timeout=20)), count)
    assert not meeting.broken


def test_a_slow_thread_leaves_its_share_to_others(team, count):
    if count == 1:
        pytest.skip("one thread has nobody to share with")
    calls = []

    def work(worker, start, stop):
        if threading.current_thread() is threading.main_thread():
            time.sleep(0.05)
        calls.append((worker, start, stop))

    run_in_threads(as_kernel(work), 24)
    shares = [sum(b - a for w, a, b in calls if w == worker) for worker in range(count)]
    assert min(shares) < max(shares)
    assert sum(shares) == 24


def test_no_tasks_are_no_work(team, count):
    seen = []
    run_in_threads(as_kernel(lambda *call: seen.append(call)), 0)
    assert not seen


def test_memory_lives_as_long_as_a_thread_that_was_left_behind(thread_count, monkeypatch):
    """A handler that raises before the wait leaves threads at work, in memory named by address."""
    thread_count(2)
    started, go_on = threading.Event(), threading.Event()

    def work(worker, start, stop):
        if threading.current_thread() is threading.main_thread():
            assert started.wait(20)
            raise Alarm
        started.set()
        go_on.wait(20)

    class Memory:
        pass

    memory = Memory()
    alive = weakref.ref(memory)
    monkeypatch.setattr(threads, "_team", lambda: threads._run_in_own_threads)
    monkeypatch.setattr(threads, "_wait", lambda others: None)
    try:
        with pytest.raises(Alarm):
            run_in_threads(as_kernel(work), 2, memory=memory)
        del memory
        assert alive() is not None
    finally:
        go_on.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("main_fails", [True, False])
def test_an_error_reaches_the_caller_after_all_threads_have_ended(team, main_fails, thread_count):
    """What a kernel writes to may be gone once the call has ended."""
    ended = threading.Event()
    meeting = threading.Barrier(2)

    def work(worker, start, stop):
        meeting.wait(timeout=20)
        if (threading.current_thread() is threading.main_thread()) == main_fails:
            raise ArithmeticError
        time.sleep(0.05)
        ended.set()

    thread_count(2)
    with pytest.raises((ArithmeticError, RuntimeError)):
        run_in_threads(as_kernel(work), 2)
    assert ended.is_set()


def test_callers_in_several_threads_get_their_own_results(team, count):
    def caller(number):
        done = []
        kernel = as_kernel(lambda _, start, stop: done.extend(range(start, stop)))
        run_in_threads(kernel, 50 + number)
        return sorted(done) == list(range(50 + number))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(caller, range(40)))


def _scan():
    u, B = torch.randn(4, 64, 64), torch.randn(4, 64, 16)
    return lambda: selective_scan(u, u, -torch.ones(64, 16), B, B, backend="cpu")


def _scan_backward():
    u = torch.randn(4, 64, 64, requires_grad=True)
    B = torch.randn(4, 64, 16)
    return lambda: selective_scan(u, u, -torch.ones(64, 16), B, B, backend="cpu").sum().backward()


def _attention():
    q = torch.randn(2, 600, 2, 16)
    index = torch.randint(600, (2, 600, 8))
    return lambda: local_attention(q, q, q, torch.zeros(2, 600, 8, 2), index, backend="cpu")


def _neighbours():
    points = torch.rand(2, 500, 2)
    return lambda: nearest(points, points, torch.ones(2, 500, dtype=torch.bool), 8)


class Alarm(Exception):
    """What the handler of a signal raises."""


@pytest.fixture
def alarm():
    """Let SIGALRM raise; return how many did so far, in a list."""
    fired = []

    def handle(*_):
        fired.append(True)
        raise Alarm

    before = signal.signal(signal.SIGALRM, handle)
    yield fired
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this platform")
@pytest.mark.parametrize("make", [_scan, _scan_backward, _attention, _neighbours])
def test_what_a_signals_handler_raises_reaches_the_caller(make, alarm, team, thread_count):
    thread_count(2)
    call, delays = make(), random.Random(0)
    call()  # compiles
    for number in range(1, 31):
        with pytest.raises(Alarm):
            signal.setitimer(signal.ITIMER_REAL, delays.uniform(2e-4, 3e-3))
            while len(alarm) < number:
                call()


MS = 1_000_000


def ended_call(first_idle, started, done, seconds_in_all, tasks=8, lateness=0):
    """Return the queue of a call that ended now, as two threads leave it; times in ms."""
    queue = threads._queue(tasks, tasks)
    queue[threads.BEGAN] = time.monotonic_ns() - seconds_in_all * MS
    queue[threads.FIRST_IDLE], queue[threads.LATENESS] = first_idle * MS, lateness * MS
    queue[threads.STARTED], queue[threads.DONE_BY_THEN] = started, done
    return queue


@pytest.fixture
def judge(monkeypatch):
    """A judge on a machine where nothing else runs."""
    monkeypatch.setattr(threads, "_running_others", lambda: 0)
    monkeypatch.setattr(threads, "_judge", threads._Judge())
    return threads._judge


def test_two_threads_that_share_the_work_go_on(judge):
    judge.see(ended_call(first_idle=50, started=2, done=7, seconds_in_all=55))
    assert not judge.prefers_one()


@pytest.mark.parametrize(
    "call",
    [
        # all done by one thread, the other began after that
        {"first_idle": 100, "started": 1, "done": 8, "seconds_in_all": 160},
        # both began, and one was kept from finishing its last range
        {"first_idle": 50, "started": 2, "done": 7, "seconds_in_all": 400},
        # the other one began late, and little was left for it
        {"first_idle": 100, "started": 2, "lateness": 95, "done": 8, "seconds_in_all": 140},
    ],
)
def test_after_a_call_that_lost_one_thread_works_for_thirty_times_the_loss(judge, call):
    judge.see(ended_call(**call))
    assert judge.prefers_one()
    worked = call["first_idle"] * call["started"] - call.get("lateness", 0)
    lost = call["seconds_in_all"] - worked * 16 / (8 + call["done"])
    wait = (judge.alone_until - time.monotonic_ns()) / MS
    assert wait == pytest.approx(threads.PENALTY * lost, rel=0.2)


def test_one_thread_works_alone_where_no_processor_is_free(judge, monkeypatch, thread_count):
    thread_count(2)
    monkeypatch.setattr(threads, "_running_others", lambda: threads.os.cpu_count())
    calls = []
    run_in_threads(as_kernel(lambda *call: calls.append(call)), 24)
    assert calls == [(0, 0, 24)]
    judge.next_look = judge.alone_until = 0
    monkeypatch.setattr(threads, "_running_others", lambda: threads.os.cpu_count() - 1)
    assert not judge.prefers_one()


def test_torch_works_alone_as_well_and_other_threads_do_not_notice(judge, thread_count):
    if threads._openmp_of_torch() is None:
        pytest.skip("torch's OpenMP runtime cannot be called here")
    thread_count(3)
    judge.alone_until = time.monotonic_ns() + 10**12
    with ThreadPoolExecutor(1) as pool, pytest.raises(Alarm), threads.alone_when_busy():
        assert torch.get_num_threads() == 1
        assert pool.submit(torch.get_num_threads).result() != 1
        raise Alarm
    assert torch.get_num_threads() == 3


def test_a_call_measures_itself(judge, team, thread_count):
    """The second thread sleeps in its range: one alone would have been faster."""
    thread_count(2)

    def work(worker, start, stop):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.2)

    run_in_threads(as_kernel(work), 8)
    assert judge.alone_until > time.monotonic_ns()
