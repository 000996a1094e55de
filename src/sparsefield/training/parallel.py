"""Several processes that train as one: they share each batch, and sum the gradients.

Every process holds the whole state and makes the same steps. It computes its own rows of a batch,
which is a function of the seed and the step alone, so the number of processes changes nothing
but the order of sums. The first process leads: it alone writes the run and prints.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sparsefield.core.errors import InputError
from sparsefield.core.launch import launched, leads

# The leader may plot or write to a slow disk while the others wait.
PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Group:
    """The processes of a run; one alone by default.

    Attributes:
        rank: Number of this process; 0 leads.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Return which of `count` rows or items are this process's: as many as for any other."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def check_batch(self, batch_size: int) -> None:
        """Refuse batches in which some process would have no row.

        Raises:
            InputError: There are fewer rows than processes.
        """
        if batch_size < self.size:
            raise InputError(
                f"batch_size={batch_size} leaves some of {self.size} processes without a field; "
                f"set batch_size={self.size} or more, or start at most {batch_size} processes"
            )

    def gather(self, thing: Any) -> list[Any]:
        """Return what each process has, in their order."""
        if self.size == 1:
            return [thing]
        things = [None] * self.size
        with _partners():
            dist.all_gather_object(things, thing)
        return things

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set in some process."""
        if self.size == 1:
            return flag
        shared = torch.tensor(float(flag))
        with _partners():
            dist.all_reduce(shared, dist.ReduceOp.MAX)
        return bool(shared)

    def add_gradients(self, weights: Iterable[nn.Parameter], loss: Tensor) -> float:
        """Give each weight the sum of its gradients in all processes; return that of the losses.

        A weight without a gradient in any process still has none.
        """
        if self.size == 1:
            return float(loss)
        weights = list(weights)
        present = torch.tensor([w.grad is not None for w in weights])
        parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        extra = torch.cat([loss.detach().reshape(1).cpu(), present]).to(parts[0])
        flat = torch.cat([extra, *(part.flatten() for part in parts)])
        with _partners():
            dist.all_reduce(flat)
        total, counts, sums = flat.split([1, len(weights), len(flat) - len(extra)])
        pieces = sums.split([w.numel() for w in weights])
        for weight, count, piece in zip(weights, counts.tolist(), pieces, strict=True):
            weight.grad = piece.view_as(weight) if count else None
        return float(total)

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the leader's tensors.

        Processors of different kinds round differently; this keeps that from adding up.
        """
        if self.size == 1:
            return
        for tensor in tensors:
            with _partners():
                dist.broadcast(tensor.detach(), src=0)

    def score(
        self, count: int, score: Callable[[range], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Return scores (N,) of `count` items, of which each process computes a share."""
        if count < self.size:
            return dict(score(range(count)))
        parts = self.gather(score(self.share(count)))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def check_same(self, what: str, thing: Any) -> None:
        """Check that all processes have the same.

        Raises:
            InputError: One has something else.
        """
        first, *others = self.gather(thing)
        for rank, other in enumerate(others, 1):
            if other != first:
                raise InputError(
                    f"{what} of process {rank} differ from those of process 0; all need the same "
                    "command, data and run folder, on a disk that their machines share"
                )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Go on after a block only if no process was refused in it.

        Raises:
            InputError: One was; all raise the error of the first.
        """
        error: InputError | None = None
        try:
            yield
        except InputError as raised:
            error = raised
        if self.size == 1 and error is not None:
            raise error
        messages = self.gather(None if error is None else str(error))
        first = next((message for message in messages if message is not None), None)
        if first is not None:
            raise InputError(first) from error


@contextmanager
def join(device: str) -> Iterator[Group]:
    """Join the processes that torchrun started with this one; alone if it did not.

    Args:
        device: Where the processes compute, see `choose_device`. On CUDA each takes one GPU.

    Raises:
        InputError: A machine has fewer GPUs than processes, or the others are not reached.
        SystemExit: In a process that does not lead, for an error that the leader raises too.
    """
    if not launched():
        yield Group()
        return
    with _initialised(device):
        group = Group(dist.get_rank(), dist.get_world_size())
        try:
            yield group
        except InputError:
            if group.leads:
                raise
            raise SystemExit(2) from None


@contextmanager
def quiet_followers() -> Iterator[None]:
    """Print only in the process that leads."""
    if leads():
        yield
        return
    for name in ("sparsefield", "sparsefield.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextmanager
def _initialised(device: str) -> Iterator[None]:
    """Hold torch's process group, or use the caller's."""
    if dist.is_initialized():
        yield
        return
    backend = "gloo"
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        _take_gpu(int(os.environ.get("LOCAL_RANK", 0)))
        backend = "cpu:gloo,cuda:nccl"
    with _partners():
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _take_gpu(number: int) -> None:
    count = torch.cuda.device_count()
    if number >= count:
        raise InputError(
            f"process {number} of this machine finds {count} GPUs; start at most as many with "
            "--nproc-per-node, or set device=cpu"
        )
    torch.cuda.set_device(number)


@contextmanager
def _partners() -> Iterator[None]:
    """Say in one line that another process has gone."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            "another process of this run has ended or is not reached; its own message says why; "
            "the same command resumes from the last saved state"
        ) from error
