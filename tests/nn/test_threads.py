"""How compiled kernels share a machine's processors with torch."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sparsefield.nn.scan.cpu import threads
from sparsefield.nn.scan.cpu.threads import run_in_threads


@pytest.fixture(params=["openmp", "pool"])
def team(request, monkeypatch):
    """Run a test on torch's own threads and on those that replace them after a fork."""
    library = threads._openmp_of_torch()
    if request.param == "pool":
        monkeypatch.setattr(threads, "_team", lambda: threads._run_in_pool)
    elif library is None:
        pytest.skip("torch's OpenMP runtime cannot be called here")
    return request.param


@pytest.fixture(params=[1, 2, 3])
def count(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may bring another runtime")
def test_torchs_own_threads_are_found():
    assert threads._openmp_of_torch() is not None


@pytest.mark.parametrize("tasks", [1, 2, 7, 100])
def test_every_task_is_done_once_by_no_more_threads_than_torch_has(team, count, tasks):
    calls = []
    run_in_threads(lambda *call: calls.append(call), tasks)
    assert {worker for worker, _, _ in calls} <= set(range(count))
    done = [task for _, start, stop in calls for task in range(start, stop)]
    assert sorted(done) == list(range(tasks))


def test_threads_work_at_the_same_time(team, count):
    """Each waits for all others, which only threads that run together can do."""
    meeting = threading.Barrier(count)
    run_in_threads(lambda *call: meeting.wait(timeout=20), count)
    assert not meeting.broken


def test_a_slow_thread_leaves_its_share_to_others(team, count):
    if count == 1:
        pytest.skip("one thread has nobody to share with")
    calls = []

    def work(worker, start, stop):
        if worker == 0:
            time.sleep(0.05)
        calls.append((worker, start, stop))

    run_in_threads(work, 24)
    shares = [sum(b - a for w, a, b in calls if w == worker) for worker in range(count)]
    assert shares[0] < max(shares[1:])


def test_no_tasks_are_one_empty_range(team, count):
    seen = []
    run_in_threads(lambda *call: seen.append(call), 0)
    assert seen == [(0, 0, 0)]


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_reaches_the_caller_after_all_threads_have_ended(team, failing):
    """What a kernel writes to may be gone once the call has ended."""
    ended = threading.Event()
    meeting = threading.Barrier(2)

    def work(worker, start, stop):
        meeting.wait(timeout=20)
        if worker == failing:
            raise ArithmeticError
        time.sleep(0.05)
        ended.set()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ArithmeticError):
            run_in_threads(work, 2)
    finally:
        torch.set_num_threads(before)
    assert ended.is_set()


def test_callers_in_several_threads_get_their_own_results(team, count):
    def caller(number):
        done = []
        run_in_threads(lambda _, start, stop: done.extend(range(start, stop)), 50 + number)
        return sorted(done) == list(range(50 + number))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(caller, range(40)))
