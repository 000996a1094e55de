"""Scripts that let a shell complete commands and options."""

import contextlib
import importlib
import io

from sparsefield.core.errors import InputError, unknown_name

SHELLS = ("bash", "zsh", "fish")


def completion(shell: str, commands: dict[str, str]) -> str:
    """Return a script that completes the command line, made by tyro.

    Args:
        shell: One of `SHELLS`.
        commands: Module in this package by the name of its command.

    Raises:
        InputError: The shell is not one of them.
    """
    if not shell:
        raise InputError(f"name a shell after --completion: {', '.join(SHELLS)}")
    if shell not in SHELLS:
        raise unknown_name("shell", shell, list(SHELLS))
    import tyro

    package = "sparsefield.cli"
    functions = {
        name: importlib.import_module(f"{package}.{module}").command
        for name, module in commands.items()
    }
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(
            functions,
            prog="sparsefield",
            config=(tyro.conf.FlagCreatePairsOff,),
            args=["--tyro-print-completion", shell],
        )
    return "".join(map(_one_line_each, script.getvalue().splitlines(keepends=True)))


def _one_line_each(line: str) -> str:
    """Unwrap descriptions, whose second lines a shell would offer as options."""
    return line.replace("\\n", " ") if line.startswith("COMPLETION_SPEC = ") else line
