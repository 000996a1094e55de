"""Several users who ask the page's server for many things at once; used by resilience.py.

Every user asks for one thing after another: the page, reconstructions of pictures and of tables
with all that belongs to them, damaged files, things of other users, and jobs that are cancelled.
"""

import io
import itertools
import json
import math
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

import httpx
import numpy as np
from PIL import Image

PATIENCE = 300.0  # seconds for one answer
ROUNDS = 5  # after each of which the memory is read


class Answer(NamedTuple):
    """What came of one request: its kind, whether it is what it should be, and the seconds."""

    kind: str
    fault: str
    seconds: float


class User:
    """Somebody with a browser of their own.

    Args:
        address: Where the server listens.
        number: Which user it is; seed of all that is sent.
    """

    def __init__(self, address: str, number: int) -> None:
        self.client = httpx.Client(base_url=address, timeout=PATIENCE)
        self.random, self.number = random.Random(number), number

    def ask(self, kind: str) -> Answer:
        """Ask for something and look at what comes back."""
        start = time.perf_counter()
        try:
            KINDS[kind](self)
            fault = ""
        except (AssertionError, httpx.HTTPError, KeyError, ValueError) as error:
            fault = f"{type(error).__name__}: {error}"
        return Answer(kind, fault, time.perf_counter() - start)

    def page(self) -> None:
        """Load the page, and what can be chosen on it."""
        assert "sparsefield" in self._get("/").text
        assert self._get("/api/options").json()["models"]

    def picture(self) -> None:
        """Bring a picture with holes; take the mean and a sample."""
        rows, columns = 12, 17
        pixels = np.random.default_rng(self.random.getrandbits(32)).random((rows, columns, 4))
        pixels[..., 3] = pixels[..., 3] < 0.4  # what is transparent is unknown
        job = self._reconstruct("painted.png", _png(pixels), model="photographs", samples=1)
        for name in ("mean", "sample 0"):
            numbers = np.frombuffer(
                self._get(f"/api/jobs/{job}/arrays/{quote(name)}").content, "<f4"
            )
            assert numbers.size == rows * columns * 3 and np.isfinite(numbers).all()

    def table(self) -> None:
        """Bring stations; download the field."""
        text = _table(self.random)
        job = self._reconstruct("stations.csv", text, model="universal", size=[7, 9])
        field = self._get(f"/api/jobs/{job}/field.npz").content
        assert np.load(io.BytesIO(field))["mean"].size == 7 * 9

    def damaged(self) -> None:
        """Bring half of a picture; the job says in one line that it failed."""
        content = bytearray(_png(np.full((6, 5, 4), 0.5)))
        at = self.random.randrange(16, len(content))
        answer = self._submit("picture.png", bytes(content[:at]), model="photographs")
        assert answer.status_code == 202, answer.text
        ended = self._wait(answer.json()["id"])
        assert ended["state"] == "failed" and "\n" not in ended["error"], ended

    def broken_off(self) -> None:
        """Go away in the middle of a file."""
        where = self.client.base_url
        with socket.create_connection((where.host, where.port), PATIENCE) as line:
            head = f"POST /api/uploads?name=a.png HTTP/1.1\r\nHost: {where.host}\r\n"
            line.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + bytes(1000))

    def refused(self) -> None:
        """Ask for a model that there is not."""
        answer = self._submit("picture.png", b"", model="nothing")
        assert answer.status_code == 400, answer.text
        assert "no bundled model" in answer.json()["error"], answer.text

    def stranger(self) -> None:
        """Look for a job from another browser; there is none."""
        job = self._submit("stations.csv", _table(self.random), model="universal").json()["id"]
        with httpx.Client(base_url=self.client.base_url, timeout=PATIENCE) as other:
            answer = other.get(f"/api/jobs/{job}")
            assert answer.status_code == 404, answer.text
        ended = self._wait(job)
        assert ended["state"] == "done", ended

    def cancelled(self) -> None:
        """Cancel a job."""
        job = self._submit("stations.csv", _table(self.random), model="universal").json()["id"]
        answer = self.client.post(f"/api/jobs/{job}/cancel")
        assert answer.status_code == 200, answer.text
        ended = self._wait(job)
        assert ended["state"] in ("cancelled", "done"), ended

    def _get(self, path: str) -> httpx.Response:
        answer = self.client.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:200]}"
        return answer

    def _submit(self, name: str, data: bytes, **options: Any) -> httpx.Response:
        options = {"seed": self.number} | options
        address = f"/api/jobs?name={name}&options={quote(json.dumps(options))}"
        return self.client.post(address, content=data)

    def _reconstruct(self, name: str, data: bytes, **options: Any) -> str:
        answer = self._submit(name, data, **options)
        assert answer.status_code == 202, f"{answer.status_code} {answer.text[:200]}"
        ended = self._wait(answer.json()["id"])
        assert ended["state"] == "done", ended
        return str(ended["id"])

    def _wait(self, job: str) -> dict[str, Any]:
        """Wait for a job as the page does: by its stream of events."""
        last: dict[str, Any] = {}
        with self.client.stream("GET", f"/api/jobs/{job}/events") as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    last = json.loads(line[5:])
        assert last.get("state") in ("done", "failed", "cancelled"), last
        return last


