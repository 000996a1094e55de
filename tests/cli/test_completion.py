"""Completion: what a shell offers for what is typed."""

import shutil
import subprocess

import pytest

from sparsefield.cli import COMMANDS, main
from sparsefield.cli.completion import SHELLS

# Complete the last of the words as bash does on Tab, and print what it would offer.
ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p sparsefield | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" sparsefield "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        with (folder / shell).open("w") as file, pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdout", file)
            assert main(["--completion", shell]) == 0
    return folder


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_the_script(scripts, shell):
    text = (scripts / shell).read_text()
    assert all(name in text for name in COMMANDS)
    assert all(option in text for option in ("density", "baselines", "host"))
    program = shutil.which(shell)
    if program:
        check = "--no-execute" if shell == "fish" else "-n"
        assert subprocess.run([program, check, scripts / shell]).returncode == 0


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash on this machine")
@pytest.mark.parametrize(
    ("words", "offers"),
    [
        (["tr"], {"train"}),
        (["mo"], {"models", "monitor"}),
        (["serve", "--po"], {"--port"}),
        (["evaluate", "--"], {"--data", "--baselines", "--json"}),
    ],
)
def test_bash_offers_what_fits(scripts, words, offers):
    done = subprocess.run(
        ["bash", "-c", ASK, "ask", scripts / "bash", "sparsefield", *words],
        capture_output=True,
        text=True,
    )
    found = set(done.stdout.split())
    assert offers <= found, done.stderr
    assert all(each.startswith(words[-1]) for each in found)


@pytest.mark.parametrize("shell", [[], ["powershell"]])
def test_other_shells_are_refused(shell, capsys):
    assert main(["--completion", *shell]) == 2
    assert "bash" in capsys.readouterr().err
