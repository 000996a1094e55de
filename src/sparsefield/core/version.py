"""Which version of the code is running."""

import subprocess
from pathlib import Path

import sparsefield


def code_version() -> str:
    """Return the git commit of the package's checkout, "-dirty" if changed, else the version."""
    folder = Path(sparsefield.__file__).parent
    # A repository around an installed copy, such as a user's own, does not track its files.
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    commit = tracked and _git(
        folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"
    )
    return commit or sparsefield.__version__


def _git(folder: Path, *arguments: str) -> str:
    """Return the output of a git command, empty if it fails or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
