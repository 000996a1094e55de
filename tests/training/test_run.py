"""The folder of a run: who holds it, whom `stop` signals, and files that are damaged."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sparsefield.core.errors import InputError
from sparsefield.core.processes import Process
from sparsefield.training.config import config_from_dict
from sparsefield.training.run import Run, find_runs

# Holds the lock of a run with some content; its manners say what a signal does.
HOLD = """
import signal, sys, time
from pathlib import Path
from sparsefield.core.locks import FileLock
from sparsefield.core.processes import Process

path, content, manners = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
lock = FileLock(path)
assert lock.acquire(content.replace("ME", str(Process.current())))

def save_and_end(number, frame):
    lock.release()
    sys.exit(0)

signal.signal(signal.SIGTERM, save_and_end if manners == "polite" else signal.SIG_IGN)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path):
    """Return a function that starts a process which holds the run of the test."""
    children = []

    def start(content="ME here", manners="polite"):
        command = [sys.executable, "-c", HOLD, str(tmp_path / "lock"), content, manners]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout.readline() == b"held\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()


@pytest.fixture
def stranger():
    """A process that has nothing to do with any run."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    assert child.poll() is None, "the stranger was ended"
    child.kill()
    child.wait()


@pytest.fixture
def no_signals(monkeypatch):
    """Fail if anybody is signalled, and harm nobody."""

    def refuse(target, number, *rest):
        if number != 0:
            raise AssertionError(f"signal {number} for {target}")

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)


def test_stop_leaves_a_stranger_alone_whose_number_a_dead_run_left(tmp_path, stranger):
    (tmp_path / "pid").write_text(str(stranger.pid))
    (tmp_path / "lock").write_text(f"{Process(Process.current().machine, stranger.pid, 0)} here")
    assert Run(tmp_path).pid() is None
    assert not Run(tmp_path).stop(timeout=0.1)


def test_stop_leaves_a_stranger_alone_that_a_held_lock_names(tmp_path, hold, stranger):
    """The number was given to another process: it started at another time."""
    hold(f"{Process(Process.current().machine, stranger.pid, 12345)} here")
    Run(tmp_path).stop(timeout=0.1)


@pytest.mark.parametrize(
    "text", ["-1", "0", "", "12 34", "ab--1-0", "ab-0-0", "\x00\xff", "x" * 999]
)
def test_numbers_that_would_reach_everybody_reach_nobody(tmp_path, no_signals, text):
    for name in ("pid", "lock"):
        (tmp_path / name).write_text(text)
    assert not Run(tmp_path).stop(timeout=0.1)


def test_a_held_lock_that_does_not_say_by_whom_is_one_clear_line(tmp_path, hold, no_signals):
    hold("-1")
    run = Run(tmp_path)
    assert run.pid() is None
    with pytest.raises(InputError, match=r"lock is damaged and does not say who; end .* by hand"):
        run.stop(timeout=0.1)
    with pytest.raises(InputError, match="somebody is already training"), run.claim():
        pass


def test_a_run_of_another_machine_is_stopped_there(tmp_path, hold, no_signals):
    hold(f"{Process(1, 4321, 0)} far-away")
    with pytest.raises(InputError, match=r"process 4321 of far-away; run .* there"):
        Run(tmp_path).stop(timeout=0.1)


def test_a_process_does_not_stop_itself(tmp_path, no_signals):
    run = Run(tmp_path)
    with run.claim(), pytest.raises(InputError, match="by this process itself"):
        run.stop(timeout=0.1)


@pytest.mark.parametrize(("manners", "code"), [("polite", 0), ("stubborn", -signal.SIGKILL)])
def test_stop_ends_the_process_that_trains(tmp_path, hold, manners, code):
    child = hold(manners=manners)
    run = Run(tmp_path)
    assert run.pid() == child.pid
    assert run.stop(timeout=10 if manners == "polite" else 0.2)
    assert child.wait(10) == code
    assert run.pid() is None
    assert not run.stop()


def test_of_starts_at_once_one_gets_the_run(tmp_path):
    barrier, inside, refused = threading.Barrier(5), [], []

    def start():
        barrier.wait()
        try:
            with Run(tmp_path / "run").claim():
                inside.append(1)
                while len(refused) < 4:
                    pass
        except InputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == [1]
    assert all(f"process {os.getpid()} is already training" in line for line in refused)
    assert not (tmp_path / "run").exists()


def test_a_claim_removes_what_killed_writers_left(tmp_path):
    dead = Process(Process.current().machine, 2**31 - 1, 7)
    (tmp_path / f".latest.safetensors.{dead}.abc.tmp").mkdir()
    with Run(tmp_path).claim():
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]


METRICS = '{"step": 4, "epoch": 1, "loss": 0.5}\n'


def test_a_half_written_line_is_left_out(tmp_path):
    run = Run(tmp_path)
    run.metrics_file.write_text(METRICS + '{"step": 8, "ep')
    assert run.read_metrics() == [{"step": 4, "epoch": 1, "loss": 0.5}]
    run.history_file.write_text('{"step": 0}\n{"st')
    run.append_history(step=3)
    assert run.read_history() == [{"step": 0}, {"step": 3}]


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "3", '{"epoch": 1}', '{"step": "4", "epoch": 1}', '{"step": true, "epoch": 1}',
     '{"step": 4, "epoch": 1, "loss": [2]}', '{"step": 1e3, "epoch": 1}', "[" * 100_000,
     '{"step": 1' + "0" * 5000 + ', "epoch": 1}', '{"step": 1' + "0" * 400 + ', "epoch": 1}',
     '{"step": 4, "epoch": 1, "loss": {"a": 1}}', "\x00"],
)  # fmt: skip
def test_a_damaged_line_of_the_log_is_named(tmp_path, line):
    run = Run(tmp_path)
    run.metrics_file.write_text(METRICS + line + "\n" + METRICS)
    with pytest.raises(InputError, match=r"metrics\.jsonl line 2 is damaged") as error:
        run.read_metrics()
    assert "\n" not in str(error.value)


def test_numbers_that_were_not_finite_are_null(tmp_path):
    run = Run(tmp_path)
    run.append_metrics(step=4, epoch=1, loss=float("nan"), val_psnr=float("inf"))

    def refuse(name):
        raise AssertionError(name)

    read = json.loads(run.metrics_file.read_text(), parse_constant=refuse)
    assert read == run.read_metrics()[0] == {"step": 4, "epoch": 1, "loss": None, "val_psnr": None}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", "null", '{"model": 3}', '{"model": {"name": 3}}', '{"model": {}}',
     '{"model": {"name": ["v1"]}}', '{"epochs": 1' + "0" * 400 + "}",
     '{"optimizer": {"lr": 1e999}}',
     '{"data": {"density": {"a": 1}}}', '{"seed": 18446744073709551616}', "[" * 100_000,
     '{"model": {"name": "v1", "width": 1e99}}', '{"data": []}', '{"flow": {"prediction": []}}',
     '{"model": {"name": "os:system:x"}}', '{"device": "c\\u0000pu"}'],
)  # fmt: skip
def test_damaged_settings_are_one_clear_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json") as error:
        Run(tmp_path).read_config()
    assert "\n" not in str(error.value)


def test_runs_are_found_by_name(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        Run(tmp_path / name).write_config(config_from_dict({}))
    (tmp_path / "empty").mkdir()
    assert [run.name for run in find_runs(tmp_path)] == ["a", "b"]
    assert find_runs(Path(tmp_path / "nowhere")) == []
