"""Several processes that train as one: the same weights, one who writes, errors said once."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sparsefield.core.errors import InputError
from sparsefield.training.parallel import Group
from sparsefield.training.run import Run

PRESET = """
epochs = {epochs}
batch_size = {batch}
precision = "float32"
device = "cpu"
visualize_every = 1000
[model]
name = "v1"
width = 8
layers = 1
state = 2
heads = 2
features = 3
[flow]
contrast_weight = 1.0
[data]
validation = 3
density = [0.2, 0.5]
[optimizer]
warmup = 3
"""
BATCH = 5  # no multiple of the number of processes


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Thirteen smooth fields: ten to learn from in two steps, three to validate on."""
    path = tmp_path_factory.mktemp("data") / "fields.npy"
    phases = np.random.default_rng(0).uniform(0, 6, (13, 1, 1, 1))
    x = np.arange(6)[None, :, None] + np.arange(5)[:, None, None]
    np.save(path, np.sin(x + phases).astype(np.float32))
    return path


def free_port():
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        return port.getsockname()[1]


# Import once, then fork as many processes as torchrun would start.
LAUNCHER = """
import contextlib, json, os, sys
import sparsefield.training.loop
from sparsefield.cli import main

def work(rank, size, port, arguments, out):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{out}.{rank}.{name}", os.O_CREAT | os.O_WRONLY), number)
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code
    sys.stdout.flush()
    os._exit(code)

for size, port, arguments, out in json.loads(sys.argv[1]):
    children = [os.fork() or work(rank, size, port, arguments, out) for rank in range(size)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(codes), flush=True)
"""


def train(*jobs):
    """Run the command as torchrun does, for each (folder, data, processes[, epochs, batch]).

    Returns, for each job and process, what it printed, its errors and its exit code.
    """
    tasks = [prepare(*job) for job in jobs]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LAUNCHER, json.dumps(tasks)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    codes = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        [
            (*(Path(f"{out}.{rank}.{name}").read_text() for name in ("out", "err")), code)
            for rank, code in enumerate(each)
        ]
        for (*_, out), each in zip(tasks, codes, strict=True)
    ]


def prepare(folder, data, processes, epochs=2, batch=BATCH):
    name = f"{folder}-{processes}-{epochs}"
    preset = Path(f"{name}.toml")
    preset.write_text(PRESET.format(epochs=epochs, batch=batch))
    arguments = ["train", str(preset), "--data", str(data), "--run", str(folder)]
    return processes, free_port(), arguments, name


# Softmax cancels the bias of keys: its gradient is rounding, which Adam scales to a step.
CANCELLED = "key_value.bias"


def assert_close(folder, other):
    for file in ("epoch_0001", "resume"):
        ours, theirs = (load_file(f / f"{file}.safetensors") for f in (folder, other))
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if not name.endswith(CANCELLED):
                torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6, msg=name)
    ours, theirs = (Run(f).read_metrics() for f in (folder, other))
    for key in ("step", "epoch", "loss", "grad_norm", "lr", "val_psnr"):
        values = [[line[key] for line in lines] for lines in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], rel=1e-4), key


@pytest.mark.slow
def test_two_processes_equal_one_and_one_goes_on_from_two(data, tmp_path):
    alone, both = tmp_path / "alone", tmp_path / "both"
    jobs = [(alone, data, 1, 1), (alone, data, 1, 2), (both, data, 2, 1), (both, data, 1, 2)]
    *good, refused = train(*jobs, (tmp_path / "refused", data, 2, 1, 1))
    assert [code for job in good for _, _, code in job] == [0] * 5, good
    leader, follower = good[2]
    assert "finished" in leader[0]
    assert follower[:2] == ("", "")
    assert "processes 2 -> 1" in good[3][0][0]
    assert_close(both, alone)
    processes = [line["environment"]["processes"] for line in Run(both).read_history()]
    assert processes == ["2", "1"]

    leader, follower = refused
    assert "set batch_size=2 or more, or start at most 1 processes" in leader[1]
    assert (leader[2], follower[2]) == (2, 2)
    assert (leader[1].count("\n"), follower[1]) == (1, "")
    assert not (tmp_path / "refused").exists()


@pytest.mark.slow
def test_a_run_goes_on_in_more_processes(data, tmp_path):
    alone, moved = (tmp_path / name for name in ("alone", "moved"))
    jobs = [(alone, data, 1, 1), (alone, data, 1, 3), (moved, data, 1, 1), (moved, data, 3, 3)]
    ended = train(*jobs)
    assert all(code == 0 for job in ended for _, _, code in job), ended
    assert_close(moved, alone)


@pytest.mark.slow
def test_torchrun_starts_and_a_signal_stops_all(data, tmp_path):
    preset = tmp_path / "long.toml"
    preset.write_text(PRESET.format(epochs=100000, batch=BATCH))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(free_port()), "-m", "--", "sparsefield", "train", str(preset)]
    command += ["--data", str(data), "--run", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run = Run(tmp_path / "run")
    for line in process.stdout:
        if line.startswith("step "):
            break
    assert run.stop()
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert out.count("the same command resumes") == 1


@pytest.mark.parametrize("size", [1, 3, 4])
def test_shares_are_all_rows_once_and_about_as_many_each(size):
    shares = [Group(rank, size).share(11) for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(11))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_fewer_rows_than_processes_are_refused():
    with pytest.raises(InputError, match="batch_size=3 leaves some of 4 processes"):
        Group(0, 4).check_batch(3)
