"""Compile kernels with numba and keep them on disk: one way for all kernels of the package.

numba's own cache notices a change in the file of a function, not in the files of the functions it
calls; and where it finds no directory to write to, or a damaged file, it raises. Here every kernel
is compiled anew when any source of a kernel changes, and a cache that cannot be used costs time
only.
"""

import logging
import os
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numba
from numba import njit
from numba.core.caching import FunctionCache, NullCache

from sparsefield.core.errors import InputError

# NUMBA_DISABLE_JIT turns numba off, and with it all kernels that are written on vectors
AVAILABLE = not numba.config.DISABLE_JIT

_log = logging.getLogger(__name__)


def compiled(function: Callable[..., Any], *, fastmath: bool = False) -> Any:
    """Compile an entry point on its first call, free of the interpreter lock, kept on disk.

    Args:
        function: What numba can compile.
        fastmath: Let sums be reordered, and NaN be anything.
    """
    kernel = njit(nogil=True, fastmath=fastmath)(function)
    if AVAILABLE:
        kernel._cache = _cache_of(function)
    return kernel


def require_numba(what: str, instead: str) -> None:
    """Refuse to run a kernel that numba may not compile.

    Raises:
        InputError: NUMBA_DISABLE_JIT is set.
    """
    if not AVAILABLE:
        raise InputError(f"{what} is compiled by numba: unset NUMBA_DISABLE_JIT, or {instead}")


def _cache_of(function: Callable[..., Any]) -> Any:
    """Return a cache on disk, or none where no directory can be written."""
    try:
        return _SourceCache(function) if _has_place(function) else _NoCache()
    except (RuntimeError, OSError):
        return _NoCache()


def _has_place(function: Callable[..., Any]) -> bool:
    """Tell whether numba would find a directory, or make one called '~' where it is started."""
    if os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME"):
        return True
    return os.path.isabs(os.path.expanduser("~")) or _can_write_beside(function)


def _can_write_beside(function: Callable[..., Any]) -> bool:
    folder = Path(function.__code__.co_filename).parent / "__pycache__"
    try:
        folder.mkdir(exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


class _SourceCache(FunctionCache):  # type: ignore[misc]
    """A cache whose key holds the sources of all kernels; no fault of it reaches the caller."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), _fingerprint())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function, or None where there is none that can be read."""
        try:
            found = super().load_overload(sig, target_context)
        except Exception as error:  # what a damaged file can raise has no bounds
            _say(f"cannot read compiled kernels in {self.cache_path}: {error!r}")
            found = None
            self._try(self.flush)
        if found is None:
            _say("compiling kernels for this processor, once; takes seconds", logging.WARNING)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the compiled function, where that is possible."""
        self._try(lambda: super(_SourceCache, self).save_overload(sig, data))

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
        except Exception as error:  # a full disk, a directory that is gone
            _say(f"cannot keep compiled kernels in {self.cache_path}: {error!r}")


class _NoCache(NullCache):  # type: ignore[misc]
    """Nothing is kept: every process compiles what it calls."""

    def load_overload(self, sig: Any, target_context: Any) -> None:
        """Find nothing, and say why this takes a while."""
        _say(
            "compiling kernels for this process only, since no directory for them can be "
            "written; takes seconds (NUMBA_CACHE_DIR names a directory)",
            logging.WARNING,
        )


@cache
def _say(message: str, level: int = logging.INFO) -> None:
    """Log a message once in a process."""
    _log.log(level, message)


@cache
def _fingerprint() -> str:
    """Return a hash of all files below this folder that hold kernels or what they call."""
    digest = sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        source = path.read_bytes()
        if b"numba" in source:
            digest.update(source)
    return digest.hexdigest()
