"""Work in a process of its own, which can be ended at any moment."""

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from sparsefield.core.errors import InputError

POLL = 0.05  # seconds
# A fresh interpreter: threads of torch do not survive a fork.
_CONTEXT = multiprocessing.get_context("spawn")


class Aside:
    """A process that calls one function after the other.

    It starts with the first call and goes on to the next. It ends with its owner, with `close`,
    or when the owner loses interest in a call.
    """

    def __init__(self) -> None:
        self._process: Any = None
        self._ours: Connection | None = None
        self._lock = threading.Lock()

    def call(self, check: Callable[[], None], function: Callable[..., Any], *args: Any) -> Any:
        """Return what a function of a module returns there.

        Args:
            check: Called many times a second; what it raises ends the process.
            function: What to call.
            args: Its arguments.

        Raises:
            InputError: The process was ended from outside, as for want of memory.
        """
        with self._lock:
            try:
                good, answer = self._ask(check, (function, args))
            except BaseException:
                self._end()
                raise
        if good:
            return answer
        raise answer

    def close(self) -> None:
        """End the process, whatever it does."""
        self._end()

    def _ask(self, check: Callable[[], None], question: Any) -> tuple[bool, Any]:
        try:
            ours = self._connection()
            ours.send(question)
            while not ours.poll(POLL):
                check()
            answer: tuple[bool, Any] = ours.recv()
        except (EOFError, ConnectionError) as error:
            raise InputError("the work was ended from outside; is there enough memory?") from error
        return answer

    def _connection(self) -> Connection:
        if self._ours is None or not self._process.is_alive():
            self._end()
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._process, self._ours = process, ours
        return self._ours

    def _end(self) -> None:
        process, ours, self._process, self._ours = self._process, self._ours, None, None
        if process is not None:
            process.kill()
            process.join()
        if ours is not None:
            ours.close()


def _serve(theirs: Connection) -> None:
    """Answer until the owner has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            function, args = theirs.recv()
            theirs.send(_outcome(function, args))


def _outcome(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return True, function(*args)
    except (InputError, MemoryError) as error:
        return False, error
    except Exception as error:  # not every exception can be sent
        return False, RuntimeError(f"{type(error).__name__}: {error}")
