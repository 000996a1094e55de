"""Work on many items in worker processes, a part of them at a time."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

Result = TypeVar("Result")


def share_out(
    work: Callable[[range], Result], parts: Sequence[range], processes: int | None = 1
) -> Iterator[tuple[range, Result]]:
    """Yield parts and what the work returns for each, as they are done.

    Args:
        work: What to do with a part; picklable for more than one process.
        parts: Ranges of items.
        processes: Worker processes; one per core if None. One part needs no other process.
    """
    count = min(processes or os.cpu_count() or 1, len(parts))
    if count <= 1:
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
    import torch

    torch.set_num_threads(1)
    _adopted.append(work)


def _work_on(items: range) -> Any:
    return _adopted[0](items)
