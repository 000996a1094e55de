"""A file that one process holds: the operating system lets go of it when the process ends."""

import contextlib
import os
import sys
import time
from pathlib import Path

from sparsefield.core.errors import InputError

# Whoever only asks holds the lock for a moment; who wants it waits at least that long.
TRIES, SECONDS_BETWEEN = 10, 0.05


class FileLock:
    """An exclusive lock on a file, held from `acquire` to `release` or the end of the process.

    It is the `flock` of the operating system. It excludes other processes and other threads, needs
    no clean-up after a kill, and holds between machines on NFS, where Linux turns it into a lock
    that the server keeps. A file system without locks is refused. On Windows a byte range far
    behind the content is locked; nobody tests that.

    Args:
        path: The file; it is made by `acquire` and removed by `release`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self, content: str) -> bool:
        """Take the lock and write `content` to the file; return False if somebody has it.

        Raises:
            InputError: The file cannot be written or locked.
        """
        try:
            for _ in range(TRIES):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self._try(content):
                    return True
                time.sleep(SECONDS_BETWEEN)
        except OSError as error:
            raise InputError(f"cannot lock {self.path}: {error.strerror}") from error
        return False

    def _try(self, content: str) -> bool:
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its folder went, with somebody who was refused
            return False
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, file)
            if not (_lock(file) and _is_at(file, self.path)):
                return False
            os.truncate(file, 0)
            os.write(file, content.encode())
            stack.pop_all()
        self._file = file
        return True

    def release(self) -> None:
        """Remove the file, then let go of it: nobody can lock a file that is about to go."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._file)
            self._file = None

    @staticmethod
    def content(path: Path) -> str | None:
        """Return what the holder of a lock wrote into it, or None if nobody holds it."""
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            if _lock(file, shared=True) or not _is_at(file, path):
                return None
            return os.pread(file, 1000, 0).decode(errors="replace")
        except OSError:
            return None
        finally:
            os.close(file)


def _is_at(file: int, path: Path) -> bool:
    """Tell whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, shared: bool = False) -> bool:
        os.lseek(file, 2**30, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(file, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(file: int, shared: bool = False) -> bool:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
