"""Measure the scan's backends beside a bound: the exponentials that none of them can do without.

    python experiments/bench_scan.py --threads 2 --json results/scan.json

Options are those of `sparsefield bench scan`.
"""

import sys
from typing import Any

import torch
from numba import njit
from torch import Tensor

from sparsefield.cli import main
from sparsefield.nn.scan.cpu.layout import CHUNK, VECTOR
from sparsefield.nn.scan.cpu.simd import LANES, exp2, load, store
from sparsefield.nn.scan.cpu.threads import finish, run_in_threads, take_range, take_worker
from sparsefield.profiling.scans import PEERS


class _Exponentials(torch.autograd.Function):
    """One exponential per state and token and nothing else, once more in the backward.

    Nothing that computes decays from step sizes, and again in the backward, can be faster.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, states: int) -> Tensor:
        ctx.states = states
        _exponentiate(u.numel() * states)
        return u.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        _exponentiate(dy.numel() * ctx.states)
        return dy, None


def _exponentiate(count: int) -> None:
    scratch = torch.zeros(torch.get_num_threads(), CHUNK * LANES)
    run_in_threads(_repeat_exp2, count // (CHUNK * LANES), scratch.data_ptr(), memory=scratch)


@njit(nogil=True)
def _repeat_exp2(queue: Any, scratch: int) -> None:
    """Replace a row of vectors in the first cache by its powers of two, once for every task."""
    address = scratch + take_worker(queue) * CHUNK * VECTOR
    start, stop = take_range(queue)
    while start < stop:
        for _ in range(start, stop):
            for i in range(CHUNK):
                store(address + i * VECTOR, exp2(load(address + i * VECTOR)))
        finish(queue, stop - start)
        start, stop = take_range(queue)


# At import, for the processes in which memory is measured import this script too.
PEERS["exponentials"] = lambda u, A, **others: _Exponentials.apply(u, A.shape[1])

if __name__ == "__main__":
    sys.exit(main(["bench", "scan", *sys.argv[1:]]))
