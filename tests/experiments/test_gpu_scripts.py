"""What runs on a lent GPU, rehearsed on a processor with tiny sizes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsefield.inference.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
PRESET = """
epochs = 2
batch_size = 2
visualize_every = 100
[model]
name = "v1"
width = 8
layers = 1
state = 2
heads = 2
features = 3
[data]
validation = 2
"""


@pytest.fixture
def machine(tmp_path):
    """A folder with data and a preset, and a way to run the script there."""
    (tmp_path / "tiny.toml").write_text(PRESET)
    fields = np.random.default_rng(0).random((10, 5, 6, 3))
    np.save(tmp_path / "fields.npy", (255 * fields).astype(np.uint8))

    def run(**variables):
        environment = os.environ | {
            "PYTHON": sys.executable,
            "DEVICE": "cpu",
            "PARTS": "train",
            "PRESETS": "tiny.toml",
            **variables,
        }
        command = [ROOT / "experiments" / "gpu" / "run.sh", "out", "fields.npy"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    return tmp_path, run


@pytest.mark.slow
def test_a_slice_ends_in_time_and_the_next_one_goes_on(machine):
    folder, run = machine
    first = run(MINUTES="0")
    assert first.returncode == 0, first.stderr
    assert "time is up" in first.stdout
    assert (folder / "out" / "runs" / "tiny" / "resume.safetensors").is_file()
    second = run(MINUTES="5")
    assert "tiny: finished" in second.stdout, second.stderr
    assert (folder / "out" / "metrics" / "tiny.jsonl").read_text().count("\n") == 2


def test_parts_make_the_checkpoint_again(machine, monkeypatch):
    folder, run = machine
    assert run(MINUTES="5").returncode == 0
    monkeypatch.syspath_prepend(ROOT / "experiments" / "gpu")
    import train_slice

    monkeypatch.setattr(train_slice, "PART_BYTES", 500)
    out = folder / "out"
    train_slice.export(train_slice.Run(out / "runs" / "tiny"), out)
    assert len(list((out / "weights").iterdir())) > 3
    joined, _ = load_checkpoint(train_slice.join_parts(out, "tiny"))
    best, _ = load_checkpoint(out / "runs" / "tiny" / "best.safetensors")
    for name, weight in best.state_dict().items():
        torch.testing.assert_close(joined.state_dict()[name], weight, rtol=1e-2, atol=1e-3)


def test_a_machine_without_cuda_is_told_so(machine):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    _, run = machine
    done = run(PARTS="check")
    assert done.returncode == 1
    assert "CUDA" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_unknown_parts_and_missing_data_are_one_line(machine):
    _, run = machine
    assert "unknown part 'dance'" in run(PARTS="dance").stderr
    done = run(PRESETS="nothing.toml")
    assert done.returncode == 1
    assert done.stderr.startswith("error: unknown preset")
