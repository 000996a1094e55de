"""Benchmarks: contestants take turns, refusals are kept, memory is that of one run alone."""

import importlib.util
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from sparsefield.cli import main
from sparsefield.core.errors import InputError
from sparsefield.nn.scan import ScanInputs, selective_scan
from sparsefield.nn.scan.reference.naive import scan_naive
from sparsefield.profiling import scans as scan_benchmark
from sparsefield.profiling import timing as benchmark
from sparsefield.profiling.scans import (
    ScanShape,
    compare_scans,
    make_scan_inputs,
    parse_shape,
    prepare_scan,
    scan_contestants,
)
from sparsefield.profiling.timing import compare, peak_memory

TINY = ScanShape(2, 9, 8, 3)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_children(monkeypatch):
    """Leave out the processes that measure memory; they take seconds to start."""
    monkeypatch.setattr(benchmark, "peak_memory", lambda setup: 2**20)


@pytest.fixture
def mambapy(monkeypatch):
    """Stand in for the package by the loop: the step sizes come without their softplus."""

    def scan(self, u, steps, A, B, C, D):
        delta = steps.expm1().log()
        return scan_naive(ScanInputs(u, delta, A, B, C, D, None, None, None, False))[0]

    module = ModuleType("mambapy.mamba")
    module.MambaBlock = SimpleNamespace(selective_scan=scan)
    monkeypatch.setitem(sys.modules, "mambapy", ModuleType("mambapy"))
    monkeypatch.setitem(sys.modules, "mambapy.mamba", module)


def test_contestants_take_turns_and_the_first_round_does_not_count(no_children):
    log = []
    setups = {name: lambda name=name: partial(log.append, name) for name in "ab"}
    results = compare(setups, repeats=3)
    assert log == list("ab" * 4)
    assert all(len(results[name]["runs"]) == 3 for name in "ab")
    assert all(sorted(r["runs"])[1] == r["seconds"] for r in results.values())


def test_who_is_slow_sits_out_when_patience_ends(no_children, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: sum(seconds)))
    setups = {"slow": lambda: partial(seconds.append, 0.02), "fast": lambda: int}
    results = compare(setups, repeats=6, patience=0.03)
    assert len(results["slow"]["runs"]) == 2
    assert len(results["fast"]["runs"]) == 6


def test_who_refuses_is_left_out_with_the_reason(no_children):
    def refuse():
        raise InputError("needs 8.0 GiB")

    setups = {"early": refuse, "late": lambda: refuse, "fit": lambda: int}
    results = compare(setups, repeats=1)
    assert list(results) == ["early", "late", "fit"]
    assert results["early"] == results["late"] == {"refused": "needs 8.0 GiB"}
    assert results["fit"]["seconds"] >= 0


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the system keeps no record"
)
def test_peak_memory_is_that_of_the_work_alone():
    """The setup's 256 MiB and what the process had before do not count; 64 MiB of the work do."""
    peak = peak_memory(partial(_allocate_later, 2**26, 2**24))
    assert 2**26 <= peak < 2**26 + 2**23


def _allocate_later(before, within):
    kept = torch.ones(before)
    return lambda: torch.ones(within).sum() + kept[0]


@pytest.mark.parametrize("name", scan_contestants())
def test_every_contestant_runs_or_says_why_not(name, mambapy):
    try:
        prepare_scan(name, TINY, backward=True)()
    except InputError as error:
        assert name in ("mamba_ssm", "triton"), error


def test_the_peer_computes_the_same(mambapy):
    inputs = {name: x.detach() for name, x in make_scan_inputs(TINY).items()}
    torch.testing.assert_close(
        scan_benchmark.PEERS["mambapy"](**inputs), selective_scan(**inputs), rtol=1e-4, atol=1e-4
    )


def test_what_would_not_fit_the_memory_is_refused_with_numbers(monkeypatch):
    monkeypatch.setattr(scan_benchmark.os, "sysconf", lambda name: 2**10)
    with pytest.raises(InputError, match=r"mambapy needs about .* GiB for 1x16384x256x16"):
        prepare_scan("mambapy", ScanShape(1, 16384, 256, 16), backward=True)


@pytest.mark.parametrize("text", ["8x408x512", "8x408x512x0", "8,408,512,16", "axbxcxd"])
def test_a_shape_is_four_sizes(text):
    with pytest.raises(InputError, match="BxLxDxN"):
        parse_shape(text)


def test_unknown_contestants_are_answered_with_the_choices():
    with pytest.raises(InputError, match=r"cpu.*mambapy"):
        compare_scans([TINY], ["cuda"])


def test_scan_command_writes_what_it_shows_and_the_page_what_it_wrote(
    no_children, tmp_path, capsys
):
    file = tmp_path / "scan.json"
    shapes = ["2x9x8x3", "1x8192x16x1"]
    arguments = ["bench", "scan", "--repeats", "1", "--json", str(file)]
    assert main([*arguments, "--shapes", *shapes, "--backends", "cpu", "einsum"]) == 0
    shown = capsys.readouterr().out
    assert "einsum" in shown
    assert "refused" in shown
    report = json.loads(file.read_text())
    assert {"device", "commit", "threads", "repeats"} <= set(report)
    assert [row["shape"] for row in report["rows"]] == [[2, 9, 8, 3]] * 2 + [[1, 8192, 16, 1]] * 2
    assert "4.0 GiB" in report["rows"][3]["forward"]["refused"]
    page = _scan_report().render(report)
    assert page.count("| `cpu` |") == 2
    assert page.count("`einsum` refuses: ") == 1


def test_model_command_measures_every_grid_and_training(no_children, tmp_path, capsys):
    preset = tmp_path / "tiny.toml"
    preset.write_text(
        '[model]\nname = "v1"\nwidth = 16\nlayers = 1\nstate = 2\nheads = 2\nfeatures = 4\n'
    )
    file = tmp_path / "model.json"
    arguments = ["bench", "model", "--presets", str(preset), "--batch-size", "2"]
    assert main([*arguments, "--repeats", "1", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert row["autocast"] in ("float32", "bfloat16")
    assert row["parameters"] > 0
    assert row["forward_32"]["seconds"] > 0 < row["forward_64"]["seconds"]
    training = row["training"]
    assert training["images_per_second"] == pytest.approx(2 / training["seconds"])


def test_each_benchmark_knows_its_own_options_only(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "size", "--batch-size", "2"])
    assert "--batch-size" in capsys.readouterr().err
    for name, words in {"scan": "--shapes", "model": "--batch-size", "size": "--sizes"}.items():
        with pytest.raises(SystemExit):
            main(["bench", name, "--help"])
        assert words in capsys.readouterr().out


def test_the_bound_stands_beside_the_backends(no_children, monkeypatch, tmp_path):
    monkeypatch.setattr(scan_benchmark, "PEERS", dict(scan_benchmark.PEERS))
    monkeypatch.syspath_prepend(ROOT / "experiments")
    importlib.import_module("bench_scan")
    rows = compare_scans([ScanShape(1, 512, 64, 2)], ["exponentials", "cpu"], repeats=1)["rows"]
    passes = ("forward", "forward_backward")
    assert all(row[part]["seconds"] > 0 for row in rows for part in passes)


def test_the_page_shows_the_published_results():
    command = [sys.executable, ROOT / "experiments" / "scan_report.py", "--check"]
    assert subprocess.run(command).returncode == 0


def _scan_report():
    path = ROOT / "experiments" / "scan_report.py"
    spec = importlib.util.spec_from_file_location("scan_report", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
