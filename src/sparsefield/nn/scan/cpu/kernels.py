"""The fused scan as numba kernels, forward and backward, on vectors of channels.

Work is cut into places: up to `CHUNK` tokens of one block of `LANES` channels of one item. In a
place the states run one after the other (n outside, tokens inside), so that one state, its decay
and its gradient live in registers and everything else in a tile that fits the first cache. The
forward keeps the state before every chunk; the backward visits the chunks from last to first and
computes the states in between again.
"""

from typing import Any

from numba import njit

from sparsefield.nn.compiled import compiled
from sparsefield.nn.scan.cpu.layout import (
    CHUNK,
    ROW,
    TILE_ROWS,
    VECTOR,
    Place,
    channels,
    read,
    tile_at,
    walk,
    write,
)
from sparsefield.nn.scan.cpu.simd import (
    LN_2,
    broadcast,
    exp2,
    fma,
    load,
    prefetch,
    sigmoid,
    softplus,
    splat,
    store,
    store_total,
)
from sparsefield.nn.scan.cpu.threads import finish, take_range, take_worker


@njit
def _load_tokens(scan: Any, place: Any, tile: Any, ahead: int) -> None:
    """Fill the tile with step = softplus(delta + bias), or the sum, drive = step u, y = D u."""
    bias, skip = load(scan.bias + place.block * VECTOR), load(scan.D + place.block * VECTOR)
    u, u_hop = walk(scan, scan.u, place)
    delta, delta_hop = walk(scan, scan.delta, place)
    for i in range(place.length):
        prefetch(channels(scan.u, place, u + (i + ahead) * u_hop))
        prefetch(channels(scan.delta, place, delta + (i + ahead) * delta_hop))
        value = read(scan, scan.u, place, u + i * u_hop)
        step = read(scan, scan.delta, place, delta + i * delta_hop) + bias
        step = softplus(step) if scan.softplus else step
        store(tile.step + i * VECTOR, step)
        store(tile.drive + i * VECTOR, step * value)
        store(tile.y + i * VECTOR, skip * value)


@njit
def _scan_state(scan: Any, place: Any, tile: Any, n: int, h: Any) -> Any:
    """Run state n through the place from h; keep decays and states; add C_n h to y."""
    a = load(scan.A + (place.block * scan.states + n) * VECTOR)
    b, b_hop = walk(scan, scan.B, place)
    c, c_hop = walk(scan, scan.C, place)
    store(tile.state, h)
    for i in range(place.length):
        at = i * VECTOR
        decay = exp2(load(tile.step + at) * a)
        h = fma(decay, h, load(tile.drive + at) * broadcast(b + i * b_hop + 4 * n))
        store(tile.decay + at, decay)
        store(tile.state + at + VECTOR, h)
        store(tile.y + at, fma(h, broadcast(c + i * c_hop + 4 * n), load(tile.y + at)))
    return h


@njit
def _store_output(scan: Any, place: Any, tile: Any, y: Any) -> None:
    """Write the tile's y, times silu(z) if there is a gate."""
    z, z_hop = walk(scan, scan.z, place)
    out, out_hop = walk(scan, y, place)
    for i in range(place.length):
        prefetch(channels(y, place, out + (i + CHUNK) * out_hop))
        value = load(tile.y + i * VECTOR)
        if scan.z.address:
            prefetch(channels(scan.z, place, z + (i + CHUNK) * z_hop))
            gate = read(scan, scan.z, place, z + i * z_hop)
            value = value * (gate * sigmoid(gate))
        write(scan, y, place, out + i * out_hop, value)


@njit
def _scan_place(scan: Any, place: Any, tile: Any, y: Any, state: int, saved: int) -> None:
    """Scan one place from `state`, which moves on; `saved`, if any, gets the state before."""
    _load_tokens(scan, place, tile, CHUNK)
    for n in range(scan.states):
        h = load(state + n * VECTOR)
        if saved:
            store(saved + n * VECTOR, h)
        store(state + n * VECTOR, _scan_state(scan, place, tile, n, h))
    _store_output(scan, place, tile, y)


