"""Training as a whole: interrupted runs, refused runs, and what a run leaves behind."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sparsefield.core.errors import InputError
from sparsefield.inference.checkpoint import load_checkpoint
from sparsefield.training.config import config_from_dict
from sparsefield.training.loop import Stopped, train
from sparsefield.training.run import Run, find_runs

EPOCHS, PER_EPOCH, SHAPE = 3, 4, (5, 6)
STEPS = EPOCHS * PER_EPOCH


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file of ten smooth fields: eight to learn from in four steps, two to validate on."""
    path = tmp_path_factory.mktemp("data") / "fields.npy"
    phases = np.random.default_rng(0).uniform(0, 6, (10, 1, 1, 1))
    x = np.arange(SHAPE[1])[None, :, None] + np.arange(SHAPE[0])[:, None, None]
    np.save(path, np.sin(x + phases).astype(np.float32))
    return path


def settings(data, **changes):
    model = {"name": "v1", "width": 8, "layers": 1, "state": 2, "heads": 2, "features": 3}
    return {
        "model": model,
        "data": {"paths": [str(data)], "validation": 2, "density": [0.2, 0.5]},
        "optimizer": {"warmup": 3},
        "epochs": EPOCHS,
        "batch_size": 2,
        "precision": "float32",
        "device": "cpu",
        "visualize_every": 1000,
        "resume_every": 0,
    } | changes


def run_training(data, folder, report=lambda progress: None, **changes):
    run = Run(folder)
    train(config_from_dict(settings(data, **changes)), run, report)
    return run


def crash_at(step):
    def report(progress):
        if progress.step == step:
            raise RuntimeError("power cut")

    return report


def stop_at(step):
    def report(progress):
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return report


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    return run_training(data, tmp_path_factory.mktemp("undisturbed"))


def assert_same_run(run, expected):
    """Same weights, averages and optimiser to the last bit, and one log line per epoch."""
    for name in ("resume", "latest", "best"):
        ours, theirs = (load_file(r.folder / f"{name}.safetensors") for r in (run, expected))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    ours, theirs = ([line["step"] for line in r.read_metrics()] for r in (run, expected))
    assert ours == theirs
    scores = ([line["val_psnr"] for line in r.read_metrics()] for r in (run, expected))
    assert next(scores) == next(scores)


def test_undisturbed_run_leaves_a_complete_folder(undisturbed):
    steps = [line["step"] for line in undisturbed.read_metrics()]
    assert steps == [PER_EPOCH * (epoch + 1) for epoch in range(EPOCHS)]
    names = {path.name for path in undisturbed.folder.iterdir() if path.suffix != ".png"}
    kept = {f"epoch_{EPOCHS:04d}.safetensors"}
    assert names == kept | {
        "config.json",
        "metrics.jsonl",
        "best.safetensors",
        "latest.safetensors",
        "resume.safetensors",
    }
    assert undisturbed.pid() is None
    assert undisturbed.name in {run.name for run in find_runs(undisturbed.folder.parent)}
    line = undisturbed.read_metrics()[-1]
    assert {"step", "epoch", "loss", "lr", "images_per_second", "val_psnr"} <= line.keys()
    spec = load_checkpoint(undisturbed.latest)[1]
    assert spec.shape == SHAPE
    assert spec.card["steps"] == STEPS


@pytest.mark.parametrize("step", [1, 6, PER_EPOCH, STEPS])
def test_run_that_crashed_continues_bit_for_bit(data, undisturbed, tmp_path, step):
    with pytest.raises(RuntimeError, match="power cut"):
        run_training(data, tmp_path, crash_at(step))
    assert_same_run(run_training(data, tmp_path), undisturbed)


@pytest.mark.parametrize("step", [6, PER_EPOCH])
def test_run_that_was_asked_to_stop_continues_bit_for_bit(data, undisturbed, tmp_path, step):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped):
        run_training(data, tmp_path, stop_at(step), resume_every=1000)
    assert signal.getsignal(signal.SIGTERM) == before
    assert Run(tmp_path).pid() is None
    seen = []
    run = run_training(data, tmp_path, lambda p: seen.append(p.step), resume_every=1000)
    assert seen[0] == step + 1
    assert_same_run(run, undisturbed)


def test_stop_at_the_last_step_finishes_the_run(data, undisturbed, tmp_path):
    assert_same_run(run_training(data, tmp_path, stop_at(STEPS)), undisturbed)


