"""The command line as a whole: help, errors and exit codes."""

import errno
import os
import re
import subprocess
import sys

import pytest

from sparsefield.cli import COMMANDS, main

CALL = [sys.executable, "-m", "sparsefield.cli"]


def cpu_seconds(arguments):
    """Return the processor time of a command; other work on the machine does not count."""
    code = "import os, subprocess, sys; subprocess.run(sys.argv[1:], stdout=-3); t = os.times();"
    code += "print(t.children_user + t.children_system)"
    command = [sys.executable, "-c", code, *CALL, *arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_help_lists_every_command_at_once(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert min(cpu_seconds(["--help"]) for _ in range(3)) < 0.3


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_without_heavy_imports(name, capsys):
    loaded = set(sys.modules)
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: sparsefield {name}" in capsys.readouterr().out
    assert not {"matplotlib.pyplot"} & (set(sys.modules) - loaded)


@pytest.mark.parametrize("commit", ["0123abc-dirty", None])
def test_version_names_the_commit_of_a_checkout(commit, capsys, monkeypatch):
    import sparsefield
    from sparsefield.core import version

    monkeypatch.setattr(version, "code_version", lambda: commit or sparsefield.__version__)
    assert main(["--version"]) == 0
    expected = sparsefield.__version__ + (f" (commit {commit})" if commit else "")
    assert capsys.readouterr().out.strip() == expected


def test_the_package_is_the_command_line():
    command = [sys.executable, "-m", "sparsefield", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"\d+\.\d+", done.stdout)


ASCII = {
    "terminal": {"PYTHONIOENCODING": "ascii"},
    "locale": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
EVERY_HELP = r"""
import sys
from sparsefield.cli import COMMANDS, main
for name in COMMANDS:
    try:
        code = main([name, "--help"])
    except SystemExit as stop:
        code = stop.code
    assert code == 0, name
main(["models"])
assert main(["\u00b1"]) == 2
main([])
print("24 \u00b1 1")
"""


@pytest.mark.parametrize("variables", ASCII.values(), ids=ASCII)
def test_terminals_that_know_ascii_alone_are_served(variables):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONIOENCODING"} | variables
    command = [sys.executable, "-c", EVERY_HELP]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert all(f"usage: sparsefield {name}".encode() in done.stdout for name in COMMANDS)
    assert done.stdout.endswith(rb"24 \xb1 1" + os.linesep.encode())


@pytest.mark.parametrize(
    ("backend", "left"),
    [
        ("module://no_such_package.inline", ""),
        ("svg", "svg"),
        ("module://os.path", "module://os.path"),
    ],
)
def test_figures_are_drawn_where_the_backend_of_a_notebook_is_missing(backend, left):
    """Commands of a notebook inherit its backend; matplotlib cannot be imported without it."""
    code = (
        "import os; from sparsefield.cli import main; main(['--version']);"
        "import matplotlib; print(os.environ.get('MPLBACKEND', ''))"
    )
    environment = os.environ | {"MPLBACKEND": backend}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, [left]), done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], ["unknown command 'nonsense'", "evaluate"]),
        (["monitor", "nowhere"], ["no run at nowhere"]),
        (["stop", "nowhere"], ["no run at nowhere"]),
        (["train", "nonsense"], ["unknown preset 'nonsense'", "v1"]),
        (["train", "tiny.toml"], ["no training data", "--data"]),
        (["train", "tiny.toml", "--data", "gone.npy"], ["gone.npy"]),
        (["train", "tiny.toml", "--data", "data.npy", "optimizer.rl=1"], ["optimizer.rl"]),
        (["train", "tiny.toml", "--data", "data.npy", "epochs=many"], ["epochs", "many"]),
        (["train", "tiny.toml", "--data", "data.npy", "model.wide=2"], ["model.wide", "width"]),
        (["evaluate", "nowhere", "--data", "data.npy"], ["no model 'nowhere'"]),
        (["evaluate", "baselines", "--data", "gone.npy"], ["gone.npy"]),
        (
            ["evaluate", "baselines", "--data", "data.npy", "--baselines", "tpss"],
            ["'tpss'", "kriging"],
        ),
        (
            ["evaluate", "baselines", "--data", "data.npy", "--split", "val"],
            ["'val'", "validation"],
        ),
        (["evaluate", "baselines", "--data", "data.npy", "--density", "0"], ["density", "0"]),
        (["reconstruct", "gone.png", "--out", "a.gif"], ["a.gif", ".png"]),
        (["masks", "verify", "--split", "val"], ["'val'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_exit_code_2(cli, arguments, words):
    seen = cli(*arguments)
    assert seen.code == 2
    assert seen.err.startswith("sparsefield: error: ")
    assert seen.err.count("\n") == 1
    for word in words:
        assert word in seen.err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "out.json"), 2, "out.json: No space"),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_interrupts_and_full_disks_are_no_tracebacks(cli, monkeypatch, error, code, words):
    def fail(*args):
        raise error

    monkeypatch.setattr("sparsefield.data.masks.verify_masks", fail)
    seen = cli("masks", "verify")
    assert seen.code == code
    assert words in seen.err


def test_bugs_keep_their_traceback(cli, monkeypatch):
    monkeypatch.setattr("sparsefield.data.masks.verify_masks", lambda masks: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("masks", "verify")


def test_output_to_a_full_device_is_one_line():
    with open("/dev/full", "w") as full:
        child = subprocess.run(CALL, stdout=full, stderr=subprocess.PIPE, text=True)
    assert child.returncode == 2
    assert child.stderr.count("\n") == 1
    assert "No space left on device" in child.stderr


def test_masks_verify_passes_and_says_what_is_broken(cli, monkeypatch):
    from sparsefield.data.masks import MaskCheck

    monkeypatch.setattr(
        "sparsefield.data.masks.verify_masks",
        lambda masks: [MaskCheck("exact count", masks.items != 3, "seen")],
    )
    assert cli("masks", "verify", "--items", 5).code == 0
    broken = cli("masks", "verify", "--items", 3)
    assert broken.code == 1
    assert "masks are broken: exact count" in broken.err


def test_models_lists_what_there_is(cli):
    import json

    from sparsefield.models import MODELS, build_model
    from sparsefield.training.config import preset_names

    seen = cli("models", "--json")
    listed = json.loads(seen.out)
    assert listed["models"].keys() == MODELS.keys()
    assert listed["presets"] == preset_names()
    tiny = build_model("tiny")
    assert listed["models"]["tiny"]["parameters"] == sum(w.numel() for w in tiny.parameters())
    assert listed["models"]["tiny"]["claims"]["linear_cost"] is True
    table = cli("models")
    assert table.code == 0
    assert "linear cost" in table.out


def test_the_default_sampler_is_that_of_the_package():
    from sparsefield.cli import options
    from sparsefield.samplers import DEFAULT_SAMPLER

    assert options.DEFAULT_SAMPLER == DEFAULT_SAMPLER
