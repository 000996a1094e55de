"""The version of the code that reports name."""

import subprocess

from sparsefield.core import version


def test_code_version_is_a_commit_only_in_a_checkout_of_the_package(tmp_path, monkeypatch):
    package = tmp_path / "sparsefield"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(version.sparsefield, "__file__", str(package / "__init__.py"))
    number = version.sparsefield.__version__
    assert version.code_version() == number

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "start")
    assert version.code_version() == number
    git("add", ".")
    git("commit", "-q", "-m", "package")
    assert len(version.code_version()) == 40
    (package / "__init__.py").write_text("changed = 1\n")
    assert version.code_version().endswith("-dirty")
