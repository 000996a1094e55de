"""Kills at any moment, many times: nothing is lost, half-written or in the way."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sparsefield.training.config import config_from_dict
from sparsefield.training.loop import train
from sparsefield.training.run import Run

pytestmark = pytest.mark.slow
TRAINING = """
import json, sys
from pathlib import Path
import torch
from sparsefield.training.config import config_from_dict
from sparsefield.training.loop import train
from sparsefield.training.run import Run
settings, folder, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
report = lambda progress: print(progress.step, flush=True)
train(config_from_dict(json.loads(settings)), Run(Path(folder)), report)
"""


def settings(path):
    model = {"name": "v1", "width": 8, "layers": 1, "state": 2, "heads": 2, "features": 3}
    return {
        "model": model,
        "data": {"paths": [str(path)], "validation": 2, "density": [0.2, 0.5]},
        "epochs": 25,
        "batch_size": 2,
        "precision": "float32",
        "device": "cpu",
        "visualize_every": 1000,
        "resume_every": 0,
    }


def killed(command, patience, lines=0):
    """Run a command, kill it so many lines and seconds later; tell whether it had ended."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        for _ in range(lines):
            child.stdout.readline()
        time.sleep(patience)
        ended = child.poll() is not None
        child.kill()
    assert not ended or child.returncode == 0
    return ended


def test_training_that_is_killed_again_and_again_ends_with_the_same_weights(
    tmp_path, record_property
):
    fields = np.random.default_rng(0).standard_normal((10, 5, 6, 1)).astype(np.float32)
    np.save(tmp_path / "fields.npy", fields)
    chosen, kills, moments = settings(tmp_path / "fields.npy"), 0, random.Random(0)
    train(config_from_dict(chosen), Run(tmp_path / "whole"))
    arguments = [json.dumps(chosen), str(tmp_path / "killed"), str(torch.get_num_threads())]
    command = [sys.executable, "-c", TRAINING, *arguments]
    while not killed(command, moments.uniform(0, 0.02), moments.randint(1, 9)):
        kills += 1
    record_property("trials", kills)
    assert kills > 10
    runs = tmp_path / "whole", tmp_path / "killed"
    whole, again = (load_file(run / "latest.safetensors") for run in runs)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert sorted(os.listdir(runs[0])) == sorted(os.listdir(runs[1]))


def test_a_killed_reconstruction_leaves_a_whole_result_or_the_one_before(
    tmp_path, record_property
):
    pixels = np.random.default_rng(0).integers(0, 255, (160, 150, 3), np.uint8)
    holes = np.where(np.random.default_rng(1).random((160, 150, 1)) < 0.3, 255, 0)
    Image.fromarray(np.dstack([pixels, holes]).astype(np.uint8)).save(tmp_path / "holes.png")
    out = tmp_path / "filled.png"
    command = [sys.executable, "-m", "sparsefield", "reconstruct", str(tmp_path / "holes.png")]
    command += ["--out", str(out)]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds, whole = time.perf_counter() - start, out.read_bytes()
    moments, trials = random.Random(0), 20
    for _ in range(trials):
        out.write_bytes(b"before")
        killed(command, moments.uniform(0.5, 1.05) * seconds)
        assert out.read_bytes() in (b"before", whole)
    subprocess.run(command, check=True, capture_output=True)
    assert sorted(os.listdir(tmp_path)) == ["filled.png", "holes.png"]
    record_property("trials", trials)


def test_a_killed_server_is_started_again_at_the_same_port(record_property):
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    trials = 5
    for _ in range(trials):
        command = [sys.executable, "-m", "sparsefield", "serve", "--port", str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            server.stdout.readline()
            assert "models" in options(port)
            server.send_signal(signal.SIGKILL)
    record_property("trials", trials)


def options(port):
    """Ask until the server answers."""
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/options") as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")