@njit
def _load_gradients(scan: Any, place: Any, tile: Any, grad: Any) -> None:
    """Fill the tile with dy behind the gate and zero gradients of step and drive."""
    dy, dy_hop = walk(scan, grad.y, place)
    z, z_hop = walk(scan, scan.z, place)
    for i in range(place.length):
        prefetch(channels(grad.y, place, dy + (i - CHUNK) * dy_hop))
        value = read(scan, grad.y, place, dy + i * dy_hop)
        if scan.z.address:
            gate = read(scan, scan.z, place, z + i * z_hop)
            value = value * (gate * sigmoid(gate))
        store(tile.dy + i * VECTOR, value)
        store(tile.dstep + i * VECTOR, splat(0.0))
        store(tile.ddrive + i * VECTOR, splat(0.0))


@njit
def _reverse_state(scan: Any, place: Any, tile: Any, n: int, carry: Any, db: int, dc: int) -> Any:
    """Run the gradient of state n back through the place, from `carry`, that of the state after.

    The results are the gradient of the state before the place and the place's part of A's.
    """
    a = load(scan.A + (place.block * scan.states + n) * VECTOR)
    b, b_hop = walk(scan, scan.B, place)
    c, c_hop = walk(scan, scan.C, place)
    da = splat(0.0)
    h = load(tile.state + place.length * VECTOR)
    for j in range(place.length):
        i = place.length - 1 - j
        at = i * VECTOR
        dy, decay, before = load(tile.dy + at), load(tile.decay + at), load(tile.state + at)
        direct = dy * broadcast(c + i * c_hop + 4 * n)
        g = carry + direct
        carry = fma(decay, carry, decay * direct)  # decay g, without waiting for g
        store(dc + at, fma(h, dy, load(dc + at)))
        store(db + at, fma(g, load(tile.drive + at), load(db + at)))
        ddrive = tile.ddrive + at
        store(ddrive, fma(g, broadcast(b + i * b_hop + 4 * n), load(ddrive)))
        rate = carry * before
        store(tile.dstep + at, fma(rate, a, load(tile.dstep + at)))
        da = fma(rate, load(tile.step + at), da)
        h = before
    return carry, da


@njit
def _store_gradients(scan: Any, place: Any, tile: Any, grad: Any) -> None:
    """Write the gradients of u and delta and add up those of D and the bias."""
    at = (place.item * scan.blocks + place.block) * VECTOR
    bias, skip = load(scan.bias + place.block * VECTOR), load(scan.D + place.block * VECTOR)
    u, u_hop = walk(scan, scan.u, place)
    delta, delta_hop = walk(scan, scan.delta, place)
    du, du_hop = walk(scan, grad.u, place)
    ddelta, ddelta_hop = walk(scan, grad.delta, place)
    dskip, dbias = splat(0.0), splat(0.0)
    for i in range(place.length):
        prefetch(channels(grad.u, place, du + (i - CHUNK) * du_hop))
        prefetch(channels(grad.delta, place, ddelta + (i - CHUNK) * ddelta_hop))
        value = read(scan, scan.u, place, u + i * u_hop)
        raw = read(scan, scan.delta, place, delta + i * delta_hop) + bias
        dy, ddrive = load(tile.dy + i * VECTOR), load(tile.ddrive + i * VECTOR)
        # A holds a factor log2(e) too many
        draw = fma(ddrive, value, load(tile.dstep + i * VECTOR) * splat(LN_2))
        draw = draw * sigmoid(raw) if scan.softplus else draw
        write(scan, grad.delta, place, ddelta + i * ddelta_hop, draw)
        step = load(tile.step + i * VECTOR)
        write(scan, grad.u, place, du + i * du_hop, fma(ddrive, step, dy * skip))
        dskip, dbias = fma(dy, value, dskip), dbias + draw
    store(grad.D + at, load(grad.D + at) + dskip)
    store(grad.bias + at, load(grad.bias + at) + dbias)


@njit
def _store_gate_gradient(scan: Any, place: Any, tile: Any, grad: Any) -> None:
    """Write dz = dy y silu'(z), with the y from before the gate."""
    z, z_hop = walk(scan, scan.z, place)
    dz, dz_hop = walk(scan, grad.z, place)
    dy, dy_hop = walk(scan, grad.y, place)
    for i in range(place.length):
        gate = read(scan, scan.z, place, z + i * z_hop)
        s = sigmoid(gate)
        slope = fma(gate * s, splat(1.0) - s, s)
        value = read(scan, grad.y, place, dy + i * dy_hop) * load(tile.y + i * VECTOR)
        write(scan, grad.z, place, dz + i * dz_hop, value * slope)


