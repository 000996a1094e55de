"""The recurrence as a loop over tokens: the ground truth for every other backend."""

import torch
from torch import Tensor

from sparsefield.nn.scan.shared import ScanInputs, initial_state, skip_and_gate, step_sizes


def scan_naive(x: ScanInputs) -> tuple[Tensor, Tensor]:
    """Return y (B, L, D) and the last state (B, D, N) in L steps, in any precision."""
    steps, h = step_sizes(x), initial_state(x)
    drive = steps * x.u.to(steps)
    A, B, C = (p.to(steps) for p in (x.A, x.B, x.C))
    # unbound once: the backward of an index into a token would fill a tensor of all tokens
    tokens = list(zip(*(t.unbind(1) for t in (steps, drive, B, C)), strict=True))
    outputs: list[Tensor] = []
    for step, value, b, c in reversed(tokens) if x.reverse else tokens:
        h = torch.exp(step[..., None] * A) * h + value[..., None] * b[:, None, :]
        outputs.append((h @ c[..., None]).squeeze(-1))
    y = torch.stack(outputs[::-1] if x.reverse else outputs, dim=1)
    return skip_and_gate(y, x), h
