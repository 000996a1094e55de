"""A folder to work in, with a data set, a preset and a backbone that trains in milliseconds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sparsefield
from sparsefield.cli import main
from sparsefield.data.normalize import Normalizer
from sparsefield.flow.backbone import Backbone, Claims
from sparsefield.inference.checkpoint import ModelSpec, save_checkpoint
from sparsefield.models import MODELS

SHAPE = (8, 9)
PRESET = """
epochs = 2
batch_size = 4
precision = "float32"
[model]
name = "tiny"
[data]
validation = 4
"""


class TinyBackbone(Backbone):
    """Predict from the mean square of the observations, the noisy value and the time."""

    claims = Claims(query_invariant=True, order_invariant=True, linear_cost=True)

    def __init__(self, channels: int = 3, dims: int = 2, width: int = 6) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * channels + dims + 1, width), nn.GELU(), nn.Linear(width, channels)
        )

    def forward(self, x_t, t, query, prepared=None):
        """Predict at the queries."""
        mean = query.obs.values.square().mean(1, keepdim=True).expand_as(x_t)
        time = t[:, None, None].expand(*x_t.shape[:2], 1)
        return self.layers(torch.cat([x_t, mean, query.coords, time], dim=-1))


@dataclass
class Captured:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Return a function that runs a command line in an empty folder with data and a preset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MODELS, "tiny", TinyBackbone)
    monkeypatch.setenv("COLUMNS", "160")
    # A process in the background runs the package under test from wherever it is.
    monkeypatch.setenv("PYTHONPATH", str(Path(sparsefield.__file__).parents[1]))
    rng = np.random.default_rng(0)
    np.save("data.npy", rng.integers(0, 256, (12, *SHAPE, 3), dtype=np.uint8))
    (tmp_path / "tiny.toml").write_text(PRESET)

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as stop:
            code = stop.code
        seen = capsys.readouterr()
        return Captured(code, seen.out, seen.err)

    return run


@pytest.fixture
def checkpoint(tmp_path):
    """Return a function that writes a checkpoint with fresh weights."""

    def write(name="model.safetensors", channels=3, shape=SHAPE):
        settings = {"channels": channels, "dims": len(shape)}
        normalizer = Normalizer.unit_range(channels)
        spec = ModelSpec("tiny", settings, "velocity", 1.0, normalizer, shape)
        path = tmp_path / name
        save_checkpoint(path, spec, spec.build().backbone.state_dict())
        return path

    return write
