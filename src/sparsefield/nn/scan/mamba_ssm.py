"""Adapter to the CUDA kernel of the mamba-ssm package, where that is installed.

References:
    Mamba: Linear-Time Sequence Modeling with Selective State Spaces (Gu & Dao, 2023),
    https://arxiv.org/abs/2312.00752; https://github.com/state-spaces/mamba
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.nn.scan.shared import ScanInputs


def scan_mamba_ssm(x: ScanInputs) -> tuple[Tensor, Tensor]:
    """Return y (B, L, D) and the last state (B, D, N) from the package's (B, D, L) kernel.

    Raises:
        InputError: if the package cannot be imported, the tensors are not on a CUDA device, or
            there is an initial state, which the kernel cannot start from.
    """
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except Exception as error:  # a broken build fails in ways other than ImportError
        raise InputError(f"the 'mamba_ssm' scan is not available: {error}") from error
    if x.u.device.type != "cuda":
        raise InputError(f"the 'mamba_ssm' scan needs CUDA tensors, not {x.u.device.type}")
    if x.h0 is not None:
        raise InputError("the 'mamba_ssm' scan cannot start from h0; use another backend")
    return call_kernel(selective_scan_fn, x)


def call_kernel(kernel: Callable[..., Any], x: ScanInputs) -> tuple[Tensor, Tensor]:
    """Call a kernel of the package's signature, with all sequences (B, D, L) in the type of u."""
    u, delta, B, C = (_by_channel(t.to(x.u), x.reverse) for t in (x.u, x.delta, x.B, x.C))
    y, state = kernel(
        u,
        delta,
        x.A.float(),
        B,
        C,
        None if x.D is None else x.D.float(),
        None if x.z is None else _by_channel(x.z.to(x.u), x.reverse),
        None if x.delta_bias is None else x.delta_bias.float(),
        delta_softplus=x.softplus,
        return_last_state=True,
    )
    y = y.transpose(1, 2)
    return (y.flip(1) if x.reverse else y), state


def _by_channel(x: Tensor, reverse: bool) -> Tensor:
    """Return (B, L, *) as contiguous (B, *, L), from last to first token if asked."""
    return (x.flip(1) if reverse else x).transpose(1, 2).contiguous()
