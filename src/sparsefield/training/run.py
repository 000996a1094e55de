"""The folder of a training run: its files, its log and the process that works in it."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparsefield.core.errors import InputError
from sparsefield.core.files import write_text
from sparsefield.training.config import TrainConfig, config_from_dict, config_to_dict, follow_run

RUNS = Path("runs")


class Run:
    """A run folder.

    Args:
        folder: Where the run lives; made when something is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_file = folder / "config.json"
        self.metrics_file = folder / "metrics.jsonl"
        self.resume_file = folder / "resume.safetensors"
        self.best = folder / "best.safetensors"
        self.latest = folder / "latest.safetensors"
        self.pid_file = folder / "pid"
        self.log_file = folder / "train.log"

    @property
    def name(self) -> str:
        """Name that the runs command lists."""
        return self.folder.name

    def epoch(self, number: int) -> Path:
        """Return the checkpoint kept after an epoch, counted from 1."""
        return self.folder / f"epoch_{number:04d}.safetensors"

    def figure(self, epoch: int) -> Path:
        """Return the figure drawn after an epoch, counted from 1."""
        return self.folder / f"epoch_{epoch:04d}.png"

    def exists(self) -> bool:
        """Tell whether a run was started here."""
        return self.config_file.is_file()

    def read_config(self) -> TrainConfig:
        """Return the settings of the run.

        Raises:
            InputError: There is no run here, or its settings are damaged.
        """
        try:
            return config_from_dict(json.loads(self.config_file.read_text()))
        except FileNotFoundError:
            raise InputError(f"no run at {self.folder}: it has no config.json") from None
        except json.JSONDecodeError as error:
            raise InputError(f"{self.config_file} is damaged: {error}") from error

    def write_config(self, config: TrainConfig) -> None:
        """Write the settings, or check that a resumed run has the same.

        Raises:
            InputError: A run with other settings lives here.
        """
        if self.exists():
            recorded = self.read_config()
            _check_same(recorded, follow_run(config, recorded), self.folder)
        else:
            write_text(self.config_file, json.dumps(config_to_dict(config), indent=2) + "\n")

    def append_metrics(self, **values: Any) -> None:
        """Append one line to metrics.jsonl.

        Raises:
            InputError: The line cannot be written.
        """
        try:
            with self.metrics_file.open("a") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self.metrics_file}: {error.strerror}") from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; a half-written last line is left out."""
        if not self.metrics_file.is_file():
            return []
        lines = []
        for line in self.metrics_file.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return lines

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines after `step`, which a resumed run will write again."""
        if self.metrics_file.is_file():
            kept = [line for line in self.read_metrics() if line["step"] <= step]
            write_text(self.metrics_file, "".join(json.dumps(line) + "\n" for line in kept))

    def pid(self) -> int | None:
        """Return the process that is training here, if one is alive."""
        try:
            pid = int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if _is_alive(pid) else None

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            InputError: Another process is training here.
        """
        owner = self.pid()
        if owner is not None and owner != os.getpid():
            raise InputError(
                f"process {owner} is already training in {self.folder}; "
                f"'sparsefield stop {self.folder}' ends it"
            )
        write_text(self.pid_file, str(os.getpid()))
        try:
            yield
        finally:
            self.pid_file.unlink(missing_ok=True)

    def stop(self, patience: float = 30.0) -> bool:
        """Ask the training process to save and end, and end it if it does not in `patience` s.

        Returns:
            Whether a process was running.
        """
        pid = self.pid()
        if pid is None:
            return False
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while _is_alive(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.1)
        self.pid_file.unlink(missing_ok=True)
        return True


def find_runs(root: Path = RUNS) -> list[Run]:
    """Return the runs below a folder, by name."""
    return [Run(path.parent) for path in sorted(root.glob("*/config.json"))]


def _is_alive(pid: int) -> bool:
    """Tell whether a process exists and has not merely been left unreaped by its parent."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{pid}/stat")
    return not (status.is_file() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def _check_same(old: TrainConfig, new: TrainConfig, folder: Path) -> None:
    before, after = _flatten(config_to_dict(old)), _flatten(config_to_dict(new))
    changed = [
        f"{key} {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    if changed:
        raise InputError(
            f"{folder} holds a run with other settings ({'; '.join(changed)}); "
            "repeat its settings to resume, or choose another --run folder"
        )


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.dumps(value)
    return flat
