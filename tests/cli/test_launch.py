"""Commands that torchrun starts: what is wrong is said once, and by the one who knows."""

import subprocess
import sys

import pytest

from sparsefield import cli
from sparsefield.cli import COMMANDS, main


@pytest.fixture
def process(monkeypatch):
    """Be one of two processes of torchrun; return how long it waited for the leader."""
    waited = []
    monkeypatch.setattr(cli.time, "sleep", waited.append)

    def be(rank, size=2):
        told = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}
        for name, value in told.items():
            monkeypatch.setenv(name, str(value))
        return waited

    return be


@pytest.mark.parametrize("name", sorted({*COMMANDS} - {"train"}))
def test_what_one_process_does_is_refused_in_several(name, process, capsys):
    assert process(0) == []
    assert main([name]) == 2
    shown = capsys.readouterr()
    line = f"'sparsefield {name}' runs in one process; start it without torchrun"
    assert (shown.out, shown.err) == ("", f"sparsefield: error: {line}\n")


def test_one_process_of_torchrun_is_like_none(process, capsys):
    process(0, size=1)
    assert main(["reconstruct", "nowhere.csv", "--out", "map.png"]) == 2
    assert "nowhere.csv" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["--completion", "bash"]])
def test_only_the_leader_answers(arguments, process, capsys):
    process(1)
    assert main(arguments) == 0
    assert capsys.readouterr() == ("", "")
    process(0)
    assert main(arguments) == 0
    assert capsys.readouterr().out


BAD = {
    "command": ["frobnicate"],
    "preset": ["train", "nonsense"],
    "setting": ["train", "hybrid-small", "epochs=-1"],
    "option": ["train", "hybrid-small", "--nonsense"],
}


def code(arguments):
    try:
        return main(arguments)
    except SystemExit as ended:
        return ended.code


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD)
def test_the_leader_speaks_at_once_and_the_others_wait(arguments, process, capsys):
    waited = process(0)
    assert code(arguments) == 2
    leader = capsys.readouterr()
    assert waited == [] and leader.err
    process(1)
    assert code(arguments) == 2
    follower = capsys.readouterr()
    assert waited == [cli.PATIENCE]
    # who is not ended meanwhile has an error of its own, which options never are
    assert follower.err == ("" if "--nonsense" in arguments else leader.err)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["models"], *BAD.values()], ids=["models", *BAD])
def test_torchrun_shows_one_line(arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", "0", "-m", "--", "sparsefield", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    ours = done.stderr.partition("torch/distributed/elastic")[0]
    assert "Traceback" not in ours and "sparsefield/" not in done.stderr
    shown = "full helptext" if "--nonsense" in arguments else "sparsefield: error:"
    assert done.stderr.count(shown) == 1, done.stderr
