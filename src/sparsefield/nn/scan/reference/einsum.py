"""The recurrence as one matrix per channel, for parameters that do not change along the sequence.

With constant step s, B and C the scan is a convolution, y_i = sum over j <= i of K[i - j] u_j with
K[k] = sum over n of C_n exp(k s A_n) s B_n. Writing it as an (L, L) matrix is how linear state
spaces are often vectorised; it is kept to measure what that costs.
"""

import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.nn.scan.shared import ScanInputs, initial_state, skip_and_gate, step_sizes

MEMORY_LIMIT = 2 * 2**30  # bytes


def scan_einsum(x: ScanInputs) -> tuple[Tensor, Tensor]:
    """Return y (B, L, D) and the last state (B, D, N) in one product; memory grows as D L^2.

    Raises:
        InputError: if delta, B or C varies over tokens or batch, or the matrices would exceed
            `MEMORY_LIMIT`.
    """
    _check_constant(x)
    _check_memory(x)
    steps = step_sizes(x)
    length, step = steps.shape[1], steps[0, 0]
    A, B, C = x.A.to(steps), x.B[0, 0].to(steps), x.C[0, 0].to(steps)
    u, h = x.u.to(steps), initial_state(x)
    u = u.flip(1) if x.reverse else u
    lags = torch.arange(length + 1, device=u.device)
    decay = torch.exp(lags.to(steps) * (step[:, None] * A)[..., None])  # (D, N, L + 1)
    kernel = torch.einsum("n,dnk,d,n->dk", C, decay[..., :-1], step, B)
    i_minus_j = lags[:-1, None] - lags[:-1]
    matrix = kernel[:, i_minus_j.clamp(min=0)] * (i_minus_j >= 0)
    y = torch.einsum("dij,bjd->bid", matrix, u)
    y = y + torch.einsum("n,dnk,bdn->bkd", C, decay[..., 1:], h)
    drive = torch.einsum("bkd,d,n,dnk->bdn", u, step, B, decay[..., :-1].flip(-1))
    return skip_and_gate(y.flip(1) if x.reverse else y, x), decay[..., -1] * h + drive


def _check_constant(x: ScanInputs) -> None:
    for name in ("delta", "B", "C"):
        value: Tensor = getattr(x, name)
        if not torch.equal(value, value[:1, :1].expand_as(value)):
            raise InputError(
                f"the 'einsum' scan needs the same {name} at every token and batch item; "
                "use another backend for input-dependent parameters"
            )


def _check_memory(x: ScanInputs) -> None:
    _, length, width = x.u.shape
    size = width * length**2 * x.state_dtype.itemsize
    if size > MEMORY_LIMIT:
        raise InputError(
            f"the 'einsum' scan of {length} tokens and {width} channels needs "
            f"{size / 2**30:.1f} GiB for its matrices, over {MEMORY_LIMIT / 2**30:.0f} GiB; "
            "use a backend that is linear in the length"
        )
