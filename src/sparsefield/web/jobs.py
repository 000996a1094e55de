"""One worker and a fair queue: jobs of several users take turns, and can be cancelled."""

import math
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from secrets import token_urlsafe
from typing import Any

from sparsefield.core.errors import InputError

# Jobs that a user, and that all users, may have waiting; results that are kept, and jobs without.
WAITING_PER_USER, WAITING, KEPT, KEPT_EMPTY = 4, 64, 24, 256


class Cancelled(Exception):
    """Raised within a job's work after the job was cancelled."""


class Busy(InputError):
    """Too many jobs are waiting."""


class Job:
    """Work that somebody asked for.

    Args:
        owner: Who asked.
        work: Called with the job; its result is kept, and it is let go.

    Attributes:
        state: "queued", "running", "done", "failed" or "cancelled".
        doing: What is being done, in words.
        share: How much of it is done, from 0 to 1.
        result: What the work returned.
        error: Why it failed, in one line.
        ended_at: When it ended, on the monotonic clock.
    """

    def __init__(self, owner: str, work: Callable[["Job"], Any]) -> None:
        self.id, self.owner = token_urlsafe(12), owner
        self._work: Callable[[Job], Any] | None = work
        self.state, self.doing, self.share = "queued", "waiting", 0.0
        self.result: Any = None
        self.error = ""
        self.ended_at = math.inf
        self._cancelled = threading.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing will happen any more."""
        return self.state in ("done", "failed", "cancelled")

    def report(self, doing: str, share: float) -> None:
        """Say how far the work is.

        Raises:
            Cancelled: The job was cancelled; the work is to end.
        """
        self.check()
        self.doing, self.share = doing, min(1.0, max(0.0, share))

    def check(self) -> None:
        """Raise Cancelled if the job was cancelled."""
        if self._cancelled.is_set():
            raise Cancelled

    def cancel(self) -> None:
        """Ask the work to end, or not to begin."""
        self._cancelled.set()
        if self.state == "queued":
            self._end("cancelled")

    def run(self) -> None:
        """Do the work, whatever becomes of it."""
        work = self._work
        try:
            self.check()
            assert work is not None, "only a cancelled job has none"
            self.state = "running"
            self.result = work(self)
            self.share = 1.0
            self._end("done")
        except Cancelled:
            self._end("cancelled")
        except InputError as error:
            self._end("failed", str(error))
        except MemoryError:
            self._end("failed", "not enough memory; ask for a smaller field")
        except Exception as error:  # the worker goes on, and the page says what happened
            self._end("failed", f"{type(error).__name__}: {error}")

    def _end(self, state: str, error: str = "") -> None:
        """Let go of the work, and of the file that it holds."""
        self._work, self.error, self.ended_at = None, error, time.monotonic()
        self.state = state  # last: who sees it finds all else in place


def _when(job: Job) -> float:
    return job.ended_at


class JobQueue:
    """Runs jobs one at a time, one of each user in turn.

    It starts with the first job and ends with the process, or with `close`.
    """

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None
        self._current: Job | None = None
        self._closed = False

    def submit(self, owner: str, work: Callable[[Job], Any]) -> Job:
        """Put work at the end of its owner's queue.

        Raises:
            Busy: The owner, or all together, have too many jobs waiting.
        """
        job = Job(owner, work)
        with self._changed:
            self._drop_cancelled()
            self._check_room(owner)
            self._waiting.setdefault(owner, deque()).append(job)
            self._jobs[job.id] = job
            self._forget()
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, daemon=True, name="jobs")
                self._worker.start()
            self._changed.notify_all()
        return job

    def find(self, owner: str, name: str) -> Job | None:
        """Return a job of the owner by its id, if there is one."""
        job = self._jobs.get(name)
        return job if job is not None and job.owner == owner else None

    def ahead(self, job: Job) -> int:
        """Return how many jobs come before a waiting one."""
        with self._changed:
            self._drop_cancelled()
            order = self._order()
            running = int(self._current is not None)
            return running + order.index(job) if job in order else 0

    def close(self) -> None:
        """Cancel everything and wait for the worker to end."""
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                job.cancel()
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join(timeout=10)

    def _order(self) -> list[Job]:
        """Return the waiting jobs in the order in which they will run."""
        queues = [list(queue) for queue in self._waiting.values()]
        longest = max(map(len, queues), default=0)
        return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]

    def _drop_cancelled(self) -> None:
        for owner in list(self._waiting):
            left = deque(job for job in self._waiting[owner] if job.state == "queued")
            if left:
                self._waiting[owner] = left
            else:
                del self._waiting[owner]

    def _check_room(self, owner: str) -> None:
        if len(self._waiting.get(owner, ())) >= WAITING_PER_USER:
            raise Busy(f"{WAITING_PER_USER} of your jobs are waiting; cancel one or wait")
        if sum(map(len, self._waiting.values())) >= WAITING:
            raise Busy("too many jobs are waiting; try again in a minute")

    def _forget(self) -> None:
        """Let go of jobs that ended: of those who have most, those that ended first.

        One user's many results never cost another the only one, which may not be fetched yet.
        """
        ended = sorted((job for job in self._jobs.values() if job.ended), key=_when)
        results = [job for job in ended if job.state == "done"]
        others = [job for job in ended if job.state != "done"]
        for jobs, most in ((results, KEPT), (others, KEPT_EMPTY)):
            while len(jobs) > most:
                counts = Counter(job.owner for job in jobs)
                job = next(job for job in jobs if counts[job.owner] == max(counts.values()))
                jobs.remove(job)
                del self._jobs[job.id]

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job.run()
            with self._changed:
                self._current = None

    def _next(self) -> Job | None:
        """Return the next job of the user whose turn it is; None when the queue is closed."""
        with self._changed:
            while True:
                self._drop_cancelled()
                if self._closed:
                    return None
                if self._waiting:
                    break
                self._changed.wait()
            owner, queue = next(iter(self._waiting.items()))
            self._current = queue.popleft()
            del self._waiting[owner]
            if queue:
                self._waiting[owner] = queue  # behind all others
            return self._current
