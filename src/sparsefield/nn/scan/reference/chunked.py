"""The recurrence in plain PyTorch, many short chunks at a time: any device, memory linear in L.

A group of chunks is scanned in two sweeps. The first takes the tokens of all chunks side by side,
each chunk from a zero state; then the states at their ends are chained; the second adds what each
chunk inherits. Decays are only ever multiplied, never divided by, so that no step size can
overflow.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparsefield.nn.scan.shared import ScanInputs, initial_state, skip_and_gate, step_sizes

CHUNK = 16  # tokens that are scanned one after the other
GROUP = 8 * CHUNK  # tokens of which all states exist at a time


def scan_chunked(x: ScanInputs) -> tuple[Tensor, Tensor]:
    """Return y (B, L, D) and the last state (B, D, N), recomputing each group in the backward.

    No tensor of shape (B, L, D, N) exists: only the states between groups are kept.
    """
    steps, h = step_sizes(x), initial_state(x)
    tokens = [steps, steps * x.u.to(steps), x.B.to(steps), x.C.to(steps)]
    if x.reverse:
        tokens = [t.flip(1) for t in tokens]
    y, h = _GroupedScan.apply(*tokens, x.A.to(steps), h)
    return skip_and_gate(y.flip(1) if x.reverse else y, x), h


class _GroupedScan(torch.autograd.Function):
    """The recurrence of steps, drive, B, C, A and h0, differentiated one group at a time."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        *tokens, A, h = inputs
        outputs, states = [], [h]
        for group in _groups(tokens):
            y, h = _scan_group(A, h, *group)
            outputs.append(y)
            states.append(h)
        ctx.save_for_backward(*tokens, A, *states[:-1])
        return torch.cat(outputs, dim=1), h.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor) -> tuple[Tensor, ...]:
        *tokens, A = ctx.saved_tensors[:5]
        states, dA = ctx.saved_tensors[5:], torch.zeros_like(A)
        sizes = _sizes(dy.shape[1])
        pieces = list(zip(_groups(tokens), states, dy.split(sizes, dim=1), strict=True))
        parts = []
        for group, h, dy_group in reversed(pieces):
            with torch.enable_grad():
                leaves = [t.detach().requires_grad_() for t in (A, h, *group)]
                results = _scan_group(*leaves)
            dA_group, dh, *d_group = torch.autograd.grad(results, leaves, (dy_group, dh))
            dA += dA_group
            parts.append(d_group)
        d_tokens = [torch.cat(part[::-1], dim=1) for part in zip(*parts, strict=True)]
        return (*d_tokens, dA, dh)


def _groups(tokens: list[Tensor]) -> list[tuple[Tensor, ...]]:
    sizes = _sizes(tokens[0].shape[1])
    return list(zip(*(t.split(sizes, dim=1) for t in tokens), strict=True))


def _sizes(length: int) -> list[int]:
    """Return the sizes of the groups: whole groups, whole chunks, and what is left of a chunk."""
    rest = length % GROUP
    tail = rest % CHUNK
    return [GROUP] * (length // GROUP) + [size for size in (rest - tail, tail) if size]


def _scan_group(
    A: Tensor, h: Tensor, steps: Tensor, drive: Tensor, B: Tensor, C: Tensor
) -> tuple[Tensor, Tensor]:
    """Return y (B, T, D) and the state after T tokens from the state h (B, D, N) before them."""
    size = min(CHUNK, steps.shape[1])
    steps, drive, B, C = (t.unflatten(1, (-1, size)) for t in (steps, drive, B, C))
    state, decay = torch.zeros_like(h)[:, None], torch.ones_like(h)[:, None]
    outputs, decays = [], []
    for i in range(size):
        step = torch.exp(steps[:, :, i, :, None] * A)  # (B, K, D, N)
        push = drive[:, :, i, :, None] * B[:, :, i, None, :]
        state, decay = torch.addcmul(push, step, state), decay * step
        outputs.append(_read(state, C[:, :, i]))
        decays.append(decay)
    inherited = []
    for k in range(steps.shape[1]):
        inherited.append(h)
        h = torch.addcmul(state[:, k], decay[:, k], h)
    before = torch.stack(inherited, dim=1)
    later = [_read(decays[i] * before, C[:, :, i]) for i in range(size)]
    y = torch.stack(outputs, dim=2) + torch.stack(later, dim=2)
    return y.flatten(1, 2), h


def _read(state: Tensor, C: Tensor) -> Tensor:
    """Return sum over n of C_n h_n: (B, K, D) from (B, K, D, N) and (B, K, N)."""
    return (state @ C[..., None]).squeeze(-1)
