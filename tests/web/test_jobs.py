"""The queue: turns, cancelling, limits."""

import threading

import pytest

from sparsefield.core.errors import InputError
from sparsefield.web.jobs import KEPT, WAITING_PER_USER, Busy, JobQueue


@pytest.fixture
def queue():
    queue = JobQueue()
    yield queue
    queue.close()


@pytest.fixture
def gate(queue):
    """Keep the worker at a first job until the gate opens."""
    entered, gate = threading.Event(), threading.Event()

    def wait(job):
        entered.set()
        gate.wait(10)
        job.check()

    queue.submit("gatekeeper", wait)
    assert entered.wait(10)
    yield gate
    gate.set()


def finish(*jobs):
    for job in jobs:
        for _ in range(1000):
            if job.ended:
                break
            threading.Event().wait(0.01)
        assert job.ended


def test_users_take_turns(queue, gate):
    order = []
    jobs = [
        queue.submit(owner, lambda job, name=f"{owner}{number}": order.append(name))
        for owner, number in [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("b", 2)]
    ]
    assert [queue.ahead(job) for job in jobs] == [1, 4, 6, 2, 3, 5]
    gate.set()
    finish(*jobs)
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_cancelled_job_does_not_begin_or_ends_at_its_next_report(queue, gate):
    waiting = queue.submit("a", lambda job: "never")
    waiting.cancel()
    assert waiting.state == "cancelled"
    started = threading.Event()

    def work(job):
        started.set()
        while True:
            job.report("working", 0.5)

    running = queue.submit("a", work)
    gate.set()
    assert started.wait(10)
    running.cancel()
    finish(running)
    assert (running.state, waiting.result) == ("cancelled", None)


def test_a_failure_is_told_and_the_next_job_runs(queue):
    def fail(error):
        def work(job):
            raise error

        return work

    errors = (InputError("too few points"), ValueError("odd"), MemoryError())
    jobs = [queue.submit("a", fail(error)) for error in errors]
    last = queue.submit("a", lambda job: 7)
    finish(*jobs, last)
    assert [job.state for job in jobs] == ["failed"] * 3
    assert jobs[0].error == "too few points" and "odd" in jobs[1].error
    assert "memory" in jobs[2].error
    assert (last.state, last.result, last.share) == ("done", 7, 1.0)


def test_nobody_fills_the_queue(queue, gate):
    jobs = [queue.submit("a", lambda job: None) for _ in range(WAITING_PER_USER)]
    with pytest.raises(Busy, match="cancel one"):
        queue.submit("a", lambda job: None)
    queue.submit("b", lambda job: None)
    jobs[0].cancel()
    queue.submit("a", lambda job: None)


def test_jobs_are_their_owners_and_old_ones_go(queue):
    jobs = []
    for _ in range(KEPT + 3):
        jobs.append(queue.submit("a", lambda job: None))
        finish(jobs[-1])
    queue.submit("a", lambda job: None)
    assert queue.find("b", jobs[-1].id) is None
    assert queue.find("a", jobs[-1].id) is jobs[-1]
    assert queue.find("a", jobs[0].id) is None


def test_many_jobs_of_one_user_do_not_cost_another_the_result(queue):
    first = queue.submit("a", lambda job: "only")
    finish(first)
    for _ in range(KEPT + 5):
        finish(many := queue.submit("b", lambda job: "one of many"))
        queue.submit("b", lambda job: "never").cancel()
    finish(queue.submit("c", lambda job: None))
    assert queue.find("a", first.id).result == "only"
    assert queue.find("b", many.id).result == "one of many"


def test_what_ended_last_stays_however_long_ago_it_was_asked_for(queue, gate):
    _, last = (queue.submit("a", lambda job: None) for _ in range(2))
    others = [queue.submit(f"b{number}", lambda job: None) for number in range(KEPT)]
    gate.set()
    finish(last, *others)
    queue.submit("c", lambda job: None)
    assert queue.find("a", last.id) is last


def test_closing_cancels_what_waits(queue, gate):
    job = queue.submit("a", lambda job: None)
    gate.set()
    queue.close()
    assert job.ended