@njit
def _reverse_place(scan: Any, place: Any, tile: Any, grad: Any, saved: int, sums: int) -> None:
    """Do the backward of one place; `saved` is the address of the states before it."""
    at = (place.item * scan.blocks + place.block) * scan.states * VECTOR
    _load_tokens(scan, place, tile, -CHUNK)
    _load_gradients(scan, place, tile, grad)
    for n in range(scan.states):
        state, da = grad.state + at + n * VECTOR, grad.A + at + n * VECTOR
        db, dc = sums + n * ROW, sums + (scan.states + n) * ROW
        _scan_state(scan, place, tile, n, load(saved + n * VECTOR))
        carry, part = _reverse_state(scan, place, tile, n, load(state), db, dc)
        store(state, carry)
        store(da, load(da) + part)
    _store_gradients(scan, place, tile, grad)
    if scan.z.address:
        _store_gate_gradient(scan, place, tile, grad)


@njit
def _sum_lanes(states: int, count: int, source: int, target: int) -> None:
    """Add up the lanes of (N, CHUNK, LANES) into (count, N)."""
    for n in range(states):
        for i in range(count):
            store_total(target + 4 * (i * states + n), load(source + n * ROW + i * VECTOR))


@njit
def _clear(address: int, size: int) -> None:
    for at in range(0, size, VECTOR):
        store(address + at, splat(0.0))


@njit
def _task(scan: Any, task: int) -> Any:
    """Return a task's item, its first block and the block after its last."""
    groups = (scan.blocks + scan.group - 1) // scan.group
    item, group = divmod(task, groups)
    return item, group * scan.group, min((group + 1) * scan.group, scan.blocks)


@njit
def _reverse_chunk(
    scan: Any, task: int, chunk: int, tile: Any, grad: Any, saved: int, sums: int, row: int
) -> None:
    """Do the backward of one chunk of a task, whose sums for dB and dC go to a row of each."""
    item, first_block, last_block = _task(scan, task)
    chunks = (scan.length + CHUNK - 1) // CHUNK
    count = min(CHUNK, scan.length - chunk * CHUNK)
    _clear(sums, 2 * scan.states * ROW)
    for block in range(first_block, last_block):
        place = Place(item, block, chunk * CHUNK, count)
        at = ((item * scan.blocks + block) * chunks + chunk) * scan.states * VECTOR
        _reverse_place(scan, place, tile, grad, saved + at, sums)
    _sum_lanes(scan.states, count, sums, grad.B + row)
    _sum_lanes(scan.states, count, sums + scan.states * ROW, grad.C + row)


@compiled
def forward(queue: Any, scratch: int, scan: Any, y: Any, state: int, saved: int) -> None:
    """Scan the tasks of a queue; `saved`, if any, gets the state before every chunk."""
    tile = tile_at(scratch + take_worker(queue) * TILE_ROWS * ROW)
    chunks = (scan.length + CHUNK - 1) // CHUNK
    size = scan.states * VECTOR
    start, stop = take_range(queue)
    while start < stop:
        for task in range(start, stop):
            item, first_block, last_block = _task(scan, task)
            for chunk in range(chunks):
                count = min(CHUNK, scan.length - chunk * CHUNK)
                for block in range(first_block, last_block):
                    place = Place(item, block, chunk * CHUNK, count)
                    at = item * scan.blocks + block
                    keep = saved + (at * chunks + chunk) * size if saved else 0
                    _scan_place(scan, place, tile, y, state + at * size, keep)
        finish(queue, stop - start)
        start, stop = take_range(queue)


@compiled
def backward(
    queue: Any,
    scratch: int,
    scan: Any,
    grad: Any,
    saved: int,
    first_chunk: int,
    last_chunk: int,
) -> None:
    """Do the backward of the tasks of a queue, from before last_chunk to first_chunk."""
    scratch += take_worker(queue) * (TILE_ROWS + 2 * scan.states) * ROW
    tile, sums = tile_at(scratch), scratch + TILE_ROWS * ROW
    start, stop = take_range(queue)
    while start < stop:
        for task in range(start, stop):
            for chunk in range(last_chunk - 1, first_chunk - 1, -1):
                row = (task * grad.rows + (chunk - first_chunk) * CHUNK) * scan.states * 4
                _reverse_chunk(scan, task, chunk, tile, grad, saved, sums, row)
        finish(queue, stop - start)
        start, stop = take_range(queue)
