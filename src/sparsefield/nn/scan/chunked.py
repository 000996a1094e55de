"""The recurrence in plain PyTorch, chunk after chunk: any device, memory linear in the length."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    y, h = _ChunkedScan.apply(*tokens, x.A.to(steps), h)
    return skip_and_gate(y.flip(1) if x.reverse else y, x), h


class _ChunkedScan(torch.autograd.Function):
    """The recurrence of steps, drive, B, C, A and h0, differentiated one chunk at a time."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        *tokens, A, h = inputs
        outputs, states = [], [h]
        for chunk in _chunks(tokens):
            y, h = _scan_chunk(A, h, *chunk)
            outputs.append(y)
            states.append(h)
        ctx.save_for_backward(*tokens, A, *states[:-1])
        return torch.cat(outputs, dim=1), h.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor) -> tuple[Tensor, ...]:
        *tokens, A = ctx.saved_tensors[:5]
        states, dA = ctx.saved_tensors[5:], torch.zeros_like(A)
        pieces = list(zip(_chunks(tokens), states, dy.split(CHUNK, dim=1), strict=True))
        parts = []
        for chunk, h, dy_chunk in reversed(pieces):
            with torch.enable_grad():
                leaves = [t.detach().requires_grad_() for t in (A, h, *chunk)]
                results = _scan_chunk(*leaves)
            dA_chunk, dh, *d_chunk = torch.autograd.grad(results, leaves, (dy_chunk, dh))
            dA += dA_chunk
            parts.append(d_chunk)
        d_tokens = [torch.cat(part[::-1], dim=1) for part in zip(*parts, strict=True)]
        return (*d_tokens, dA, dh)


def _chunks(tokens: list[Tensor]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(t.split(CHUNK, dim=1) for t in tokens), strict=True))


def _scan_chunk(
    A: Tensor, h: Tensor, steps: Tensor, drive: Tensor, B: Tensor, C: Tensor
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
