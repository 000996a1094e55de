"""The selective scan's backends as contestants, beside implementations elsewhere and attention."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsefield.core.errors import InputError, unknown_name
from sparsefield.nn.attention import merge_heads, split_heads
from sparsefield.nn.scan import BACKENDS, selective_scan
from sparsefield.profiling.timing import Work, compare, environment


class ScanShape(NamedTuple):
    """Sizes of a scan: items B, tokens L, channels D, states N."""

    items: int
    length: int
    width: int
    states: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


SCAN_SHAPES = (
    ScanShape(8, 408, 512, 16),
    ScanShape(1, 2048, 512, 16),
    ScanShape(1, 16384, 256, 16),
    ScanShape(1, 65536, 256, 16),
)
PASSES = {"forward": False, "forward_backward": True}


def parse_shape(text: str) -> ScanShape:
    """Read sizes such as 8x408x512x16.

    Raises:
        InputError: if these are not four positive integers.
    """
    sizes = text.split("x")
    if len(sizes) != 4 or not all(size.isdecimal() and int(size) for size in sizes):
        raise InputError(f"'{text}' is not a scan's shape; write BxLxDxN, such as 8x408x512x16")
    return ScanShape(*map(int, sizes))


def scan_contestants() -> list[str]:
    """Return the names that `compare_scans` knows: backends, their peers, and attention."""
    return [*BACKENDS, *PEERS, *ATTENTION]


def compare_scans(
    shapes: Sequence[ScanShape],
    names: Sequence[str] = (),
    repeats: int = 5,
    patience: float = math.inf,
    progress: Callable[[str], None] = lambda case: None,
) -> dict[str, Any]:
    """Measure scans with skip connection, gate and bias, as a Mamba layer calls them, in float32.

    The loss is the sum of y; gradients of all inputs are computed.

    Args:
        shapes: Sizes of the inputs.
        names: Contestants out of `scan_contestants`; all but attention if there are none.
        repeats: Runs of which the median is taken.
        patience: See `compare`.
        progress: Called with a description of what is measured next.

    Returns:
        The environment and `rows`, one per shape and contestant.

    Raises:
        InputError: if a name is unknown.
    """
    names = list(names) or [*BACKENDS, *PEERS]
    for name in names:
        if name not in scan_contestants():
            raise unknown_name("scan backend", name, scan_contestants())
    rows = []
    for shape in shapes:
        results = {}
        for kind, backward in PASSES.items():
            progress(f"{shape} {kind.replace('_', ' + ')}")
            setups = {name: partial(prepare_scan, name, shape, backward) for name in names}
            results[kind] = compare(setups, repeats, patience)
        for name in names:
            measured = {kind: results[kind][name] for kind in PASSES}
            rows.append({"shape": list(shape), "backend": name, **measured})
    return {"benchmark": "scan", **environment(), "repeats": repeats, "rows": rows}


def prepare_scan(name: str, shape: ScanShape, backward: bool) -> Work:
    """Make inputs and return a run of a contestant; one on tiny inputs has compiled it.

    Raises:
        InputError: if the contestant refuses.
    """
    _check_memory(name, shape, backward)
    others = PEERS | ATTENTION
    scan = others[name] if name in others else partial(selective_scan, backend=name)
    constant = name == "einsum"
    _run_scan(scan, make_scan_inputs(ScanShape(1, 2, 8, shape.states), constant), backward)
    return partial(_run_scan, scan, make_scan_inputs(shape, constant), backward)


def make_scan_inputs(shape: ScanShape, constant: bool = False) -> dict[str, Tensor]:
    """Return random float32 leaves by argument name; delta, B and C of one token if `constant`."""
    items, length, width, states = shape
    generator = torch.Generator().manual_seed(0)
    tokens = (1, 1) if constant else (items, length)
    sizes = {
        "u": (items, length, width),
        "delta": (*tokens, width),
        "A": (width, states),
        "B": (*tokens, states),
        "C": (*tokens, states),
        "D": (width,),
        "z": (items, length, width),
        "delta_bias": (width,),
    }
    inputs = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    inputs["A"] = -inputs["A"].exp()
    return {name: x.requires_grad_() for name, x in inputs.items()}


def _run_scan(scan: Callable[..., Tensor], leaves: Mapping[str, Tensor], backward: bool) -> None:
    for leaf in leaves.values():
        leaf.grad = None
    by_token = {name: leaves[name].expand(*leaves["u"].shape[:2], -1) for name in ("delta", *"BC")}
    with torch.set_grad_enabled(backward):
        y = scan(**{**leaves, **by_token}).sum()
        if backward:
            y.backward()


def _scan_mambapy(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """Scan with mambapy (https://github.com/alxndrTL/mamba.py), a parallel scan in PyTorch."""
    try:
        from mambapy.mamba import MambaBlock
    except ImportError as error:
        raise InputError(f"mambapy is not installed: {error}") from error
    steps = F.softplus(delta + delta_bias)
    return MambaBlock.selective_scan(None, u, steps, A, B, C, D) * F.silu(z)


def _attend(
    u: Tensor, delta: Tensor, z: Tensor, dtype: torch.dtype = torch.float32, **others: Tensor
) -> Tensor:
    """Attend from every token to all others at the width of the scan: u, delta, z are q, k, v."""
    q, k, v = (split_heads(x.to(dtype), ATTENTION_HEADS) for x in (u, delta, z))
    return merge_heads(F.scaled_dot_product_attention(q, k, v)).to(u)


PEERS: dict[str, Callable[..., Tensor]] = {
    "mambapy": _scan_mambapy,
}
# not scans: measured when asked for
ATTENTION: dict[str, Callable[..., Tensor]] = {
    "attention": _attend,
    "attention_bfloat16": partial(_attend, dtype=torch.bfloat16),
}
ATTENTION_HEADS = 8
# (B, L, D, N) tensors that exist at the peak of a forward and of a forward + backward
STATE_TENSORS = {"naive": (1, 6), "mambapy": (6, 10)}


def _check_memory(name: str, shape: ScanShape, backward: bool) -> None:
    """Refuse what would not fit the free memory; better than being killed half way."""
    if name not in STATE_TENSORS or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return
    length = 2 ** (shape.length - 1).bit_length()  # mambapy pads to a power of two
    size = 4 * shape.items * length * shape.width * shape.states
    needed = STATE_TENSORS[name][backward] * size
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise InputError(
            f"{name} needs about {needed / 2**30:.1f} GiB for {shape}; "
            f"{free / 2**30:.1f} GiB are free"
        )
