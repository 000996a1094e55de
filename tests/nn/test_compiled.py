"""Compiled kernels on disk: never stale, and never a reason to fail."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sparsefield

PACKAGE = Path(sparsefield.__file__).parent
ENTRY = """
from numba import njit
from sparsefield.nn.compiled import compiled
from sparsefield.nn.helper import helper

@compiled
def entry():
    return helper()
"""
HELPER = "from numba import njit\n\n@njit\ndef helper():\n    return {value}\n"
RUN = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
from sparsefield.nn.entry import entry
print(entry(), entry())
"""


class Project:
    """A package with one kernel, which calls a helper in another file, and our cache."""

    def __init__(self, folder):
        self.folder, self.package = folder, folder / "sparsefield"
        for name in ("core/errors.py", "nn/compiled.py"):
            (self.package / name).parent.mkdir(parents=True)
            (self.package / name).write_bytes((PACKAGE / name).read_bytes())
        for name in ("__init__.py", "core/__init__.py", "nn/__init__.py"):
            (self.package / name).write_text("")
        (self.package / "nn/entry.py").write_text(ENTRY)
        self.write_helper(1)
        self.variables = {"NUMBA_CACHE_DIR": str(folder / "cache")}

    def write_helper(self, value):
        (self.package / "nn/helper.py").write_text(HELPER.format(value=value))

    def forbid_caches(self):
        """Put files where the directories would be: that holds for root as well."""
        for folder in (self.package / "nn", self.package / "core"):
            (folder / "__pycache__").write_text("")
        self.variables = {"XDG_CACHE_HOME": "/dev/null/nowhere"}

    def run(self, code=RUN):
        """Return what the kernel returned, and whether it was compiled and if so how."""
        named = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME", "PYTHONPATH")
        environment = {k: v for k, v in os.environ.items() if k not in named}
        environment |= {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | self.variables,
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_the_second_process_compiles_nothing(project):
    value, first = project.run()
    assert (value, first.count("compiling")) == ("1 1", 1)
    assert project.run() == ("1 1", "")


def test_a_changed_helper_in_another_file_is_compiled_anew(project):
    project.run()
    project.write_helper(2)
    assert project.run()[0] == "2 2"
    project.write_helper(1)
    assert project.run()[0] == "1 1"


def test_without_a_directory_to_write_to_every_process_compiles_for_itself(project):
    project.forbid_caches()
    for _ in range(2):
        value, log = project.run()
        assert value == "1 1"
        assert log.count("NUMBA_CACHE_DIR") == 1
        assert log.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="users are named in other ways there")
def test_a_user_without_a_home_leaves_no_folder_called_tilde(project):
    """Numba would make it of '~/.cache', which expands to itself."""
    project.forbid_caches()
    project.variables = {}
    value, log = project.run("import os\nos.getuid = lambda: 54321\n" + RUN)
    assert value == "1 1"
    assert "NUMBA_CACHE_DIR" in log
    assert not (project.folder / "~").exists()


@pytest.mark.parametrize(("suffix", "content"), [("nbi", b""), ("nbc", b"\x80\x04nonsense")])
def test_a_damaged_cache_is_made_anew(project, suffix, content):
    project.run()
    (damaged,) = (project.folder / "cache").rglob(f"*.{suffix}")
    damaged.write_bytes(content)
    value, log = project.run()
    assert value == "1 1"
    assert "compiling" in log
    assert project.run() == ("1 1", "")


def test_a_directory_that_went_away_is_no_error(project):
    code = RUN.replace("print", "import shutil; from pathlib import Path\nprint", 1)
    code = code.replace(
        "print", "shutil.rmtree('cache'); Path('cache').write_text('in the way')\nprint", 1
    )
    value, log = project.run(code)
    assert value == "1 1"
    assert log.count("cannot keep compiled kernels") == 1


def test_every_kernel_of_the_package_is_cached_this_way():
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"njit\([^)]*cache", path.read_text()), path


WITHOUT_NUMBA = """
import torch
from sparsefield.core.errors import InputError
from sparsefield.nn.local_attention import local_attention
from sparsefield.nn.neighbours import nearest
from sparsefield.nn.scan import selective_scan

u, B = torch.randn(2, 7, 3), torch.randn(2, 7, 5)
q, index = torch.randn(2, 7, 2, 4), torch.randint(7, (2, 7, 3))
points, valid = torch.rand(2, 7, 2), torch.ones(2, 7, dtype=torch.bool)
calls = {
    "chunked": lambda backend: selective_scan(u, u, -u[0, :5].T.exp(), B, B, backend=backend),
    "gather": lambda backend: local_attention(q, q, q, torch.zeros(2, 7, 3, 2), index, backend),
}
for instead, call in calls.items():
    assert torch.equal(call("auto"), call(instead))
    try:
        call("cpu")
    except InputError as error:
        print(error)
assert torch.equal(nearest(points, points, valid, 1)[0][0, :, 0], torch.arange(7))
"""


def test_without_numba_plain_pytorch_does_the_work():
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", WITHOUT_NUMBA]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused = done.stdout.splitlines()
    assert len(refused) == 2
    for line, instead in zip(refused, ("chunked", "gather"), strict=True):
        assert "unset NUMBA_DISABLE_JIT" in line and instead in line
