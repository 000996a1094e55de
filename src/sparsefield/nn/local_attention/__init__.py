"""Attention of every query to its own few neighbours, with interchangeable backends."""

from collections.abc import Callable

import torch
from torch import Tensor

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.nn.checks import check_tensors
from sparsefield.nn.compiled import AVAILABLE
from sparsefield.nn.local_attention.cpu import attend_cpu, check_index
from sparsefield.nn.local_attention.gather import attend_gather

BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "gather": attend_gather,
    "cpu": attend_cpu,
}


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, index: Tensor, backend: str = "auto"
) -> Tensor:
    r"""Attend from every query to its K neighbours among M keys.

    .. math::
        y_{lh} = \sum_j \mathrm{softmax}_j\big(q_{lh}\cdot k_{i_{lj}h}/\sqrt{E} + b_{ljh}\big)\,
        v_{i_{lj}h}

    A bias of minus infinity hides a neighbour; a query that sees none gets zero, and no gradient
    flows through it. Scores and sums are float32 (float64 for float64 input).

    References:
        Attention Is All You Need (Vaswani et al., 2017), Eq. 1, restricted to the neighbours i_l.

    Args:
        q: Queries, (B, L, H, E).
        k: Keys, (B, M, H, E).
        v: Values, (B, M, H, E).
        bias: Added to the scores, (B, L, K, H).
        index: The neighbours i of every query, integers in [0, M), (B, L, K).
        backend: A key of `BACKENDS`, or "auto": `cpu` where it can run, else `gather`.

    Returns:
        y in the type of q, (B, L, H, E).

    Raises:
        InputError: Shapes do not fit, a neighbour is none of the keys (asked on processors
            only), tensors are on several devices or not real floating-point ones, the backend is
            unknown or cannot take these tensors.
    """
    _check(q, k, v, bias, index)
    if backend == "auto":
        fused = AVAILABLE and q.device.type == "cpu" and q.dtype != torch.float64
        backend = "cpu" if fused else "gather"
    if backend not in BACKENDS:
        raise unknown_name("local attention backend", backend, ["auto", *BACKENDS])
    return BACKENDS[backend](q, k, v, bias, index)


def _check(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, index: Tensor) -> None:
    """Raise InputError for what kernels would read as memory that is not theirs."""
    floating = {"q": q, "k": k, "v": v, "bias": bias}
    check_tensors("local attention", floating)
    if index.dtype not in (torch.int64, torch.int32) or index.device != q.device:
        raise InputError(
            f"the index of local attention must be int64 or int32 on {q.device}, not "
            f"{index.dtype} on {index.device}"
        )
    fit = (
        q.ndim == k.ndim == 4
        and index.ndim == 3
        and k.shape == v.shape
        and (len(q), *q.shape[2:]) == (len(k), *k.shape[2:])
        and index.shape[:2] == q.shape[:2]
        and bias.shape == (*index.shape, q.shape[2])
    )
    if not fit:
        shapes = ", ".join(str(tuple(x.shape)) for x in (*floating.values(), index))
        raise InputError(f"q, k, v, bias and index of local attention do not fit: {shapes}")
    if index.device.type == "cpu" and not torch.compiler.is_compiling():
        check_index(index, k.shape[1])
