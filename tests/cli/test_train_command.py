"""Training through the command line: resume, stop, background, full disk."""

import resource
import signal
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file

from sparsefield.cli.status import Status
from sparsefield.training.run import Run

TRAIN = ("train", "tiny.toml", "--data", "data.npy")


def test_train_leaves_a_whole_run_and_says_when_it_is_finished(cli):
    seen = cli(*TRAIN)
    assert seen.code == 0, seen.err
    assert "model tiny" in seen.out
    assert "finished, best validation PSNR" in seen.out
    folder = Path("runs/tiny")
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "metrics.jsonl", "best.safetensors", "latest.safetensors"} <= names
    assert "epoch_0002.png" in names
    assert "is finished" in cli(*TRAIN).out


def test_a_stopped_run_resumes_to_the_same_weights(cli, monkeypatch):
    from sparsefield.training import loop

    assert cli(*TRAIN, "--run", "whole").code == 0
    step = loop.Trainer.run_step

    def run_step(self):
        if self.state.step == 2:
            signal.raise_signal(signal.SIGINT)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "run_step", run_step)
        stopped = cli(*TRAIN, "--run", "halves")
    assert stopped.code == 0
    assert "saved at step 3; the same command resumes" in stopped.out
    assert "stopped" in cli("runs", "--root", ".").out
    assert cli(*TRAIN, "--run", "halves").code == 0
    whole, halves = (load_file(f"{name}/latest.safetensors") for name in ("whole", "halves"))
    assert all((whole[name] == halves[name]).all() for name in whole)


def test_changes_are_refused_or_said_in_a_line(cli):
    assert cli(*TRAIN).code == 0
    refused = cli(*TRAIN, "optimizer.lr=1e-4")
    assert refused.code == 2
    assert "optimizer.lr 0.001 -> 0.0001" in refused.err
    assert "--allow-changes" in refused.err
    longer = cli(*TRAIN, "epochs=3", "optimizer.lr=1e-4", "--allow-changes")
    assert longer.code == 0, longer.err
    assert "changed: epochs 2 -> 3; the learning rate follows" in longer.out
    assert "changed: optimizer.lr 0.001 -> 0.0001" in longer.out
    assert "finished" in longer.out
    again = cli(*TRAIN, "epochs=3", "optimizer.lr=1e-4")
    assert "is finished: 3 epochs" in again.out


def test_a_start_that_was_refused_does_not_block_the_corrected_command(cli):
    seen = cli(*TRAIN, "batch_size=90")
    assert seen.code == 2
    assert not Path("runs/tiny").exists()
    assert cli(*TRAIN, "batch_size=2").code == 0


def test_a_run_that_diverged_in_its_last_step_does_not_say_finished(cli, monkeypatch):
    from sparsefield.training.state import TrainState

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "update", lambda self, rate: float("nan"))
        seen = cli(*TRAIN, "epochs=1", "steps=1")
    assert seen.code == 2
    assert "finished" not in seen.out
    assert "training has diverged: the gradient of step 0 has norm nan" in seen.err
    assert seen.err.count("\n") == 1
    corrected = cli(*TRAIN, "epochs=1", "steps=1", "optimizer.lr=1e-5")
    assert corrected.code == 0
    assert "best.safetensors" in corrected.out
    assert Path("runs/tiny/best.safetensors").is_file()


DAMAGES = {
    "config.json": ["{", "[]", '{"model": 3}', "[" * 100_000, '{"epochs": 1e400}'],
    "metrics.jsonl": ["{\n", "[]\n", '{"epoch": "x", "step": 1}\n', '{"step": 1}\n'],
    "resume.safetensors": ["", "x" * 100],
    "lock": ["-1", "garbage"],
}


def test_a_damaged_run_is_a_line_among_the_others(cli):
    cli(*TRAIN, "epochs=1")
    good = {
        name: Path("runs/tiny", name).read_bytes() for name in ("config.json", "metrics.jsonl")
    }
    count = 0
    for name, contents in DAMAGES.items():
        for content in contents:
            folder = Path(f"runs/damaged{count:02d}")
            folder.mkdir()
            for other, data in good.items():
                (folder / other).write_bytes(data)
            (folder / name).write_text(content)
            count += 1
    Path("runs/folder/config.json").mkdir(parents=True)
    seen = cli("runs")
    assert seen.code == 0, seen.err
    assert "Traceback" not in seen.out
    assert all(f"damaged{number:02d}" in seen.out for number in range(count))
    assert "finished" in next(line for line in seen.out.splitlines() if " tiny" in line)
    for number in range(count):
        for command in ("monitor", "stop"):
            seen = cli(command, f"damaged{number:02d}")
            assert seen.code in (0, 2)
            assert seen.err.count("\n") == (seen.code == 2)


