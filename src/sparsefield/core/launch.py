"""What torchrun tells each process that it starts, known before any of them has met another."""

import os

from sparsefield.core.errors import InputError

_TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Return whether torchrun started this process."""
    return all(name in os.environ for name in _TOLD)


def leads() -> bool:
    """Return whether this process is alone, or the first of those that were started."""
    return not launched() or int(os.environ["RANK"]) == 0


def refuse_several(what: str) -> None:
    """Refuse what one process does alone.

    Raises:
        InputError: torchrun started several.
    """
    if launched() and int(os.environ["WORLD_SIZE"]) > 1:
        raise InputError(f"{what} in one process; start it without torchrun")
