"""Who a process is: a number alone is given to strangers once its process has ended."""

import contextlib
import os
import platform
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(r"([0-9a-f]{1,16})-([0-9]{1,10})-([0-9]{1,20})")


@dataclass(frozen=True)
class Process:
    """One process of one machine.

    Attributes:
        machine: Hash of the machine's name and the space in which its process numbers hold.
        pid: Number of the process, above 0.
        started: When it started, in the clock ticks of /proc; 0 where there is no /proc.
    """

    machine: int
    pid: int
    started: int

    @classmethod
    def current(cls) -> "Process":
        """Return the process that asks."""
        return cls(_machine(), os.getpid(), _started(os.getpid()) or 0)

    @classmethod
    def parse(cls, text: str) -> "Process | None":
        """Return the process that `str` described, or None for anything else."""
        found = _TOKEN.fullmatch(text)
        if found is None or not 0 < int(found[2]) < 2**31:
            return None
        return cls(int(found[1], 16), int(found[2]), int(found[3]))

    def __str__(self) -> str:
        """Describe the process in a form that `parse` reads and a file name can hold."""
        return f"{self.machine:08x}-{self.pid}-{self.started}"

    @property
    def here(self) -> bool:
        """Whether it belongs to this machine."""
        return self.machine == _machine()

    @property
    def alive(self) -> bool:
        """Whether it runs; of a process of another machine nobody here can tell, so True."""
        if not self.here:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        started = _started(self.pid)
        return started is not None and (0 in (started, self.started) or started == self.started)


def _machine() -> int:
    """Return a hash of this machine's name and its space of process numbers."""
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return zlib.crc32(f"{platform.node()} {space}".encode())


def _started(pid: int) -> int | None:
    """Return when a process started, 0 where there is no /proc; None if it has ended."""
    if not Path("/proc/self/stat").exists():
        return 0
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if status[0] == "Z" else int(status[19])
