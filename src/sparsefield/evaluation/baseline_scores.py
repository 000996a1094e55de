"""Which baselines run, and work shared out among processes."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import torch

from sparsefield.baselines.interpolators import BASELINES, available_baselines
from sparsefield.core.errors import InputError, unknown_name

T = TypeVar("T")


def choose_baselines(names: str, dims: int) -> list[str]:
    """Return the baselines that "all", "none" or a list "tps,kriging" stands for.

    Args:
        names: What the user asked for.
        dims: Number of coordinate dimensions P.

    Raises:
        InputError: A name is unknown or cannot run here.
    """
    if names == "none":
        return []
    if names == "all":
        return available_baselines(dims)
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in BASELINES:
            raise unknown_name("baseline", name, [*BASELINES, "all", "none"])
        if name not in available_baselines(dims):
            raise InputError(
                f"{name} cannot run here: it works in {BASELINES[name].dims} dimensions"
                f" and needs {BASELINES[name].requires or 'nothing else'}"
            )
    return chosen


def share_out(
    work: Callable[[range], T], parts: Sequence[range], processes: int | None = 1
) -> Iterator[tuple[range, T]]:
    """Yield parts and what the work returns for each, as they are done.

    Args:
        work: What to do with a part; picklable for more than one process.
        parts: Ranges of items.
        processes: Worker processes; one per core if None. One part needs no other process.
    """
    count = min(processes or os.cpu_count() or 1, len(parts))
    if count == 1:
        yield from ((part, work(part)) for part in parts)
        return
    # Spawned, because a fork of a process that has used torch's threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=_adopt, initargs=(work,)) as pool:
        futures = {pool.submit(_work_on, part): part for part in parts}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


_adopted: list[Callable[[range], Any]] = []


def _adopt(work: Callable[[range], Any]) -> None:
    """Keep a worker process's task, which holds the data, for all of its parts."""
    torch.set_num_threads(1)
    _adopted.append(work)


def _work_on(items: range) -> Any:
    return _adopted[0](items)
