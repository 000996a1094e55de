"""What the fused backends have in common as torch operators."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsefield.nn.scan.shared import ScanInputs

INPUTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
    "Tensor? D, Tensor? z, Tensor? delta_bias, Tensor? h0, bool reverse, bool softplus"
)
FORWARD = f"(bool save, {INPUTS}) -> (Tensor, Tensor, Tensor)"
BACKWARD = f"(Tensor dy, Tensor? dstate, Tensor saved, {INPUTS}) -> Tensor[]"


def readable_rows(x: Tensor, native: Sequence[torch.dtype]) -> Tensor:
    """Return a tensor in one of the types that kernels read, its last axis without gaps."""
    x = x if x.dtype in native else x.float()
    if x.stride(-1) == 1:
        return x
    # a row that repeats, as in the gradient of a sum, is copied once
    once = [slice(1) if stride == 0 else slice(None) for stride in x.stride()[:-1]]
    return x[tuple(once)].contiguous().expand_as(x)


def new_rows(x: Tensor, native: Sequence[torch.dtype]) -> Tensor:
    """Return memory for a result in the shape and, if the kernels write it, the type of x."""
    dtype = x.dtype if x.dtype in native else torch.float32
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)


def like_inputs(x: ScanInputs, grads: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the gradients in the types of the inputs, empty for inputs that are absent."""
    pairs = zip(x.tensors, grads, strict=True)
    return [
        x.u.new_empty(0) if t is None or g is None else g.to(t.dtype).contiguous()
        for t, g in pairs
    ]


def fake_gradients(x: ScanInputs) -> list[Tensor]:
    """Return gradients without values, for compilers."""
    return like_inputs(x, [None if t is None else t.new_empty(t.shape) for t in x.tensors])


def wants_gradients(x: ScanInputs) -> bool:
    """Tell whether a backward may follow, for which states have to be saved."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in x.tensors if t is not None)


def register_backward(forward: Any, backward: Callable[..., list[Tensor]]) -> None:
    """Make an operator of the schema FORWARD differentiable by one of the schema BACKWARD."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, *tensors, ctx.reverse, ctx.softplus = inputs
        ctx.save_for_backward(output[2], *tensors)
        ctx.set_materialize_grads(False)

    def gradients(
        ctx: Any, dy: Tensor | None, dstate: Tensor | None, _: None
    ) -> tuple[Tensor | None, ...]:
        saved, *tensors = ctx.saved_tensors
        dy = tensors[0].new_zeros(()).expand_as(tensors[0]) if dy is None else dy
        grads = backward(dy, dstate, saved, *tensors, ctx.reverse, ctx.softplus)
        given = (None if t is None else g for t, g in zip(tensors, grads, strict=True))
        return (None, *given, None, None)

    forward.register_autograd(gradients, setup_context=setup_context)
