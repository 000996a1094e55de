"""One holder at a time, whoever asks, and none after a kill."""

import os
import signal
import subprocess
import sys
import threading

from sparsefield.core.locks import FileLock

CONTEND = """
import os, sys
from pathlib import Path
from sparsefield.core.locks import FileLock

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    if FileLock(folder / f"kept-{number}").acquire(str(os.getpid())):
        print(number, flush=True)
lock = FileLock(folder / "passed round")
for number in range(rounds):
    if lock.acquire("me"):
        os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
        os.unlink(folder / "inside")
        lock.release()
print("done", flush=True)
sys.stdin.readline()
"""
PROCESSES, ROUNDS = 5, 12


def test_of_processes_that_start_at_once_exactly_one_gets_each_lock(tmp_path):
    command = [sys.executable, "-c", CONTEND, str(tmp_path), str(ROUNDS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(PROCESSES)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    won = []
    for child in children:
        won += iter(child.stdout.readline, "done\n")
    assert sorted(map(int, won)) == list(range(ROUNDS))
    assert not (tmp_path / "inside").exists()
    for child in children:
        child.communicate("\n")
        assert child.returncode == 0


def test_of_threads_one_gets_the_lock(tmp_path):
    barrier, won = threading.Barrier(6), []

    def contend():
        lock = FileLock(tmp_path / "lock")
        barrier.wait()
        if lock.acquire("me"):
            won.append(lock)

    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert FileLock.content(tmp_path / "lock") == "me"
    won[0].release()
    assert FileLock.content(tmp_path / "lock") is None
    assert list(tmp_path.iterdir()) == []


def test_who_only_asks_does_not_stand_in_the_way(tmp_path):
    path, ended = tmp_path / "lock", threading.Event()

    def ask():
        while not ended.is_set():
            FileLock.content(path)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(40):
            lock = FileLock(path)
            assert lock.acquire("me")
            lock.release()
    finally:
        ended.set()
        asking.join()


def test_a_killed_holder_leaves_no_lock(tmp_path):
    command = [sys.executable, "-c", CONTEND, str(tmp_path), "1"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline() == "0\n"
    path = tmp_path / "kept-0"
    assert not FileLock(path).acquire("me")
    assert FileLock.content(path) == str(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert path.exists()
    assert FileLock.content(path) is None
    assert FileLock(path).acquire("me")
