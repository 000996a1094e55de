"""The fused scan for processors as a torch operator, on the numba kernels of `kernels.py`."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.nn.compiled import require_numba
from sparsefield.nn.scan.cpu import kernels
from sparsefield.nn.scan.cpu.layout import CHUNK, ROW, TILE_ROWS, Gradients, Scan, Tokens
from sparsefield.nn.scan.cpu.memory import on_huge_pages
from sparsefield.nn.scan.cpu.simd import LANES, LOG2_E
from sparsefield.nn.scan.cpu.threads import alone_when_busy, run_in_threads
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

GROUP = 4  # at most: blocks of channels in one task, which share a sum for dB and dC
BACKWARD_TASKS = 4  # wanted: depends on no thread count, so that the sums do not either
PARTIAL_SUMS = 2**20  # bytes at most of dB and dC before they are added up over the groups
NATIVE = (torch.float32, torch.bfloat16)  # read and written by the kernels without a copy


def _pack(x: Tensor) -> Tensor:
    """Return (..., D, N) as blocks of lanes (..., blocks, N, LANES), padded with zeros."""
    x = F.pad(x.float(), (0, 0, 0, -x.shape[-2] % LANES))
    return x.unflatten(-2, (-1, LANES)).transpose(-1, -2).contiguous()


def _unpack(x: Tensor, width: int) -> Tensor:
    """Return blocks of lanes (..., blocks, N, LANES) as (..., D, N)."""
    return x.transpose(-1, -2).flatten(-3, -2)[..., :width, :].contiguous()


def _pack_channels(x: Tensor | None, like: Tensor) -> Tensor:
    """Return (D,), or zeros for None, as (blocks, 1, LANES)."""
    x = like.new_zeros(like.shape[-1], dtype=torch.float32) if x is None else x
    return _pack(x[:, None])


def _rows(x: Tensor) -> Tensor:
    return readable_rows(x, NATIVE)


def _tokens(x: Tensor | None) -> Tokens:
    if x is None:
        return Tokens(0, 0, 0, 4)
    size = x.element_size()
    return Tokens(x.data_ptr(), size * x.stride(0), size * x.stride(1), size)


def _blocks(width: int) -> int:
    return -(-width // LANES)


def _chunks(length: int) -> int:
    return -(-length // CHUNK)


class _Launch:
    """A scan as the kernels see it, with the memory that `scan` points to."""

    def __init__(self, x: ScanInputs, tasks: int) -> None:
        """Prepare for at least as many tasks as wanted, if there are as many blocks."""
        items, length, width = x.u.shape
        blocks = _blocks(width)
        group = max(1, min(GROUP, items * blocks // tasks))
        u, delta, B, C = (_rows(t) for t in (x.u, x.delta, x.B.float(), x.C.float()))
        z = None if x.z is None else _rows(x.z)
        A = _pack(x.A.float() * LOG2_E)
        D, bias = _pack_channels(x.D, x.u), _pack_channels(x.delta_bias, x.u)
        self.memory = (u, delta, z, B, C, A, D, bias)
        self.groups = -(-blocks // group)
        self.tasks = items * self.groups
        self.scan = Scan(
            u=_tokens(u),
            delta=_tokens(delta),
            z=_tokens(z),
            B=_tokens(B),
            C=_tokens(C),
            A=A.data_ptr(),
            D=D.data_ptr(),
            bias=bias.data_ptr(),
            length=length,
            width=width,
            states=x.A.shape[1],
            blocks=blocks,
            group=group,
            reverse=x.reverse,
            softplus=x.softplus,
        )


def _scratch(u: Tensor, rows: int) -> Tensor:
    """Return scratch memory for every thread."""
    return u.new_empty(torch.get_num_threads(), rows, ROW // 4, dtype=torch.float32)


def _new_rows(x: Tensor) -> Tensor:
    return on_huge_pages(new_rows(x, NATIVE))


def _new_saved(x: ScanInputs, save: bool) -> Tensor:
    """Return memory for the state before every chunk, none if not to be saved."""
    chunks = _chunks(x.u.shape[1]) if save else 0
    shape = (len(x.u), _blocks(x.u.shape[2]), chunks, x.A.shape[1], LANES)
    return x.u.new_empty(shape, dtype=torch.float32)


@torch.library.custom_op(
    "sparsefield::selective_scan",
    mutates_args=(),
    device_types="cpu",
    schema=FORWARD,
)
@alone_when_busy()
def _scan_op(save: bool, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the last state, and (if asked to save) the state before every chunk."""
    x = ScanInputs(*args)
    launch = _Launch(x, torch.get_num_threads())
    y, saved = _new_rows(x.u), on_huge_pages(_new_saved(x, save))
    scratch = _scratch(x.u, TILE_ROWS)
    state = _pack(initial_state(x))
    run_in_threads(
        kernels.forward,
        launch.tasks,
        scratch.data_ptr(),
        launch.scan,
        _tokens(y),
        state.data_ptr(),
        saved.data_ptr() if save else 0,
        memory=(launch, scratch, y, state, saved),
    )
    return y.to(x.u.dtype), _unpack(state, x.u.shape[2]), saved


