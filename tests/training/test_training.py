"""Training as a whole: interrupted runs, refused runs, and what a run leaves behind."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sparsefield.core.errors import InputError
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import load_checkpoint
from sparsefield.training.batches import TrainingBatches
from sparsefield.training.config import config_from_dict
from sparsefield.training.loop import Diverged, Stopped, Trainer, train
from sparsefield.training.parallel import Group
from sparsefield.training.run import Run, find_runs
from sparsefield.training.state import TrainState

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


@pytest.fixture(autouse=True, scope="module")
def _no_figures():
    """Plot nothing: the tests of figures and of the command line do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_plot", lambda self, model, epoch: None)
        yield


def settings(path, **changes):
    model = {"name": "v1", "width": 8, "layers": 1, "state": 2, "heads": 2, "features": 3}
    return {
        "model": model,
        "data": {"paths": [str(path)], "validation": 2, "density": [0.2, 0.5]},
        "optimizer": {"warmup": 3},
        "epochs": EPOCHS,
        "batch_size": 2,
        "precision": "float32",
        "device": "cpu",
        "visualize_every": 1000,
        "resume_every": 0,
    } | changes


def run_training(path, folder, report=lambda progress: None, allow=False, lines=None, **changes):
    run = Run(folder)
    notify = (lambda line: None) if lines is None else lines.append
    config = config_from_dict(settings(path, **changes))
    train(config, run, report, allow_changes=allow, notify=notify)
    return run


@pytest.mark.parametrize(("prediction", "first"), [("score", 0.02), ("velocity", 0.0)])
def test_training_begins_where_samplers_do(prediction, first, data, tmp_path, monkeypatch):
    seen, denoise = [], Flow.denoise

    def watched(self, x_t, t, *rest):
        if torch.is_grad_enabled():
            seen.append(t)
        return denoise(self, x_t, t, *rest)

    monkeypatch.setattr(Flow, "denoise", watched)
    flow = {"prediction": prediction, "mean_fraction": 0.0, "time_shift": 2.0}
    run_training(data, tmp_path / "run", flow=flow, batch_size=4)
    times = torch.cat(seen)
    assert first <= times.min() < first + 0.2
    assert 0.8 < times.max() < 1


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
    """Same weights, averages and optimiser to the last bit, and the same line per epoch."""
    for name in ("resume", "latest", "best"):
        ours, theirs = (load_file(r.folder / f"{name}.safetensors") for r in (run, expected))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    keys = ("step", "epoch", "loss", "grad_norm", "lr", "val_psnr")
    ours, theirs = (
        [[line[key] for key in keys] for line in r.read_metrics()] for r in (run, expected)
    )
    assert ours == theirs


def test_undisturbed_run_leaves_a_complete_folder(undisturbed):
    steps = [line["step"] for line in undisturbed.read_metrics()]
    assert steps == [PER_EPOCH * (epoch + 1) for epoch in range(EPOCHS)]
    names = {path.name for path in undisturbed.folder.iterdir() if path.suffix != ".png"}
    kept = {f"epoch_{EPOCHS:04d}.safetensors"}
    assert names == kept | {
        "config.json",
        "history.jsonl",
        "metrics.jsonl",
        "best.safetensors",
        "latest.safetensors",
        "resume.safetensors",
    }
    assert undisturbed.pid() is None
    assert undisturbed.name in {run.name for run in find_runs(undisturbed.folder.parent)}
    line = undisturbed.read_metrics()[-1]
    assert {"step", "epoch", "loss", "lr", "images_per_second", "val_psnr"} <= line.keys()
    start = undisturbed.read_history()[0]
    assert (start["pid"], start["step"], start["changes"]) == (os.getpid(), 0, {})
    assert start["environment"]["threads"] == str(torch.get_num_threads())
    modes = {path.stat().st_mode for path in undisturbed.folder.iterdir()}
    assert len(modes) == 1, "files of one run differ in who may read them"
    spec = load_checkpoint(undisturbed.latest)[1]
    assert spec.shape == SHAPE
    assert spec.card["steps"] == STEPS


@pytest.mark.parametrize("step", [1, 6, PER_EPOCH, STEPS])
def test_run_that_crashed_continues_bit_for_bit(data, undisturbed, tmp_path, step):
    with pytest.raises(RuntimeError, match="power cut"):
        run_training(data, tmp_path, crash_at(step))
    assert_same_run(run_training(data, tmp_path), undisturbed)


def test_a_signal_that_comes_while_processes_agree_is_heard(data, tmp_path, monkeypatch):
    asked = []

    def agree(self, flag):
        asked.append(flag)
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGTERM)  # after the flag has been read
        return flag

    monkeypatch.setattr(Group, "any", agree)
    with pytest.raises(Stopped):
        run_training(data, tmp_path)
    assert asked == [False, False, False, True]


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
    assert (tmp_path / "lock").is_file()
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


