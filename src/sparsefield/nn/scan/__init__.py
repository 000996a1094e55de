"""The selective scan of Mamba, with interchangeable backends."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Literal, overload

import torch
from torch import Tensor

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.nn.checks import check_tensors
from sparsefield.nn.compiled import AVAILABLE
from sparsefield.nn.scan.cpu.operator import scan_cpu
from sparsefield.nn.scan.mamba_ssm import scan_mamba_ssm
from sparsefield.nn.scan.reference.chunked import scan_chunked
from sparsefield.nn.scan.reference.einsum import scan_einsum
from sparsefield.nn.scan.reference.naive import scan_naive
from sparsefield.nn.scan.shared import ScanInputs
from sparsefield.nn.scan.triton import operator as triton

__all__ = ["BACKENDS", "ScanInputs", "selective_scan"]

BACKENDS: dict[str, Callable[[ScanInputs], tuple[Tensor, Tensor]]] = {
    "naive": scan_naive,
    "einsum": scan_einsum,
    "chunked": scan_chunked,
    "cpu": scan_cpu,
    "triton": triton.scan_triton,
    "mamba_ssm": scan_mamba_ssm,
}

_log = logging.getLogger(__name__)


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    h0: Tensor | None = ...,
    reverse: bool = ...,
    softplus: bool = ...,
    return_state: Literal[False] = ...,
    backend: str = ...,
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    h0: Tensor | None = ...,
    reverse: bool = ...,
    softplus: bool = ...,
    *,
    return_state: Literal[True],
    backend: str = ...,
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    h0: Tensor | None = None,
    reverse: bool = False,
    softplus: bool = True,
    return_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the selective state-space recurrence along a sequence, independently per channel.

    With step sizes s_k = softplus(delta_k + delta_bias), or that sum itself if there shall be no
    softplus, for every channel d and state n

        h_k = exp(s_k A) h_{k-1} + s_k B_k u_k        (h_{-1} = h0)
        y_k = (sum over n of C_k h_k + D u_k) silu(z_k)

    The decay is the exact zero-order hold of dh/ds = A h; for the input its first-order form s B
    replaces (exp(s A) - 1) / A B, as in Mamba's own code. The type of u decides in which types the
    scan computes: the state is float64 for u in float64, which only the backends in plain PyTorch
    take, and float32 for all others. The other inputs may have other types; they are converted.

    References:
        Mamba: Linear-Time Sequence Modeling with Selective State Spaces (Gu & Dao, 2023),
        https://arxiv.org/abs/2312.00752, equations 2 to 4 and section 3.

    Args:
        u: Input, (B, L, D).
        delta: Step sizes, before the softplus if there is one, (B, L, D).
        A: Rates of the states, negative, (D, N).
        B: Input weights, (B, L, N).
        C: Output weights, (B, L, N).
        D: Weights of the skip connection, (D,).
        z: Gate, (B, L, D).
        delta_bias: Added to delta, (D,).
        h0: State before the first token, (B, D, N); zero if absent.
        reverse: Scan from the last token to the first, as if all sequences were flipped.
        softplus: Make step sizes positive; without, a negative one runs the system backwards.
        return_state: Also return the state after the token that was scanned last.
        backend: A key of `BACKENDS`, or "auto" to pick by device and type.

    Returns:
        y, (B, L, D), in the type of u; with `return_state` also h, (B, D, N).

    Raises:
        InputError: Shapes do not fit, an input is on another device than u or is not a real
            floating-point tensor, the backend is unknown or cannot run on these inputs.
    """
    inputs = ScanInputs(u, delta, A, B, C, D, z, delta_bias, h0, reverse, softplus)
    _check_shapes(inputs)
    check_tensors("the scan", dict(zip(inputs._fields, inputs.tensors, strict=False)))
    if backend == "auto":
        backend, reason = _pick(inputs)
        _announce(backend, reason)
    if backend not in BACKENDS:
        raise unknown_name("scan backend", backend, ["auto", *BACKENDS])
    y, state = BACKENDS[backend](inputs)
    return (y, state) if return_state else y


def _check_shapes(x: ScanInputs) -> None:
    """Raise InputError for the first argument whose shape does not follow from u and A."""
    if x.u.ndim != 3 or x.A.ndim != 2 or 0 in x.u.shape:
        raise InputError(
            f"the scan needs u of shape (B, L, D), none of them 0, and A of shape (D, N), "
            f"not {tuple(x.u.shape)} and {tuple(x.A.shape)}"
        )
    (items, length, width), states = x.u.shape, x.A.shape[1]
    expected: dict[str, tuple[int, ...]] = {
        "delta": (items, length, width),
        "A": (width, states),
        "B": (items, length, states),
        "C": (items, length, states),
        "D": (width,),
        "z": (items, length, width),
        "delta_bias": (width,),
        "h0": (items, width, states),
    }
    for name, shape in expected.items():
        value: Tensor | None = getattr(x, name)
        if value is not None and value.shape != shape:
            raise InputError(
                f"scan argument {name} has shape {tuple(value.shape)}; with u of shape "
                f"{tuple(x.u.shape)} and {states} states it must be {shape}"
            )


def _pick(x: ScanInputs) -> tuple[str, str]:
    """Return the fastest backend for the inputs, and the reason."""
    device = x.u.device.type
    if x.u.dtype == torch.float64:
        return "chunked", "float64 needs plain PyTorch"
    if device == "cpu" and AVAILABLE:
        return "cpu", f"the fused kernel for {x.u.dtype} on the processor"
    if device == "cuda" and triton.INSTALLED:
        return "triton", f"the fused kernels for {x.u.dtype} on the GPU"
    missing = {"cuda": "; triton is not installed", "cpu": "; NUMBA_DISABLE_JIT is set"}
    return "chunked", f"plain PyTorch on {device}{missing.get(device, '')}"


def _announce(backend: str, reason: str) -> None:
    if not torch.compiler.is_compiling():
        _announce_once(backend, reason)


@cache
def _announce_once(backend: str, reason: str) -> None:
    _log.info("selective scan: backend '%s' (%s)", backend, reason)