@_scan_op.register_fake
def _(save: bool, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    x = ScanInputs(*args)
    y = torch.empty_like(x.u, memory_format=torch.contiguous_format)
    return y, x.u.new_empty(len(x.u), *x.A.shape, dtype=torch.float32), _new_saved(x, save)


class _Backward:
    """The memory of a backward, and the way through it from the last segment to the first."""

    def __init__(self, dy: Tensor, dstate: Tensor | None, saved: Tensor, x: ScanInputs) -> None:
        items, length, width = x.u.shape
        states, blocks = x.A.shape[1], _blocks(width)
        new = partial(x.u.new_zeros, dtype=torch.float32)
        self.launch, self.saved, self.reverse = _Launch(x, BACKWARD_TASKS), saved, x.reverse
        self.scratch = _scratch(x.u, TILE_ROWS + 2 * states)
        self.dy, self.du, self.ddelta = _rows(dy), _new_rows(x.u), _new_rows(x.delta)
        self.dz = None if x.z is None else _new_rows(x.z)
        self.dA, self.dD, self.dbias = (new(items, blocks, n, LANES) for n in (states, 1, 1))
        self.dstate = _pack(new(items, width, states) if dstate is None else dstate)
        self.dB, self.dC = (new(items, length, states) for _ in "BC")
        self.chunks = _segment(self.launch.tasks, x)
        rows = self.chunks * CHUNK
        self.parts = [new(items, self.launch.groups, rows, states) for _ in "BC"]
        part_B, part_C = self.parts
        self.grad = Gradients(
            y=_tokens(self.dy),
            u=_tokens(self.du),
            delta=_tokens(self.ddelta),
            z=_tokens(self.dz),
            B=part_B.data_ptr(),
            C=part_C.data_ptr(),
            rows=rows,
            A=self.dA.data_ptr(),
            D=self.dD.data_ptr(),
            bias=self.dbias.data_ptr(),
            state=self.dstate.data_ptr(),
        )

    def run(self) -> None:
        """Fill all gradients."""
        for first in reversed(range(0, _chunks(self.dB.shape[1]), self.chunks)):
            self._run_segment(first, min(first + self.chunks, _chunks(self.dB.shape[1])))

    def _run_segment(self, first: int, last: int) -> None:
        """Go back through the chunks before `last`, down to `first`; add up their dB and dC."""
        run_in_threads(
            kernels.backward,
            self.launch.tasks,
            self.scratch.data_ptr(),
            self.launch.scan,
            self.grad,
            self.saved.data_ptr(),
            first,
            last,
            memory=self,
        )
        for total, part in zip((self.dB, self.dC), self.parts, strict=True):
            segment = total[:, first * CHUNK : last * CHUNK]
            segment.copy_(part[:, :, : segment.shape[1]].sum(1))

    def gradients(self, width: int) -> list[Tensor | None]:
        """Return the gradients in the order of `ScanInputs`."""
        dA, dD, dbias = (_unpack(t.sum(0), width) for t in (self.dA, self.dD, self.dbias))
        dB, dC = (t.flip(1) if self.reverse else t for t in (self.dB, self.dC))
        channels = (dD.view(-1), self.dz, dbias.view(-1), _unpack(self.dstate, width))
        return [self.du, self.ddelta, dA, dB, dC, *channels]


def _segment(tasks: int, x: ScanInputs) -> int:
    """Return of how many chunks the partial sums of all tasks are kept at a time."""
    limit = min(PARTIAL_SUMS, 4 * x.u.numel() // 8)  # an eighth of u in float32
    chunk = tasks * CHUNK * x.A.shape[1] * 2 * 4  # bytes
    return max(1, min(limit // max(1, chunk), _chunks(x.u.shape[1])))


@torch.library.custom_op(
    "sparsefield::selective_scan_backward",
    mutates_args=(),
    device_types="cpu",
    schema=BACKWARD,
)
@alone_when_busy()
def _backward_op(dy: Tensor, dstate: Tensor | None, saved: Tensor, *args: Any) -> list[Tensor]:
    """Return the gradients of all tensors of `ScanInputs`, in its order."""
    x = ScanInputs(*args)
    backward = _Backward(dy, dstate, saved, x)
    backward.run()
    return like_inputs(x, backward.gradients(x.u.shape[2]))


@_backward_op.register_fake
def _(dy: Tensor, dstate: Tensor | None, saved: Tensor, *args: Any) -> list[Tensor]:
    return fake_gradients(ScanInputs(*args))


register_backward(_scan_op, _backward_op)


def scan_cpu(x: ScanInputs) -> tuple[Tensor, Tensor]:
    """Return y (B, L, D) and the last state (B, D, N) from the fused kernels.

    Raises:
        InputError: Tensors are float64 or not in the processor's memory, or numba is turned off.
    """
    require_numba("the 'cpu' scan", "use backend 'chunked'")
    if x.u.device.type != "cpu" or x.u.dtype == torch.float64:
        raise InputError(
            f"the 'cpu' scan computes in float32 on the processor, not {x.u.dtype} on "
            f"{x.u.device.type}; use backend 'chunked'"
        )
    y, state, _ = _scan_op(wants_gradients(x), *x)
    return y, state
