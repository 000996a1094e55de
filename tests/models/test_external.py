"""Backbones of other packages: named by the user, never imported because a file says so."""

import subprocess
import sys

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.normalize import Normalizer
from sparsefield.inference.checkpoint import ModelSpec, load_checkpoint, save_checkpoint
from sparsefield.models import build_model, external
from sparsefield.training.config import config_from_dict, load_config
from sparsefield.training.run import Run

MODULE = """
from pathlib import Path
from sparsefield.models.transformer import TransformerCrossAttention

Path("imported").touch()

class Mine(TransformerCrossAttention):
    def __init__(self, channels: int = 3, dims: int = 2, width: int = 8) -> None:
        super().__init__(channels, dims, width, layers=1, heads=2, features=3)

class NoBackbone:
    pass
"""
PRESET = 'epochs = 1\n[model]\nname = "{module}:Mine"\nwidth = 12\n'


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """The name of a module beside the tests' folder that nobody has imported or named."""
    name = f"stranger_{abs(hash(request.node.name))}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(external, "_trusted", set())
    (tmp_path / f"{name}.py").write_text(MODULE)
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def checkpoint(module, tmp_path):
    """A checkpoint that names the class, made by another process."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, '.')\n"
        f"import {module}\n"
        "from sparsefield.data.normalize import Normalizer\n"
        "from sparsefield.inference.checkpoint import ModelSpec, save_checkpoint\n"
        "settings = {'channels': 1, 'dims': 2, 'width': 12}\n"
        "normalizer = Normalizer((0.0,), (1.0,))\n"
        f"spec = ModelSpec('{module}:Mine', settings, 'data', 1.0, normalizer, (4, 5))\n"
        "weights = spec.build().backbone.state_dict()\n"
        "save_checkpoint(Path('a.safetensors'), spec, weights)\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    (tmp_path / "imported").unlink()
    return tmp_path / "a.safetensors"


def test_a_checkpoint_alone_imports_nothing(module, checkpoint, tmp_path, monkeypatch):
    with pytest.raises(
        InputError, match=f"code of module '{module}'.*SPARSEFIELD_MODULES"
    ) as error:
        load_checkpoint(checkpoint)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "imported").exists()
    monkeypatch.setenv(external.VARIABLE, f"other, {module}")
    flow, spec = load_checkpoint(checkpoint)
    assert spec.model == f"{module}:Mine"
    assert type(flow.backbone).__name__ == "Mine"


def test_a_preset_names_the_module_and_a_run_folder_does_not(module, tmp_path):
    (tmp_path / "mine.toml").write_text(PRESET.format(module=module))
    table = {"model": {"name": f"{module}:Mine", "width": 12, "whatever": 1}}
    assert config_from_dict(table).model["width"] == 12
    assert not (tmp_path / "imported").exists()
    config = load_config("mine.toml", ["model.width=14"])
    assert (tmp_path / "imported").exists()
    assert build_model(config.model["name"], channels=2, width=14).state_dict()
    with pytest.raises(InputError, match="unknown key 'model.depth'.*model.width"):
        load_config("mine.toml", ["model.depth=3"])
    with pytest.raises(InputError, match="model.width must be int"):
        load_config("mine.toml", ["model.width=wide"])
    Run(tmp_path).write_config(config)
    assert Run(tmp_path).read_config() == config


def test_what_was_trained_is_loaded_where_the_module_is_imported(module, tmp_path):
    name = f"{module}:Mine"
    external.trust(name)
    settings = {"channels": 3, "dims": 2, "width": 8}
    spec = ModelSpec(name, settings, "data", 1.0, Normalizer.unit_range(3), (4, 5))
    flow = spec.build()
    save_checkpoint(tmp_path / "a", spec, flow.backbone.state_dict())
    external._trusted.clear()
    loaded, read = load_checkpoint(tmp_path / "a")
    assert read == spec
    for key, weight in flow.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{module}:Absent", "has no class 'Absent'"),
        ("{module}:NoBackbone", "is no subclass of sparsefield.flow.backbone.Backbone"),
        ("{module}:Path", "is no subclass of"),
        (
            "no_such_module_anywhere:Mine",
            "there is no module 'no_such_module_anywhere'; .*PYTHONPATH",
        ),
        ("broken:Mine", "importing 'broken' failed with ZeroDivisionError"),
        ("a:b:c", "is not of the form module:Class"),
        ("../x:Mine", "is not of the form module:Class"),
        (":Mine", "is not of the form module:Class"),
        ("os:system", "is no subclass of"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_clear_line(module, tmp_path, name, message):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match=message) as error:
        load_config("v1-small", [f"model.name={name.format(module=module)}"])
    assert "\n" not in str(error.value)