def test_run_killed_in_the_middle_of_an_epoch_ends_with_the_same_weights(
    data, undisturbed, tmp_path
):
    script = (
        "import json, os, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from sparsefield.training.config import config_from_dict\n"
        "from sparsefield.training.loop import train\n"
        "from sparsefield.training.run import Run\n"
        "settings, folder, threads = sys.argv[1:]\n"
        "torch.set_num_threads(int(threads))\n"
        "def die(progress):\n"
        "    if progress.step == 7:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "train(config_from_dict(json.loads(settings)), Run(Path(folder)), die)\n"
    )
    arguments = [json.dumps(settings(data)), str(tmp_path), str(torch.get_num_threads())]
    child = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    load_checkpoint(tmp_path / "latest.safetensors")
    assert (tmp_path / "pid").is_file()
    assert_same_run(run_training(data, tmp_path), undisturbed)


def test_finished_run_has_nothing_left_to_do(data, undisturbed):
    steps = []
    run_training(data, undisturbed.folder, lambda progress: steps.append(progress.step))
    assert steps == []


def test_steps_end_a_run_in_the_middle_of_an_epoch(data, tmp_path):
    steps = PER_EPOCH + 2
    run = run_training(data, tmp_path / "run", steps=steps)
    lines = run.read_metrics()
    assert [line["step"] for line in lines] == [PER_EPOCH, steps]
    assert lines[-1]["lr"] < lines[0]["lr"] / 2
    assert 0 < lines[0]["cpu_seconds"] < lines[1]["cpu_seconds"]
    with pytest.raises(RuntimeError):
        run_training(data, tmp_path / "again", crash_at(PER_EPOCH + 1), steps=steps)
    again = run_training(data, tmp_path / "again", steps=steps)
    assert_same_run(again, run)
    assert again.read_metrics()[-1]["cpu_seconds"] > again.read_metrics()[0]["cpu_seconds"]


def test_run_with_other_settings_is_refused(data, undisturbed):
    with pytest.raises(InputError, match=r"other settings \(seed 0 -> 1\).*another --run") as e:
        run_training(data, undisturbed.folder, seed=1)
    assert "\n" not in str(e.value)


def test_state_of_another_model_in_the_folder_is_refused(data, undisturbed, tmp_path):
    wide = dict(settings(data)["model"], width=12)
    (tmp_path / "resume.safetensors").write_bytes(undisturbed.resume_file.read_bytes())
    with pytest.raises(InputError, match="belongs to another model; choose another --run") as e:
        run_training(data, tmp_path, model=wide)
    assert "\n" not in str(e.value)


def test_run_in_use_by_another_process_is_refused(data, tmp_path):
    (tmp_path / "pid").write_text(str(os.getppid()))
    with pytest.raises(InputError, match=f"process {os.getppid()} is already training"):
        run_training(data, tmp_path)


def test_full_disk_leaves_the_last_state_and_one_clear_line(
    data, undisturbed, tmp_path, monkeypatch
):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    def fill_disk(progress):
        if progress.step == 6:
            monkeypatch.setattr("sparsefield.core.files.save_file", full)

    with pytest.raises(InputError, match=r"resume\.safetensors: No space left on device"):
        run_training(data, tmp_path, fill_disk)
    monkeypatch.undo()
    assert_same_run(run_training(data, tmp_path), undisturbed)


def test_half_written_log_line_is_forgotten(data, undisturbed, tmp_path):
    with pytest.raises(RuntimeError):
        run_training(data, tmp_path, crash_at(6))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    assert_same_run(run_training(data, tmp_path), undisturbed)


def test_run_starts_from_the_weights_of_another(data, undisturbed, tmp_path):
    source = load_file(undisturbed.best)
    run = run_training(data, tmp_path, init=str(undisturbed.folder), freeze=["sequence"], epochs=1)
    trained = load_file(run.latest)
    for name, weight in trained.items():
        assert torch.equal(weight, source[name]) == name.startswith("sequence"), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"paths": []}}, "no training data: pass --data"),
        ({"device": "warp"}, "device warp is not usable here"),
        ({"init": "nowhere"}, "no model 'nowhere'"),
        ({"batch_size": 9}, "8 training fields are fewer than batch_size=9"),
    ],
)
def test_missing_data_and_settings_that_do_not_fit_are_one_clear_line(
    data, tmp_path, changes, message
):
    config = config_from_dict(settings(data) | changes)
    with pytest.raises(InputError, match=message) as error:
        train(config, Run(tmp_path))
    assert "\n" not in str(error.value)
