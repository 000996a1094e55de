"""The folder of a training run: its files, its log and the process that works in it."""

import contextlib
import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sparsefield.core.errors import InputError
from sparsefield.core.files import (
    dump_json,
    load_json,
    parse_json,
    remove_temporaries,
    write_json,
    write_text,
)
from sparsefield.core.locks import FileLock
from sparsefield.core.processes import Process
from sparsefield.training.config import TrainConfig, config_from_dict, config_to_dict

RUNS = Path("runs")


class Owner(NamedTuple):
    """Who holds a run.

    Attributes:
        process: The process; None if the lock does not say.
        host: Name of its machine.
    """

    process: Process | None
    host: str


class Run:
    """A run folder.

    The process that trains in it holds the lock of the file `lock` as long as it lives. The lock
    alone says whether somebody trains; what the file holds says whom to signal.

    Args:
        folder: Where the run lives; made when something is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_file = folder / "config.json"
        self.metrics_file = folder / "metrics.jsonl"
        self.history_file = folder / "history.jsonl"
        self.resume_file = folder / "resume.safetensors"
        self.best = folder / "best.safetensors"
        self.latest = folder / "latest.safetensors"
        self.lock_file = folder / "lock"
        self.log_file = folder / "train.log"

    @property
    def name(self) -> str:
        """Name that the runs command lists."""
        return self.folder.name

    def epoch(self, number: int) -> Path:
        """Return the checkpoint kept after an epoch, counted from 1."""
        return self.folder / f"epoch_{number:04d}.safetensors"

    def figure(self, epoch: int) -> Path:
        """Return the figure plotted after an epoch, counted from 1."""
        return self.folder / f"epoch_{epoch:04d}.png"

    def exists(self) -> bool:
        """Tell whether a run was started here."""
        return self.config_file.is_file()

    def has_results(self) -> bool:
        """Tell whether a run left a state or weights here, which another start must not lose."""
        return any(path.is_file() for path in (self.resume_file, self.best, self.latest))

    def read_config(self) -> TrainConfig:
        """Return the settings of the run.

        Raises:
            InputError: There is no run here, or its settings are damaged.
        """
        try:
            data = load_json(self.config_file)
        except FileNotFoundError:
            raise InputError(f"no run at {self.folder}: it has no config.json") from None
        try:
            return config_from_dict(data)
        except InputError as error:
            raise InputError(f"{self.config_file}: {error}") from error

    def write_config(self, config: TrainConfig) -> None:
        """Write the settings of the run.

        Raises:
            InputError: The file cannot be written.
        """
        write_json(self.config_file, config_to_dict(config))

    def append_history(self, **values: Any) -> None:
        """Append a line to history.jsonl, which has one for every start.

        Raises:
            InputError: The line cannot be written.
        """
        _drop_half_line(self.history_file)
        _append(self.history_file, values)

    def read_history(self) -> list[dict[str, Any]]:
        """Return one entry per start: process, step, environment and what changed.

        Raises:
            InputError: A line is damaged.
        """
        return _read_lines(self.history_file)

    def append_metrics(self, **values: Any) -> None:
        """Append one line to metrics.jsonl.

        Raises:
            InputError: The line cannot be written.
        """
        _append(self.metrics_file, values)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; a half-written last line is left out.

        Raises:
            InputError: A line is damaged.
        """
        lines = _read_lines(self.metrics_file)
        for number, line in enumerate(lines, 1):
            for key, value in line.items():
                if not _is_number(value, whole=key in ("step", "epoch")):
                    raise _damaged(self.metrics_file, number, f"{key} is {value!r}")
            if not {"step", "epoch"} <= line.keys():
                raise _damaged(self.metrics_file, number, "it has no step or no epoch")
        return lines

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines after `step`, which a resumed run will write again.

        Raises:
            InputError: A line is damaged, or the file cannot be written.
        """
        if self.metrics_file.is_file():
            kept = [line for line in self.read_metrics() if line["step"] <= step]
            write_text(self.metrics_file, "".join(dump_json(line) + "\n" for line in kept))

    def owner(self) -> Owner | None:
        """Return who is training here, if somebody is."""
        content = FileLock.content(self.lock_file)
        if content is None:
            return None
        process, _, host = content.partition(" ")
        return Owner(Process.parse(process), host.strip() or "an unknown machine")

    def pid(self) -> int | None:
        """Return the number of the process that is training here, if there is one and it says."""
        owner = self.owner()
        return owner.process.pid if owner is not None and owner.process is not None else None

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the run for this process; of several that want it, one gets it.

        Raises:
            InputError: Another process is training here.
        """
        lock = FileLock(self.lock_file)
        if not lock.acquire(f"{Process.current()} {platform.node()}\n"):
            pid = self.pid()
            who = "somebody" if pid is None else f"process {pid}"
            raise InputError(
                f"{who} is already training in {self.folder}; "
                f"'sparsefield stop {self.folder}' ends it"
            )
        try:
            remove_temporaries(self.folder)
            yield
        finally:
            lock.release()
            with contextlib.suppress(OSError):
                self.folder.rmdir()  # that of a start that was refused is empty

    def stop(self, timeout: float = 30.0) -> bool:
        """Ask the training process to save and end, and end it if it does not in `timeout` s.

        Returns:
            Whether a process was training.

        Raises:
            InputError: It is on another machine, this process itself, that of another user, or
                the lock does not say which.
        """
        owner = self.owner()
        if owner is None:
            return False
        process = self._stoppable(owner)
        self._signal(process, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while self.owner() == owner and process.alive:
            if time.monotonic() > deadline:
                self._signal(process, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.05)
        return True

    def _stoppable(self, owner: Owner) -> Process:
        process = owner.process
        if process is None:
            raise InputError(
                f"somebody trains in {self.folder}, but {self.lock_file} is damaged and does not "
                "say who; end that process by hand"
            )
        if not process.here:
            raise InputError(
                f"{self.folder} is trained by process {process.pid} of {owner.host}; "
                f"run 'sparsefield stop {self.folder}' there"
            )
        if process.pid == os.getpid():
            raise InputError(f"{self.folder} is trained by this process itself; interrupt it")
        return process

    def _signal(self, process: Process, number: signal.Signals) -> None:
        """Send a signal to the process that holds the run, and to no other with its number."""
        try:
            with _handle(process.pid) as send:
                owner = self.owner()
                if owner is not None and owner.process == process and process.alive:
                    send(number)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            raise InputError(
                f"process {process.pid}, which trains in {self.folder}, belongs to another user"
            ) from error


def find_runs(root: Path = RUNS) -> list[Run]:
    """Return the runs below a folder, by name."""
    return [Run(path.parent) for path in sorted(root.glob("*/config.json"))]


@contextmanager
def _handle(pid: int) -> Iterator[Any]:
    """Hold on to a process while it is checked, so that its number cannot change hands."""
    if not hasattr(os, "pidfd_open"):
        yield lambda number: os.kill(pid, number)
        return
    handle = os.pidfd_open(pid)
    try:
        yield lambda number: signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)


def _append(path: Path, values: dict[str, Any]) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(dump_json(values) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file, one per line, but for a last line without an end."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    *whole, _ = text.split("\n")
    lines = [parse_json(line, f"{path} line {n}") for n, line in enumerate(whole, 1)]
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict):
            raise _damaged(path, number, "it is no object")
    return lines


def _is_number(value: Any, whole: bool) -> bool:
    """Tell whether a value is a number of this file; one that was not finite is None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**63
    return not whole and isinstance(value, float | None)


def _drop_half_line(path: Path) -> None:
    """Cut off a last line that a killed process left without its end."""
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def _damaged(path: Path, number: int, reason: str) -> InputError:
    return InputError(f"{path} line {number} is damaged: {reason}; delete the line")
