"""What the scan kernels know of memory: where tensors lie, and the scratch they work in.

Addresses and strides are integers in bytes, since numba would count a reference for every array
that a function passes on.
"""

from typing import Any, NamedTuple

from numba import njit

from sparsefield.nn.scan.cpu.simd import (
    LANES,
    load,
    load_first,
    load_first_bfloat16,
    store,
    store_first,
    store_first_bfloat16,
)

CHUNK = 32
VECTOR = 4 * LANES  # bytes
# bytes of one row of scratch: a chunk, the state before it, and a shift that keeps equal places
# of neighbouring rows apart in the cache
ROW = (CHUNK + 3) * VECTOR


class Tokens(NamedTuple):
    """Where a (B, L, *) tensor lies: its address, or 0 for none, and its strides in bytes."""

    address: int
    item: int
    row: int
    size: int  # of one number: 4 for float32, 2 for bfloat16


class Scan(NamedTuple):
    """The inputs of one scan; A, D and bias are addresses of channels in blocks of `LANES`."""

    u: Tokens
    delta: Tokens
    z: Tokens
    B: Tokens
    C: Tokens
    A: int  # (blocks, N, LANES), times log2(e)
    D: int  # (blocks, LANES)
    bias: int  # (blocks, LANES)
    length: int
    width: int
    states: int
    blocks: int
    group: int  # blocks that one task works on
    reverse: bool
    softplus: bool  # steps are softplus(delta + bias), not the sum itself


class Gradients(NamedTuple):
    """What the backward reads and writes.

    Sums over tokens are kept per item and block, sums over channels per item and group of blocks:
    who adds up what, and thus every bit, does not depend on the number of threads.
    """

    y: Tokens
    u: Tokens
    delta: Tokens
    z: Tokens
    B: int  # (items, groups, rows, N), in scan order from the first chunk of the call
    C: int  # (items, groups, rows, N)
    rows: int
    A: int  # (items, blocks, N, LANES)
    D: int  # (items, blocks, LANES)
    bias: int  # (items, blocks, LANES)
    state: int  # (items, blocks, N, LANES): of the last state going in, of h0 coming out


class Place(NamedTuple):
    """Consecutive tokens, in scan order, of one block of channels."""

    item: int
    block: int
    first: int
    length: int


class Tile(NamedTuple):
    """Addresses of the scratch rows for one place, each (CHUNK + 1, LANES)."""

    step: int
    drive: int
    y: int
    decay: int
    state: int
    dy: int
    dstep: int
    ddrive: int


TILE_ROWS = len(Tile._fields)


@njit
def tile_at(a: int) -> Any:
    """Return the tile that begins at an address."""
    r = ROW
    return Tile(a, a + r, a + 2 * r, a + 3 * r, a + 4 * r, a + 5 * r, a + 6 * r, a + 7 * r)


@njit
def walk(scan: Any, tokens: Any, place: Any) -> Any:
    """Return the address of the place's first token and the way to the next, in scan order."""
    base = tokens.address + place.item * tokens.item
    if scan.reverse:
        return base + (scan.length - 1 - place.first) * tokens.row, -tokens.row
    return base + place.first * tokens.row, tokens.row


@njit
def channels(tokens: Any, place: Any, token: int) -> int:
    """Return the address of the place's channels of a token."""
    return token + place.block * LANES * tokens.size


@njit
def read(scan: Any, tokens: Any, place: Any, token: int) -> Any:
    """Return the place's channels of a token, zero beyond the last channel."""
    address, width = channels(tokens, place, token), scan.width - place.block * LANES
    if tokens.size == 2:
        return load_first_bfloat16(address, width)
    return load(address) if width >= LANES else load_first(address, width)


@njit
def write(scan: Any, tokens: Any, place: Any, token: int, value: Any) -> None:
    """Write the place's channels of a token, none beyond the last channel."""
    address, width = channels(tokens, place, token), scan.width - place.block * LANES
    if tokens.size == 2:
        store_first_bfloat16(address, width, value)
    elif width >= LANES:
        store(address, value)
    else:
        store_first(address, width, value)