@pytest.fixture
def half_done(data, undisturbed, tmp_path):
    """A run that ended at the end of its second epoch; the state is that of a whole run."""
    with pytest.raises(RuntimeError):
        run_training(data, tmp_path / "half", crash_at(2 * PER_EPOCH + 1), save_every=1)
    return Run(tmp_path / "half")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"seed": 1}, r"seed 0 -> 1.*would choose the best weights"),
        ({"data": {"validation": 3}}, "data.validation 2 -> 3.*would choose the best weights"),
        ({"model": {"width": 12}}, "model.width 8 -> 12.*state is that of another model"),
        ({"flow": {"prediction": "data"}}, "flow.prediction .*state is that of another model"),
        ({"freeze": ["sequence"]}, "freeze .*state is that of another model"),
    ],
)
def test_changes_that_mean_nothing_to_the_state_are_refused(data, undisturbed, changes, what):
    before = undisturbed.config_file.read_bytes()
    table = settings(data)
    merged = {
        key: {**table.get(key, {}), **value} if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    with pytest.raises(InputError, match=what + r".*another --run folder with init=") as error:
        run_training(data, undisturbed.folder, allow=True, **merged)
    assert "\n" not in str(error.value)
    assert undisturbed.config_file.read_bytes() == before


SLOWER = {"optimizer": {"warmup": 3, "lr": 1e-4}}


def test_another_learning_rate_has_to_be_asked_for_and_is_recorded(data, half_done):
    with pytest.raises(InputError, match=r"\(optimizer.lr 0.001 -> 0.0001\).*--allow-changes"):
        run_training(data, half_done.folder, **SLOWER)
    lines = []
    run_training(data, half_done.folder, allow=True, lines=lines, **SLOWER)
    assert lines == [
        "changed: optimizer.lr 0.001 -> 0.0001; the run goes on under it from here on",
        "changed: save_every 1 -> 10; the weights stay the same bit for bit",
    ]
    assert half_done.read_config().optimizer.lr == 1e-4
    last = half_done.read_history()[-1]
    assert last["changes"]["optimizer.lr"] == [1e-3, 1e-4]
    assert last["step"] == 2 * PER_EPOCH
    rates = [line["lr"] for line in half_done.read_metrics()]
    assert rates[-1] < 1e-4 < rates[1]


@pytest.mark.parametrize("changes", [{"save_every": 2}, {"resume_every": 1000}, {"init": "gone"}])
def test_changes_that_leave_the_weights_the_same_do(data, undisturbed, half_done, changes):
    lines = []
    run = run_training(data, half_done.folder, lines=lines, **{"save_every": 1} | changes)
    assert len(lines) == 1
    assert "bit for bit" in lines[0] or "those of the saved state" in lines[0]
    assert_same_run(run, undisturbed)


def test_moved_data_continue_bit_for_bit_and_other_data_are_refused(
    data, undisturbed, half_done, tmp_path
):
    other = np.load(data)
    other[3] += 1e-3
    np.save(tmp_path / "other.npy", other)
    paths = {"validation": 2, "density": [0.2, 0.5], "paths": [str(tmp_path / "other.npy")]}
    with pytest.raises(InputError, match=r"other\.npy hold other fields .* with init="):
        run_training(data, half_done.folder, save_every=1, data=paths)
    (tmp_path / "moved.npy").write_bytes(data.read_bytes())
    paths["paths"] = [str(tmp_path / "moved.npy")]
    lines = []
    run = run_training(data, half_done.folder, save_every=1, data=paths, lines=lines)
    assert_same_run(run, undisturbed)
    assert "data.paths" in lines[0]


def test_a_finished_run_goes_on_for_more_epochs(data, half_done):
    run_training(data, half_done.folder, save_every=1)
    lines = []
    run_training(data, half_done.folder, save_every=1, epochs=EPOCHS + 1, lines=lines)
    assert len(lines) == 1
    assert f"epochs {EPOCHS} -> {EPOCHS + 1}; the learning rate follows" in lines[0]
    steps = [line["step"] for line in half_done.read_metrics()]
    assert steps == [PER_EPOCH * (epoch + 1) for epoch in range(EPOCHS + 1)]
    with pytest.raises(InputError, match="2 epochs end before step 16.*epochs or steps to more"):
        run_training(data, half_done.folder, save_every=1, epochs=2)


def test_another_batch_size_starts_the_unfinished_epoch_again(data, tmp_path, monkeypatch):
    """Every field is seen once in an epoch, and the run has as many epochs."""
    with pytest.raises(RuntimeError):
        run_training(data, tmp_path, crash_at(PER_EPOCH + 3))
    seen, items = [], TrainingBatches._items

    def note(self, step):
        seen.append(items(self, step))
        return seen[-1]

    monkeypatch.setattr(TrainingBatches, "_items", note)
    lines = []
    run = run_training(data, tmp_path, batch_size=4, lines=lines)
    assert any("batch_size 2 -> 4; an epoch that is not finished starts again" in x for x in lines)
    for epoch in range(EPOCHS - 1):
        assert sorted(np.concatenate(seen[2 * epoch : 2 * epoch + 2])) == list(range(8))
    assert len(seen) == 2 * (EPOCHS - 1)
    first = PER_EPOCH + 2
    assert [line["step"] for line in run.read_metrics()] == [PER_EPOCH, first + 2, first + 4]
    assert [line["epoch"] for line in run.read_metrics()] == [1, 2, 3]
    assert run.read_metrics()[-1]["lr"] < run.read_metrics()[-2]["lr"]


def test_another_number_of_threads_is_said_to_change_the_last_digits(data, half_done):
    threads, lines = torch.get_num_threads(), []
    torch.set_num_threads(threads + 1)
    try:
        run_training(data, half_done.folder, save_every=1, lines=lines)
    finally:
        torch.set_num_threads(threads)
    assert lines == [
        f"changed: threads {threads} -> {threads + 1}; "
        "results agree up to rounding, no longer bit for bit"
    ]
    assert half_done.read_history()[-1]["environment"]["threads"] == str(threads + 1)


def test_a_state_of_an_older_version_is_continued(data, undisturbed, half_done):
    with safe_open(half_done.resume_file, framework="pt") as file:
        kept = {key: file.metadata()[key] for key in ("step", "best", "cpu_seconds")}
    save_file(load_file(half_done.resume_file), half_done.resume_file, kept)
    half_done.history_file.unlink()
    assert_same_run(run_training(data, half_done.folder, save_every=1), undisturbed)


def test_state_of_another_model_in_the_folder_is_refused(data, undisturbed, tmp_path):
    wide = dict(settings(data)["model"], width=12)
    (tmp_path / "resume.safetensors").write_bytes(undisturbed.resume_file.read_bytes())
    with pytest.raises(InputError, match="belongs to another model; choose another --run") as e:
        run_training(data, tmp_path, model=wide)
    assert "\n" not in str(e.value)


def test_a_start_that_is_refused_leaves_nothing_behind(data, undisturbed, tmp_path):
    folder = tmp_path / "run"
    for changes in ({"batch_size": 9}, {"init": "nowhere"}, {"freeze": ["nothing"]}):
        with pytest.raises(InputError):
            run_training(data, folder, **changes)
        assert not folder.exists()
    assert_same_run(run_training(data, folder), undisturbed)


def break_at(monkeypatch, step, result=None):
    """Let the gradient of a step, counted from 1, be infinite, or do something to the state."""
    update = TrainState.update

    def broken(state, rate):
        if state.step + 1 < step:
            return update(state, rate)
        return float("inf") if result is None else result(update(state, rate), state)

    monkeypatch.setattr(TrainState, "update", broken)


def test_a_run_that_diverged_goes_on_with_the_learning_rate_that_the_message_asks_for(
    data, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        break_at(patch, 7)
        with pytest.raises(
            Diverged, match=r"gradient of step 6 .* saved at step 6 .*lower opt"
        ) as e:
            run_training(data, tmp_path)
    assert "lower optimizer.lr than 0.001 and --allow-changes" in str(e.value)
    seen = []
    run_training(data, tmp_path, lambda p: seen.append(p.step), allow=True, **SLOWER)
    assert seen[0] == 7
    assert Run(tmp_path).read_metrics()[-1]["step"] == STEPS


def test_a_run_that_diverged_before_it_saved_takes_any_settings(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_at(patch, 2)
        with pytest.raises(Diverged, match=r"no state was saved yet: run again with a lower"):
            run_training(data, tmp_path, resume_every=1000)
    lines = []
    run_training(data, tmp_path, lines=lines, seed=5, **SLOWER)
    assert any(
        line == "changed: seed 0 -> 5; no step was saved, so the run starts anew" for line in lines
    )
    assert Run(tmp_path).read_metrics()[-1]["step"] == STEPS


def spoil(norm, state):
    state.average.backbone.readout.requires_grad_(False)
    next(state.average.backbone.parameters()).fill_(float("nan"))
    return norm


@pytest.mark.parametrize("result", [None, spoil])
def test_a_run_that_diverged_in_its_last_step_says_so_and_keeps_its_state(
    data, undisturbed, tmp_path, monkeypatch, result
):
    with monkeypatch.context() as patch:
        break_at(patch, STEPS, result)
        with pytest.raises(Diverged, match=f"saved at step {STEPS - 1} is sound"):
            run_training(data, tmp_path)
    assert Run(tmp_path).read_metrics()[-1]["step"] == STEPS - PER_EPOCH
    assert_same_run(run_training(data, tmp_path), undisturbed)


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
