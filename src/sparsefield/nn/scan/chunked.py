"""The recurrence in plain PyTorch, chunk after chunk: any device, memory linear in the length."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sparsefield.nn.scan.shared import ScanInputs, initial_state, skip_and_gate, step_sizes

CHUNK = 16


def scan_chunked(x: ScanInputs) -> tuple[Tensor, Tensor]:
    """Return y (B, L, D) and the last state (B, D, N), recomputing each chunk in the backward.

    No tensor of shape (B, L, D, N) exists: only the states between chunks are kept.
    """
    steps, h = step_sizes(x), initial_state(x)
    tokens = [steps, steps * x.u.to(steps), x.B.to(steps), x.C.to(steps)]
    if x.reverse:
        tokens = [t.flip(1) for t in tokens]
    A = x.A.to(steps)
    outputs: list[Tensor] = []
    for chunk in zip(*(t.split(CHUNK, dim=1) for t in tokens), strict=True):
        y, h = checkpoint(_scan_chunk, *chunk, A, h, use_reentrant=False, preserve_rng_state=False)
        outputs.append(y)
    y = torch.cat(outputs, dim=1)
    return skip_and_gate(y.flip(1) if x.reverse else y, x), h


def _scan_chunk(
    steps: Tensor, drive: Tensor, B: Tensor, C: Tensor, A: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """Scan one chunk by doubling: after pass i every token has the sum over its last 2^i tokens.

    Decays are only ever multiplied, never divided by, so that no step size can overflow.
    """
    decay = torch.exp(steps[..., None] * A)  # (B, T, D, N)
    state = drive[..., None] * B[:, :, None, :]
    state = torch.cat([state[:, :1] + decay[:, :1] * h[:, None], state[:, 1:]], dim=1)
    reach = 1
    while reach < state.shape[1]:
        earlier = F.pad(state[:, :-reach], (0, 0, 0, 0, reach, 0))
        state = torch.addcmul(state, decay, earlier)
        decay = decay * F.pad(decay[:, :-reach], (0, 0, 0, 0, reach, 0), value=1.0)
        reach *= 2
    return torch.einsum("btdn,btn->btd", state, C), state[:, -1]