def test_another_configuration_in_the_same_folder_is_refused(cli):
    assert cli(*TRAIN, "epochs=1").code == 0
    weights = Path("runs/tiny/latest.safetensors").read_bytes()
    seen = cli(*TRAIN, "model.width=7")
    assert seen.code == 2
    assert "other settings" in seen.err
    assert Path("runs/tiny/latest.safetensors").read_bytes() == weights


def test_weights_of_another_model_are_refused(cli, checkpoint):
    Path("other.safetensors").write_bytes(b"no weights")
    seen = cli(*TRAIN, "init=other.safetensors")
    assert seen.code == 2
    assert "other.safetensors" in seen.err


def test_a_corrupt_image_among_many_is_named(cli):
    Path("images").mkdir()
    for number in range(5):
        pixels = np.full((8, 9, 3), number, np.uint8)
        Image.fromarray(pixels).save(f"images/{number}.png")
    Path("images/3.png").write_bytes(b"not an image")
    for arguments in (["train", "tiny.toml"], ["evaluate", "baselines"]):
        seen = cli(*arguments, "--data", "images")
        assert seen.code == 2
        assert "3.png" in seen.err
        assert seen.err.count("\n") == 1
    assert not Path("runs").exists()


def test_a_full_disk_is_one_line_and_loses_nothing(cli):
    assert cli(*TRAIN, "epochs=4", "visualize_every=9").code == 0
    best = Path("runs/tiny/best.safetensors")
    before = best.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        seen = cli(*TRAIN, "--run", "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert seen.code == 2
    assert seen.err.count("\n") == 1
    assert "cannot write full/" in seen.err
    assert best.read_bytes() == before
    assert not list(Path("full").glob(".*.tmp"))


def test_runs_and_monitor_show_a_run(cli):
    assert cli("runs").out == "no runs in runs\n"
    cli(*TRAIN)
    listed = cli("runs").out
    assert "tiny" in listed
    assert "finished" in listed
    assert "2/2" in listed
    Path("runs/old").mkdir()
    Path("runs/old/config.json").write_text("{")
    assert "damaged" in cli("runs").out
    shown = cli("monitor", "tiny")
    assert shown.code == 0
    assert "epoch 2 of 2" in shown.out
    assert cli("monitor", "runs/tiny", "--follow").code == 0
    assert "is not training" in cli("stop", "tiny").out


def test_a_run_in_the_background_can_be_watched_and_stopped(cli, tmp_path):
    # A model of the package, because the process in the background knows no others.
    settings = ["model.name=v1", "model.width=8", "model.layers=1", "model.state=4"]
    settings += ["model.heads=2", "model.features=4", "epochs=100000", "save_every=100000"]
    settings += ["eval_every=100000", "visualize_every=100000"]
    seen = cli(*TRAIN, "--detach", *settings)
    assert seen.code == 0, seen.err
    run = Run(Path("runs/tiny"))
    assert run.pid() is not None
    assert "training" in cli("monitor", "tiny").out
    assert "already training" in cli(*TRAIN, "--detach", *settings).err
    stopped = cli("stop", "tiny")
    assert stopped.code == 0
    assert run.pid() is None
    assert Status(run).state == "stopped"


def test_a_run_in_the_background_that_cannot_start_says_why(cli):
    np.save("few.npy", np.zeros((3, 8, 9, 3), np.uint8))
    seen = cli("train", "v1-small", "--data", "few.npy", "--run", "r", "--detach")
    assert seen.code == 2
    assert seen.err.startswith("sparsefield: error: ")
    assert seen.err.count("\n") == 1
    assert not Path("r").exists()


def test_ctrl_c_before_training_starts_is_no_traceback(cli, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("sparsefield.training.loop.open_training_data", interrupt)
    assert cli(*TRAIN).code == 130
