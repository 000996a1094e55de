"""Data sets on the command line: what is said of them, and what is asked for."""

import numpy as np
import pytest

from sparsefield import cli


@pytest.fixture
def stations(tmp_path):
    np.save(tmp_path / "stations.npy", np.random.default_rng(0).random((3, 8, 9)) * 300)
    return str(tmp_path / "stations.npy")


def evaluate(*arguments):
    return cli.main(["evaluate", *arguments, "--limit", "2", "--baselines", "nearest"])


def test_the_option_that_a_refusal_names_works_and_the_output_says_how(stations, capsys):
    assert evaluate("baselines", "--data", stations) == 2
    seen = capsys.readouterr()
    assert seen.err.startswith("sparsefield: error: ") and seen.err.count("\n") == 1
    assert "--channels none" in seen.err
    assert evaluate("baselines", "--data", stations, "--channels", "none") == 0
    seen = capsys.readouterr()
    assert "(2, 8, 9) read as 2 items on a grid of 8 x 9 cells, no axis of channels" in seen.out
    assert "stations.npy has no splits: all of it is read as 'validation'" in seen.out
    assert not seen.err


def test_a_model_of_images_is_not_scored_on_values_that_it_cannot_return(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.full((2, 8, 9, 3), 280.0))
    assert evaluate("default", "--data", str(tmp_path / "a.npy")) == 2
    assert "432 of 432 values lie outside [0, 1]" in capsys.readouterr().err


def test_a_set_divided_by_unknown_names_is_read_whole_when_asked(tmp_path, capsys):
    from PIL import Image

    for name in ("learn", "holdout"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 9)).save(tmp_path / name / "a.png")
    assert evaluate("baselines", "--data", str(tmp_path)) == 2
    assert "--split all" in capsys.readouterr().err
    assert evaluate("baselines", "--data", str(tmp_path), "--split", "all") == 0


def test_every_command_that_may_be_told_of_channels_has_the_option(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.zeros((2, 64, 64)))
    for command in (["evaluate", "baselines"], ["compare", "default"], ["superres", "default"]):
        assert cli.main([*command, "--data", str(tmp_path / "a.npy")]) == 2
        assert "--channels none" in capsys.readouterr().err
        told = ["--channels", "none", "--split", "dev"]  # refused after the option is understood
        assert cli.main([*command, "--data", str(tmp_path / "a.npy"), *told]) == 2
        assert "unknown split" in capsys.readouterr().err
