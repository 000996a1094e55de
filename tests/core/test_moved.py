"""Old modules and names answer, with a warning that names the new place."""

import subprocess
import sys
from importlib import import_module

import pytest

import sparsefield
from sparsefield.core.moved import MODULES, NAMES


@pytest.fixture(autouse=True)
def forget():
    """Forget the stubs, so that each test imports them for the first time."""
    yield
    for name in [name for name in sys.modules if name.removeprefix("sparsefield.") in MODULES]:
        del sys.modules[name]


@pytest.mark.parametrize("old", [name for name, new in MODULES.items() if new])
def test_an_old_module_has_the_names_of_the_new_ones(old):
    with pytest.warns(DeprecationWarning, match=f"sparsefield.{old} goes away: it is now"):
        stub = import_module(f"sparsefield.{old}")
    for place in MODULES[old]:
        home = import_module(f"sparsefield.{place}")
        names = [name for name in vars(home) if not name.startswith("_")]
        assert names
        for name in names:
            assert getattr(stub, name) is not None or getattr(home, name) is None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = stub.nonsense


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in NAMES.items() for n in names])
def test_an_old_name_is_what_it_is_now(module, name):
    home = import_module(f"sparsefield.{module}".rstrip("."))
    with pytest.warns(DeprecationWarning, match=f"{name} goes away"):
        found = getattr(home, name)
    place, _, new = NAMES[module][name].rpartition(".")
    assert found is getattr(import_module(f"sparsefield.{place}"), new)


def test_statements_that_people_wrote_run_in_a_fresh_process():
    code = """
import sparsefield as sf
import sparsefield.fields.observation
from sparsefield.fields.observation import Observation
from sparsefield.reconstruction import reconstruct
from sparsefield.inference import load
from sparsefield.checkpoint import ModelSpec
from sparsefield.evaluation.metrics import psnr, crps_ensemble
from sparsefield.evaluation import floors
assert Observation is sf.Observation and load is sf.load and reconstruct is sf.reconstruct
assert sparsefield.fields.observation.Observation is sf.Observation
"""
    command = [sys.executable, "-W", "error::ImportWarning", "-c", code]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        import_module("sparsefield.nonsense")
    with pytest.raises(ModuleNotFoundError):
        import_module("sparsefield.fields.nonsense")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sparsefield.nonsense