KINDS: dict[str, Callable[[User], None]] = {
    "page": User.page,
    "picture": User.picture,
    "table": User.table,
    "damaged file": User.damaged,
    "broken-off file": User.broken_off,
    "bad request": User.refused,
    "another user's job": User.stranger,
    "cancelled job": User.cancelled,
}


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((255 * pixels).astype(np.uint8), "RGBA").save(buffer, "PNG")
    return buffer.getvalue()


def _table(source: random.Random) -> bytes:
    places = [(source.random(), source.random()) for _ in range(30)]
    rows = [f"{x:.4f},{y:.4f},{math.sin(4 * x) + y:.4f}" for x, y in places]
    return "\n".join(["x,y,height", *rows]).encode()


class Process:
    """A server in a process of its own, and what it holds."""

    def __init__(self, port: int, log: IO[str]) -> None:
        command = [sys.executable, "-m", "sparsefield", "serve", "--port", str(port)]
        self.log = log
        self.child = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=self.log, text=True
        )
        self.address = f"http://127.0.0.1:{port}"

    def wait(self) -> None:
        """Wait until it answers."""
        for _ in range(600):
            try:
                httpx.get(self.address, timeout=5)
            except httpx.HTTPError:
                time.sleep(0.1)
            else:
                return
        raise RuntimeError("the server did not start")

    def holds(self) -> dict[str, float]:
        """Return its resident memory, with that of its children, open files and threads."""
        family = [self.child.pid, *self._children()]
        status = [Path(f"/proc/{pid}/status").read_text() for pid in family]
        lines = [line.split() for text in status for line in text.splitlines()]
        memory = sum(int(line[1]) / 1000 for line in lines if line[0] == "VmRSS:")  # from kB
        threads = sum(int(line[1]) for line in lines if line[0] == "Threads:")
        files = len(os.listdir(f"/proc/{self.child.pid}/fd"))
        return {"megabytes": memory, "files": files, "threads": threads}

    def tracebacks(self) -> int:
        """Return how often it failed in a way that is not foreseen."""
        self.log.seek(0)
        return self.log.read().count("Traceback")

    def _children(self) -> list[int]:
        text = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text()
        return [int(pid) for pid in text.split()]


@contextmanager
def server() -> Iterator[Process]:
    """Serve the page on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile("w+") as log:
        process = Process(port, log)
        try:
            process.wait()
            yield process
        finally:
            process.child.terminate()
            process.child.wait(30)


def soak(requests: int, users: int) -> dict[str, Any]:
    """Ask for so many things, by so many users at once; return what came of them."""
    with server() as process:
        people = [User(process.address, number) for number in range(users)]
        answers, held = [], []
        start = time.perf_counter()
        for turn in range(ROUNDS):
            numbers = range(requests * turn // ROUNDS, requests * (turn + 1) // ROUNDS)
            answers += _ask_all(people, numbers)
            held.append(process.holds())
        seconds = time.perf_counter() - start
        tracebacks = process.tracebacks()
    faults = [f"{answer.kind}: {answer.fault}" for answer in answers if answer.fault]
    return {
        "requests": requests,
        "users": users,
        "answered": len(answers) - len(faults),
        "faults": faults[:20],
        "tracebacks": tracebacks,
        "seconds": seconds,
        "kinds": {kind: _summary([a for a in answers if a.kind == kind]) for kind in KINDS},
        "held": held,
    }


def _summary(answers: list[Answer]) -> dict[str, Any]:
    seconds = [answer.seconds for answer in answers]
    return {
        "count": len(answers),
        "faults": sum(bool(answer.fault) for answer in answers),
        "median_seconds": statistics.median(seconds),
        "longest_seconds": max(seconds),
    }


def _ask_all(people: list[User], numbers: range) -> list[Answer]:
    """Let the users share the requests; each asks for one thing at a time."""
    kinds = itertools.cycle(KINDS)
    asked = [next(kinds) for _ in range(numbers.stop)][numbers.start :]
    shares = [asked[first :: len(people)] for first in range(len(people))]
    with ThreadPoolExecutor(len(people)) as pool:
        done = pool.map(lambda user, share: [user.ask(kind) for kind in share], people, shares)
        return [answer for answers in done for answer in answers]
