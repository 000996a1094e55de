"""The cost of growing grids: exponents, and sizes out of reach that are not tried."""

import json

import pytest

from sparsefield.cli import main
from sparsefield.core.errors import InputError
from sparsefield.profiling import sizes as size_benchmark
from sparsefield.profiling import timing as benchmark
from sparsefield.profiling.sizes import fit_exponent, measure_sizes

PRESET = '[model]\nname = "{}"\nwidth = 8\nlayers = 1\nheads = 2\nfeatures = 3\n{}\n'
ROUNDS = (1, float("inf"))


@pytest.fixture
def presets(tmp_path, monkeypatch):
    """Two tiny presets, and no processes that measure memory: they take seconds to start."""
    monkeypatch.setattr(benchmark, "peak_memory", lambda setup: 2**20)
    for name, more in (("v1", "state = 2"), ("transformer", "")):
        (tmp_path / f"{name}.toml").write_text(PRESET.format(name, more))
    return [str(tmp_path / f"{name}.toml") for name in ("v1", "transformer")]


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_the_exponent_is_that_of_the_largest_sizes(exponent):
    seconds = {size: 1e-6 * size ** (2 * exponent) for size in (64, 128, 256)} | {32: 1.0}
    assert fit_exponent(seconds) == pytest.approx(exponent)
    assert fit_exponent({32: 1.0}) is None


def test_every_model_is_measured_at_every_size(presets):
    said = []
    report = measure_sizes(presets, (), [16, 8], "cpu", ROUNDS, said.append)
    assert said == ["posterior means at 8 x 8", "posterior means at 16 x 16"]
    assert [row["model"] for row in report["rows"]] == ["v1", "transformer"]
    for row in report["rows"]:
        assert list(row["sizes"]) == ["8", "16"]
        assert all(result["seconds"] > 0 for result in row["sizes"].values())
        assert row["exponent"] is not None
        assert row["parameters"] > 0
    assert [row["linear_cost"] for row in report["rows"]] == [True, False]


def test_what_would_take_too_long_is_not_tried(presets, monkeypatch):
    """Claimed linear cost is judged as linear, any other as quadratic."""
    monkeypatch.setattr(size_benchmark, "LONGEST", 50.0)
    monkeypatch.setattr(benchmark, "_seconds", lambda work: 1.0)
    linear, quadratic = measure_sizes(presets, (), [4, 8, 12, 32], "cpu", ROUNDS, str)["rows"]
    assert all("seconds" in result for result in linear["sizes"].values())
    assert quadratic["sizes"]["32"] == {"refused": "about 51 s at 32 x 32, over 50 s"}
    assert "seconds" in quadratic["sizes"]["12"]


def test_what_would_not_fit_the_memory_is_not_tried(presets, monkeypatch):
    monkeypatch.setattr(size_benchmark, "_available_bytes", lambda: 3 * 2**20)
    (row,) = measure_sizes(presets[:1], (), [4, 8], "cpu", ROUNDS, str)["rows"]
    assert "seconds" in row["sizes"]["4"]
    assert row["sizes"]["8"]["refused"].endswith("GiB at 8 x 8; 0.0 GiB are free")


def test_bundled_models_are_known_by_name(monkeypatch):
    monkeypatch.setattr(benchmark, "peak_memory", lambda setup: None)
    (row,) = measure_sizes(["default"], (), [4], "cpu", ROUNDS, str)["rows"]
    assert row["model"] == "hybrid"
    assert row["sizes"]["4"]["seconds"] > 0
    assert row["exponent"] is None


def test_the_command_writes_what_it_shows(presets, tmp_path, capsys):
    file = tmp_path / "size.json"
    arguments = ["bench", "size", "--presets", *presets, "--sizes", "4", "8", "--repeats", "1"]
    assert main([*arguments, "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "exponent" in shown
    assert len(json.loads(file.read_text())["rows"]) == 2


def test_bad_input_is_refused_before_anything_is_measured(presets):
    for names, sizes, words in (
        (["v9"], [4], "unknown preset 'v9'"),
        (presets, [0], "at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            measure_sizes(names, (), sizes, "cpu", ROUNDS, str)
