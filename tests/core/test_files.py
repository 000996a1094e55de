"""Files that are whole or absent, and JSON that every reader understands."""

import json
import os
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch

from sparsefield.core.checks import check_finite
from sparsefield.core.errors import InputError
from sparsefield.core.files import (
    dump_json,
    load_json,
    remove_temporaries,
    write_atomically,
    write_json,
    write_tensors,
    write_text,
)
from sparsefield.core.processes import Process


@pytest.fixture
def umask():
    """Set a umask that differs from the usual one and from that of a private file."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_all_writers_leave_files_with_the_mode_that_the_umask_says(tmp_path, umask):
    write_text(tmp_path / "text", "x")
    write_json(tmp_path / "json", [1])
    write_tensors(tmp_path / "tensors", {"w": torch.zeros(3)}, {})
    write_atomically(tmp_path / "bytes", lambda temporary: temporary.write_bytes(b"x"))
    assert {mode(path) for path in tmp_path.iterdir()} == {0o640}


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path):
    write_text(tmp_path / "a", "old")
    (tmp_path / "a").chmod(0o600)
    write_text(tmp_path / "a", "new")
    assert mode(tmp_path / "a") == 0o600


WRITE_FOR_EVER = """
import sys, time
from pathlib import Path
from sparsefield.core.files import write_atomically

def write(temporary):
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)

write_atomically(Path(sys.argv[1]), write)
"""


@pytest.fixture
def start_writer():
    """Return a function that starts a process in the middle of writing a file."""
    children = []

    def start(path):
        command = [sys.executable, "-c", WRITE_FOR_EVER, str(path)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout.readline() == b"writing\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()


def test_what_a_killed_writer_left_is_removed_and_that_of_a_living_one_stays(
    tmp_path, start_writer
):
    path = tmp_path / "a.json"
    _living, child = start_writer(path), start_writer(path)
    left = set(tmp_path.iterdir())
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(left) == 2
    (tmp_path / ".a.json.backup.tmp").write_text("somebody else's")
    write_text(path, "new")
    names = {p.name for p in tmp_path.iterdir()}
    assert names > {"a.json", ".a.json.backup.tmp"}
    assert len(names) == 3


def test_the_only_writer_of_a_folder_removes_all_that_is_unfinished(tmp_path, start_writer):
    child = start_writer(tmp_path / "a")
    child.kill()
    child.wait()
    (tmp_path / ".x.tmp").write_text("somebody else's")
    remove_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".x.tmp"]


def test_devices_and_folders_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, kind in (("pipe", "device"), ("folder", "folder")):
        with pytest.raises(InputError, match=f"cannot write .*{name}: it is a {kind}, not a file"):
            write_text(tmp_path / name, "x")
    assert {p.name for p in tmp_path.iterdir()} == {"pipe", "folder"}
    with pytest.raises(InputError, match="null character"):
        write_text(tmp_path / "a\0b", "x")


def test_json_is_strict_and_null_where_a_number_is_not_finite():
    value = {
        "a": float("nan"),
        "b": [1.5, float("inf"), (-float("inf"), 2)],
        "c": np.float32(0.5),
        "d": np.array([1.0, np.nan]),
        "e": torch.tensor([2, 3]),
        "f": True,
    }

    def refuse(name):
        raise AssertionError(name)

    read = json.loads(dump_json(value), parse_constant=refuse)
    assert read == {
        "a": None, "b": [1.5, None, [None, 2]], "c": 0.5, "d": [1.0, None], "e": [2, 3], "f": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 200_000, b"1" * 10_000, b'{"a": 1}}', b"\x00"],
)
def test_damaged_json_is_one_clear_line(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is damaged: ") as error:
        load_json(path)
    assert "\n" not in str(error.value)


def test_json_of_older_versions_is_read_with_nulls(tmp_path):
    (tmp_path / "a.json").write_text('{"loss": NaN, "best": -Infinity, "n": 1}')
    assert load_json(tmp_path / "a.json") == {"loss": None, "best": None, "n": 1}
    with pytest.raises(FileNotFoundError):
        load_json(tmp_path / "b.json")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(bad):
    good = torch.arange(12.0)
    assert check_finite("weights", good) is good
    assert check_finite("weights", torch.arange(3)).sum() == 3
    with pytest.raises(InputError, match=r"^weights are not finite: 2 of 12 .*; fetch them anew$"):
        check_finite("weights", good.index_fill(0, torch.tensor([3, 7]), bad), "fetch them anew")


def test_a_process_is_told_from_a_stranger_with_its_number():
    me = Process.current()
    assert me.alive
    assert Process.parse(str(me)) == me
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert Process(me.machine, child.pid, 0).alive
    assert not Process(me.machine, child.pid, me.started).alive
    child.communicate()
    assert not Process(me.machine, child.pid, 0).alive
    assert Process(me.machine ^ 1, child.pid, 0).alive, "nobody here can tell"


@pytest.mark.parametrize("text", ["", "1", "ab--1-0", "ab-0-0", "ab-1", "xy-1-1", "a-1-1-1"])
def test_other_text_describes_no_process(text):
    assert Process.parse(text) is None
