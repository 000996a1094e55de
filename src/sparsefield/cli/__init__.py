"""The command line: one module per command, imported only when that command runs."""

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import io
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.core.launch import leads, refuse_several
from sparsefield.core.paths import refuse_overwriting

# Command -> (module here that defines `command`, its line in the help).
COMMANDS = {
    "demo": ("demo", "reconstruct real photographs from 20 % of their pixels"),
    "train": ("train", "train a model; the same command again resumes"),
    "runs": ("runs", "list training runs"),
    "monitor": ("monitor", "show how a run is doing"),
    "stop": ("stop", "save a run and end its process"),
    "reconstruct": ("reconstruct", "reconstruct an image or a table of points"),
    "place": ("place", "choose where to measure next"),
    "evaluate": ("evaluate", "score a model, or the baselines alone, on a data set"),
    "superres": ("superres", "score a model against truth finer than what it observes"),
    "compare": ("compare", "compare models and baselines on identical masks and noise"),
    "masks": ("masks", "verify the masks of the evaluation protocol"),
    "bench": ("bench", "measure time and memory of scan backends, models and larger grids"),
    "serve": ("serve", "open a page in the browser to observe, reconstruct and compare"),
    "models": ("models", "list models, presets and bundled weights"),
}

# What the processes of torchrun do as one.
TOGETHER = ("train",)

# Options that name what is written; all others name what is read, if it is a file.
OUTPUTS = ("out", "json", "figure", "figures", "run")
# Options that may name a folder whose files are read.
FOLDERS = ("data", "model", "models")

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
PATIENCE = 5.0  # seconds in which a leader meets the error of the others, and torchrun ends them


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; what a user can cause becomes one line on stderr."""
    _print_anything()
    _forget_missing_backend()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except SystemExit as ended:
        if ended.code:
            _leave_to_leader()
        raise
    except InputError as error:
        code = _complain(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        code = _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        code = FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _complain(where + (error.strerror or str(error)), BAD_INPUT)
    _abandon_broken_output()
    return code


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        _say(_help())
        return 0
    name, *rest = arguments
    if name == "--version":
        _say(_version())
        return 0
    if name == "--completion":
        from sparsefield.cli.completion import completion

        modules = {name: module for name, (module, _) in COMMANDS.items()}
        _say(completion(rest[0] if rest else "", modules))
        return 0
    if name not in COMMANDS:
        raise unknown_name("command", name, list(COMMANDS))
    if name not in TOGETHER:
        refuse_several(f"'sparsefield {name}' runs")
    import tyro

    from sparsefield.cli.options import renew_words

    _show_remarks()
    module = importlib.import_module(f"sparsefield.cli.{COMMANDS[name][0]}")
    config = (tyro.conf.FlagCreatePairsOff,)
    rest = renew_words(name, rest)
    command = _guarded(module.command)
    prog = f"sparsefield {name}"
    code = tyro.cli(command, args=rest, prog=prog, config=config, console_outputs=leads())
    return int(code or 0)


def _guarded(command: Callable[..., int]) -> Callable[..., int]:
    """Return a command that refuses outputs which would overwrite one of its inputs."""
    signature = inspect.signature(command)

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> int:
        given = _options(signature.bind(*args, **kwargs).arguments)
        outputs = [each for name in OUTPUTS for each in _paths(given.get(name))]
        inputs = [each for name in given if name not in OUTPUTS for each in _paths(given[name])]
        folders = [each for name in FOLDERS for each in _paths(given.get(name))]
        refuse_overwriting(outputs, [each for each in inputs if each.is_file()] + folders)
        return command(*args, **kwargs)

    return run


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by name, with those that commands share as a dataclass one by one."""
    options: dict[str, Any] = {}
    for name, value in given.items():
        if dataclasses.is_dataclass(value):
            options |= _options(vars(value))
        else:
            options[name] = value
    return options


def _paths(value: Any) -> list[Path]:
    """Return the paths among an option's values; a name may be a path, or one after LABEL=."""
    values = value if isinstance(value, tuple) else (value,)
    found = [str(each) for each in values if isinstance(each, str | Path)]
    return [Path(part) for each in found for part in {each, each.partition("=")[2]} if part]


def _show_remarks() -> None:
    """Put what is said of how data were understood into the output, a line each."""
    handler = logging.StreamHandler(sys.stdout)
    logger = logging.getLogger("sparsefield.data")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def _forget_missing_backend() -> None:
    """Let matplotlib choose where a notebook's own backend, which children inherit, is missing.

    Otherwise a training run from a notebook of another environment would end at its first figure.
    """
    prefix, _, module = os.environ.get("MPLBACKEND", "").partition("module://")
    package = module.partition(".")[0]
    if not prefix and package and importlib.util.find_spec(package) is None:
        del os.environ["MPLBACKEND"]


def _print_anything() -> None:
    """Let outputs that know fewer characters than we print show their escapes instead."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(text: str) -> None:
    if leads():
        print(text)


def _version() -> str:
    """Return the version, with the commit in a checkout."""
    from sparsefield import __version__
    from sparsefield.core.version import code_version

    commit = code_version()
    return __version__ if commit == __version__ else f"{__version__} (commit {commit})"


def _help() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: sparsefield COMMAND ...",
            "",
            "Scattered measurements in, the whole field out.",
            "",
            *(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()),
            "",
            "'sparsefield COMMAND --help' explains a command.",
            "'sparsefield --completion bash' prints what lets a shell complete them.",
        ]
    )


def _abandon_broken_output() -> None:
    """Close an output that cannot be written, or Python complains about it again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            sys.stdout.close()


def _leave_to_leader() -> None:
    """Wait in a process that follows: what all of them meet, the first one says.

    torchrun ends the others as soon as one has failed, so who waited has an error of its own.
    """
    if not leads():
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(PATIENCE)


def _complain(message: str, code: int) -> int:
    _leave_to_leader()
    print(f"sparsefield: error: {' '.join(message.split())}", file=sys.stderr)
    return code
