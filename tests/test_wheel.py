"""What is installed from a wheel is the whole package."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command, cwd, **more):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | more,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel with an environment of its own, as pip does for users."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT, cwd=folder)
    (found,) = folder.glob("sparsefield-*.whl")
    return found


def test_the_wheel_holds_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("sparsefield/")}
    tracked = run("git", "ls-files", "src/sparsefield", cwd=ROOT).split()
    assert packed == {name.removeprefix("src/") for name in tracked}


def test_the_demo_runs_in_an_empty_environment(wheel, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    constraints = ("-c", ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", "-q", *constraints, f"{wheel}[demo,web]", cwd=tmp_path)
    sparsefield = python.with_name("sparsefield")
    assert "default" in run(sparsefield, "models", cwd=tmp_path)
    run(sparsefield, "demo", cwd=tmp_path, MPLBACKEND="Agg")
    made = [path for path in tmp_path.rglob("*.png") if "env" not in path.parts]
    assert made
    script = "import sparsefield as sf; [sf.load(name) for name in ('default', 'universal')];"
    script += "from sparsefield.web.app import STATIC, build_app; build_app(); print(STATIC)"
    where = Path(run(python, "-c", script, cwd=tmp_path).strip())
    assert (where / "index.html").is_file() and tmp_path in where.parents
