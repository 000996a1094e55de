"""The fused scan for GPUs as a torch operator, on the Triton kernels of `triton_kernels.py`.

With many items and channels a program can scan a whole sequence. With few, most of a GPU would be
idle, so that the sequence is cut into segments and scanned in three steps: all segments from a
zero state, then the chain of their ends, then all segments again from the right state. The first
step reads u and delta and computes all decays once more, which is why it is left out where there
is work enough without it. The backward does the same from the other end.

Within a segment one program is sequential. An associative scan over the tokens would need
shuffles between threads, and log2 of the tokens as many of them; a thread that owns a channel
needs none.
"""

from contextlib import nullcontext
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.nn.scan.operator import (
    BACKWARD,
    FORWARD,
    fake_gradients,
    like_inputs,
    new_rows,
    readable_rows,
    register_backward,
    wants_gradients,
)
from sparsefield.nn.scan.shared import ScanInputs, initial_state
from sparsefield.nn.scan.triton.tile import LANES, TILE

INSTALLED = find_spec("triton") is not None

ENOUGH = 1024  # programs that keep a large GPU busy without cutting sequences
PROGRAMS = 8192  # wanted from cutting sequences
SHORTEST = 4  # tiles in a segment: bounds the memory of what is kept per segment
SLICE = 2048  # programs at least that share the memory for partial sums of dB and dC
LOG2_E = 1.4426950408889634
NATIVE = (torch.float32, torch.bfloat16, torch.float16)  # read and written without a copy


def _kernels() -> ModuleType:
    """Import the kernels, and Triton with them, on first use."""
    try:
        from sparsefield.nn.scan.triton import kernels
    except Exception as error:  # a broken build fails in ways other than ImportError
        raise InputError(f"the 'triton' scan is not available: {error}") from error
    return kernels


class _Plan:
    """How the work is cut; follows from the shapes alone."""

    def __init__(self, x: ScanInputs) -> None:
        self.items, self.length, self.width = x.u.shape
        self.states, self.softplus = x.A.shape[1], x.softplus
        self.blocks = -(-self.width // LANES)
        self.tiles = _tiles(self.length)
        self.span = _span(self.items * self.blocks, self.tiles)
        self.segments = -(-self.tiles // self.span)

    def counts(self) -> dict[str, Any]:
        """Return the arguments that most kernels share."""
        names = ("length", "width", "tiles", "segments", "span")
        fixed = {"N": self.states, "SOFTPLUS": self.softplus, "num_warps": 1}
        return {name: getattr(self, name) for name in names} | fixed


def _tiles(length: int) -> int:
    return -(-length // TILE)


def _span(lines: int, tiles: int) -> int:
    """Return how many tiles a segment has, given how many programs go through whole sequences."""
    if lines >= ENOUGH:
        return tiles
    return min(tiles, max(SHORTEST, lines * tiles // PROGRAMS))


class _Operands:
    """The inputs as the kernels read them."""

    def __init__(self, x: ScanInputs) -> None:
        self.u, self.delta = _rows(x.u), _rows(x.delta)
        self.z = None if x.z is None else _rows(x.z)
        self.B, self.C = (_by_tile(t, x.reverse) for t in (x.B, x.C))
        self.A = (x.A.float() * LOG2_E).T.contiguous()
        self.D, self.bias = (_channels(t, x.u) for t in (x.D, x.delta_bias))


def _rows(x: Tensor) -> Tensor:
    return readable_rows(x, NATIVE)


def _by_tile(x: Tensor, reverse: bool) -> Tensor:
    """Return (B, L, N) in float32 as (B, tiles, N, TILE) in the order of the scan."""
    x = x.float().flip(1) if reverse else x.float()
    x = F.pad(x, (0, 0, 0, -x.shape[1] % TILE))
    return x.unflatten(1, (-1, TILE)).transpose(2, 3).contiguous()


def _channels(x: Tensor | None, like: Tensor) -> Tensor:
    """Return (D,) in float32, zeros for None."""
    size = like.shape[-1:]
    return like.new_zeros(size, dtype=torch.float32) if x is None else x.float().contiguous()


def _tokens(x: Tensor | None) -> tuple[Any, ...] | None:
    """Return a tensor of tokens as the kernels take it."""
    return None if x is None else (x, x.stride(0), x.stride(1))


def _new_rows(x: Tensor) -> Tensor:
    return new_rows(x, NATIVE)


def _new_states(x: ScanInputs, slots: int) -> Tensor:
    """Return memory for (B, slots, N, D), the layout of states in the kernels."""
    return x.u.new_empty(len(x.u), slots, *x.A.T.shape, dtype=torch.float32)


def _on_device_of(x: Tensor) -> Any:
    """Make the tensor's device the current one, on which Triton launches."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


@torch.library.custom_op(
    "sparsefield::selective_scan_triton",
    mutates_args=(),
    schema=FORWARD,
)
def _scan_op(save: bool, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the last state, and (if asked to save) the state before every tile."""
    x = ScanInputs(*args)
    plan, operands = _Plan(x), _Operands(x)
    states = _new_states(x, plan.tiles if save else plan.segments)
    states[:, 0] = initial_state(x).transpose(1, 2)
    y, last = _new_rows(x.u), _new_states(x, 1)
    with _on_device_of(x.u):
        if plan.segments > 1:
            _chain_segments(plan, operands, states, save, x.reverse)
        _scan_segments(plan, operands, states, y, last, save, x.reverse)
    last = last[:, 0].transpose(1, 2).contiguous()
    return y.to(x.u.dtype), last, states if save else _new_states(x, 0)


def _chain_segments(plan: _Plan, x: _Operands, states: Tensor, save: bool, reverse: bool) -> None:
    """Put the state before every segment in its place."""
    hop = plan.span if save else 1
    sums = states.new_empty(plan.items, plan.segments, plan.width)
    _kernels().sum_up[(plan.items * (plan.segments - 1) * plan.blocks,)](
        u=_tokens(x.u),
        delta=_tokens(x.delta),
        B=x.B,
        A=x.A,
        bias=x.bias,
        states=states,
        sums=sums,
        slots=states.shape[1],
        hop=hop,
        REVERSE=reverse,
        **plan.counts(),
    )
    _chain(plan, x, states, sums, hop)


def _chain(plan: _Plan, x: _Operands, states: Tensor, sums: Tensor, hop: int) -> None:
    _kernels().chain[(plan.items * plan.states * plan.blocks,)](
        states=states,
        sums=sums,
        A=x.A,
        width=plan.width,
        segments=plan.segments,
        slots=states.shape[1],
        hop=hop,
        N=plan.states,
        num_warps=1,
    )


def _scan_segments(
    plan: _Plan,
    x: _Operands,
    states: Tensor,
    y: Tensor,
    last: Tensor,
    save: bool,
    reverse: bool,
) -> None:
    """Fill y, the last state and (if asked to save) all places of states."""
    _kernels().scan[(plan.items * plan.segments * plan.blocks,)](
        u=_tokens(x.u),
        delta=_tokens(x.delta),
        z=_tokens(x.z),
        B=x.B,
        C=x.C,
        A=x.A,
        D=x.D,
        bias=x.bias,
        y=_tokens(y),
        states=states,
        last=last,
        slots=states.shape[1],
        KEEP=save,
        REVERSE=reverse,
        **plan.counts(),
    )


@_scan_op.register_fake
def _(save: bool, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    x = ScanInputs(*args)
    y = torch.empty_like(x.u, memory_format=torch.contiguous_format)
    last = x.u.new_empty(len(x.u), *x.A.shape, dtype=torch.float32)
    return y, last, _new_states(x, _tiles(x.u.shape[1]) if save else 0)


class _Backward:
    """The memory of a backward, and its kernels."""

    def __init__(self, dy: Tensor, dstate: Tensor | None, saved: Tensor, x: ScanInputs) -> None:
        self.plan, self.operands, self.saved = _Plan(x), _Operands(x), saved
        self.dy, self.reverse = _rows(dy), x.reverse
        self.du, self.ddelta = _new_rows(x.u), _new_rows(x.delta)
        self.dz = None if x.z is None else _new_rows(x.z)
        self.carries, self.dA = (_new_states(x, self.plan.segments) for _ in range(2))
        self.carries[:, 0] = 0.0 if dstate is None else dstate.transpose(1, 2)
        self.dD, self.dbias = (self._new_sums() for _ in range(2))

    def _new_sums(self) -> Tensor:
        """Return memory for (B, segments, D)."""
        return self.saved.new_empty(self.plan.items, self.plan.segments, self.plan.width)

    def run(self) -> None:
        """Fill all gradients."""
        if self.plan.segments > 1:
            self._chain_segments()
        self._reverse_segments()

    def _chain_segments(self) -> None:
        """Put the gradient of the state after every segment in its place, the last one first."""
        plan, x, sums = self.plan, self.operands, self._new_sums()
        _kernels().sum_up_gradients[(plan.items * (plan.segments - 1) * plan.blocks,)](
            delta=_tokens(x.delta),
            z=_tokens(x.z),
            dy=_tokens(self.dy),
            C=x.C,
            A=x.A,
            bias=x.bias,
            carries=self.carries,
            sums=sums,
            REVERSE=self.reverse,
            **plan.counts(),
        )
        _chain(plan, x, self.carries, sums, hop=1)

    def _reverse_segments(self) -> None:
        """Fill the gradients some segments at a time, which share the memory for partial sums."""
        plan = self.plan
        pairs = plan.items * plan.segments
        shape = (plan.span, plan.states, 2 * TILE)
        total = self.saved.new_empty(pairs, *shape)
        size = min(pairs, max(-(-pairs // 4), -(-SLICE // plan.blocks)))
        parts = self.saved.new_empty(size, plan.blocks, *shape)
        for first in range(0, pairs, size):
            count = min(size, pairs - first)
            self._launch(first, count, parts)
            torch.sum(parts[:count], dim=1, out=total[first : first + count])
        self.dB, self.dC = total.split(TILE, dim=-1)

    def _launch(self, first: int, count: int, parts: Tensor) -> None:
        x, plan = self.operands, self.plan
        _kernels().reverse[(count * plan.blocks,)](
            u=_tokens(x.u),
            delta=_tokens(x.delta),
            z=_tokens(x.z),
            dy=_tokens(self.dy),
            B=x.B,
            C=x.C,
            A=x.A,
            D=x.D,
            bias=x.bias,
            states=self.saved,
            carries=self.carries,
            du=_tokens(self.du),
            ddelta=_tokens(self.ddelta),
            dz=_tokens(self.dz),
            dBC=parts,
            dA=self.dA,
            dD=self.dD,
            dbias=self.dbias,
            first=first,
            REVERSE=self.reverse,
            **plan.counts(),
        )

    def gradients(self) -> list[Tensor | None]:
        """Return the gradients in the order of `ScanInputs`."""
        dA = self.dA.sum((0, 1)).T
        dB, dC = (self._by_token(t) for t in (self.dB, self.dC))
        dD, dbias = (t.sum((0, 1)) for t in (self.dD, self.dbias))
        dh0 = self.carries[:, -1].transpose(1, 2)
        return [self.du, self.ddelta, dA, dB, dC, dD, self.dz, dbias, dh0]

    def _by_token(self, x: Tensor) -> Tensor:
        """Return (B segments, span, N, TILE) as (B, L, N) in the order of the tensors."""
        # a copy always: the gradients of B and C must not share memory
        x = x.transpose(2, 3).clone(memory_format=torch.contiguous_format)
        x = x.view(self.plan.items, -1, self.plan.states)[:, : self.plan.length]
        return x.flip(1) if self.reverse else x


@torch.library.custom_op(
    "sparsefield::selective_scan_triton_backward",
    mutates_args=(),
    schema=BACKWARD,
)
def _backward_op(dy: Tensor, dstate: Tensor | None, saved: Tensor, *args: Any) -> list[Tensor]:
    """Return the gradients of all tensors of `ScanInputs`, in its order."""
    x = ScanInputs(*args)
    backward = _Backward(dy, dstate, saved, x)
    with _on_device_of(x.u):
        backward.run()
    return like_inputs(x, backward.gradients())


@_backward_op.register_fake
def _(dy: Tensor, dstate: Tensor | None, saved: Tensor, *args: Any) -> list[Tensor]:
    return fake_gradients(ScanInputs(*args))


register_backward(_scan_op, _backward_op)


def scan_triton(x: ScanInputs) -> tuple[Tensor, Tensor]:
    """Return y (B, L, D) and the last state (B, D, N) from the fused kernels.

    Raises:
        InputError: for float64, for tensors not on a GPU (unless Triton interprets its kernels),
            and where Triton is missing.
    """
    if not INSTALLED:
        raise InputError("the 'triton' scan needs the package triton, which is not installed")
    if x.u.dtype == torch.float64:
        raise InputError("the 'triton' scan computes in float32, not float64; use 'chunked'")
    if x.u.device.type != "cuda" and not (x.u.device.type == "cpu" and _kernels().INTERPRETED):
        raise InputError(
            f"the 'triton' scan needs CUDA tensors, not {x.u.device.type}; use 'chunked', or set "
            "TRITON_INTERPRET=1 to test without a GPU"
        )
    y, state, _ = _scan_op(wants_gradients(x), *x)
    return y, state
