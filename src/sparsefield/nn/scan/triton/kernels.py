"""The fused scan as Triton kernels, forward and backward.

A program is one warp: `LANES` channels of one item, a channel a thread, over the tokens of one
segment. It goes through the segment in tiles of `TILE` tokens. Within a tile the states run one
after the other (n outside, tokens inside), and the tokens are a Python tuple of vectors: unrolled,
so that a tile and the history of one state are registers by construction. No layout that the
compiler may choose moves anything between threads, except in sums over channels.

Tensors of tokens come as (pointer, stride of an item, stride of a token); tokens are counted in
the order of the scan. States and their gradients are (..., N, D) in float32, B and C (item, tile,
N, TILE), padded with zeros; A is (N, D), times log2(e).

Triton decides on import whether kernels are compiled or interpreted (TRITON_INTERPRET=1). The
interpreter of version 3.6 has no loops over a range known at run time: these are `while` loops.
"""

# mypy: disable-error-code="assignment"
# in a kernel a tuple may grow while a loop is unrolled

import triton
import triton.language as tl

from sparsefield.nn.scan.triton.tile import LANES, TILE

INTERPRETED = bool(triton.knobs.runtime.interpret)

_TILE, _LANES = tl.constexpr(TILE), tl.constexpr(LANES)
_LOG2_E, _LN_2 = tl.constexpr(1.4426950408889634), tl.constexpr(0.6931471805599453)

# the lengths and counts that vary between batches: a kernel is not compiled anew for any of them
_COUNTS = ["length", "tiles", "segments", "span", "slots", "hop", "first"]


@triton.jit
def _locate(width: tl.tensor, segments: tl.tensor, first: tl.tensor) -> tl.tuple:
    """Return the program's item, segment, channels, and which of these exist."""
    blocks = tl.cdiv(width, _LANES)
    pair = first + tl.program_id(0) // blocks
    channels = tl.program_id(0) % blocks * _LANES + tl.arange(0, _LANES)
    return (pair // segments).to(tl.int64), pair % segments, channels, channels < width


@triton.jit
def _walk(x: tl.tuple, place: tl.tuple, start: tl.tensor, REVERSE: tl.constexpr) -> tl.tuple:
    """Return where a token of the scan is, for all channels, and how far it is to the next."""
    item, length, channels, _ = place
    if REVERSE:
        first, hop = length - 1 - start, 0 - x[2]
    else:
        first, hop = start, x[2]
    return x[0] + item * x[1] + first.to(tl.int64) * x[2] + channels, hop


@triton.jit
def _load_tile(x: tl.tuple, place: tl.tuple, start: tl.tensor, REVERSE: tl.constexpr) -> tl.tuple:
    """Return the tokens of a tile in float32, zero after the end."""
    at, hop = _walk(x, place, start, REVERSE)
    tokens = ()
    for i in tl.static_range(_TILE):
        token = tl.load(at, mask=place[3] & (start + i < place[1]), other=0.0)
        tokens += (token.to(tl.float32),)
        at += hop
    return tokens


@triton.jit
def _store_tile(
    x: tl.tuple, tokens: tl.tuple, place: tl.tuple, start: tl.tensor, REVERSE: tl.constexpr
) -> None:
    """Write the tokens of a tile in the type of the tensor, none after the end."""
    at, hop = _walk(x, place, start, REVERSE)
    for i in tl.static_range(_TILE):
        token = tokens[i].to(x[0].dtype.element_ty)
        tl.store(at, token, mask=place[3] & (start + i < place[1]))
        at += hop


@triton.jit
def _load_steps(
    delta: tl.tuple,
    bias: tl.tensor,
    place: tl.tuple,
    start: tl.tensor,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
) -> tl.tuple:
    """Return the steps softplus(delta + bias) of a tile, or the sums, zero after the end.

    softplus(x) = max(x, 0) + log(1 + e) with e = exp(-abs(x)), and log(1 + e) = 2 atanh(t) by its
    series, with t = e / (2 + e) <= 1/3: however small, a step has all its digits.
    """
    raw = _load_tile(delta, place, start, REVERSE)
    steps = ()
    for i in tl.static_range(_TILE):
        step = raw[i] + bias
        if SOFTPLUS:
            e = tl.exp2(-tl.abs(step) * _LOG2_E)
            t = e / (2.0 + e)
            s = t * t
            series = 1 / 7 + s * (1 / 9 + s * (1 / 11 + s * (1 / 13)))
            series = 1.0 + s * (1 / 3 + s * (1 / 5 + s * series))
            step = tl.maximum(step, 0.0) + 2.0 * t * series
        steps += (tl.where(start + i < place[1], step, 0.0),)
    return steps


@triton.jit
def _products(x: tl.tuple, y: tl.tuple) -> tl.tuple:
    products = ()
    for i in tl.static_range(_TILE):
        products += (x[i] * y[i],)
    return products


@triton.jit
def _scaled(x: tl.tuple, factor: tl.tensor) -> tl.tuple:
    scaled = ()
    for i in tl.static_range(_TILE):
        scaled += (x[i] * factor,)
    return scaled


@triton.jit
def _silu(z: tl.tuple) -> tl.tuple:
    """Return silu(z) for the tokens of a tile."""
    gates = ()
    for i in tl.static_range(_TILE):
        gates += (z[i] / (1.0 + tl.exp2(-z[i] * _LOG2_E)),)
    return gates


@triton.jit
def _zeros() -> tl.tuple:
    zero = tl.zeros((_LANES,), tl.float32)
    zeros = ()
    for _ in tl.static_range(_TILE):
        zeros += (zero,)
    return zeros


@triton.jit(do_not_specialize=_COUNTS)
def sum_up(
    u: tl.tuple,
    delta: tl.tuple,
    B: tl.tensor,
    A: tl.tensor,
    bias: tl.tensor,
    states: tl.tensor,
    sums: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    tiles: tl.tensor,
    segments: tl.tensor,
    span: tl.tensor,
    slots: tl.tensor,
    hop: tl.tensor,
    N: tl.constexpr,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
) -> None:
    """Scan every segment but the last from zero; keep where it ends, and the sum of its steps.

    Both are put in the place of the segment that follows: `states` (item, slots, N, D), of which
    every `hop`th belongs to a segment, and `sums` (item, segments, D).
    """
    item, segment, channels, live = _locate(width, segments - 1, 0)
    place = (item, length, channels, live)
    slot = states + (item * slots + (segment + 1) * hop) * N * width + channels
    offset = tl.load(bias + channels, mask=live, other=0.0)
    total = tl.zeros((_LANES,), tl.float32)
    tile = segment * span
    while tile < (segment + 1) * span:
        start = tile * _TILE
        steps = _load_steps(delta, offset, place, start, REVERSE, SOFTPLUS)
        drives = _products(steps, _load_tile(u, place, start, REVERSE))
        for i in tl.static_range(_TILE):
            total += steps[i]
        for n in range(N):
            rate = tl.load(A + n * width + channels, mask=live, other=0.0)
            h = tl.load(slot + n * width, mask=live & (tile > segment * span), other=0.0)
            b = B + ((item * tiles + tile) * N + n) * _TILE
            for i in tl.static_range(_TILE):
                h = tl.exp2(steps[i] * rate) * h + drives[i] * tl.load(b + i)
            tl.store(slot + n * width, h, mask=live)
        tl.debug_barrier()
        tile += 1
    tl.store(sums + (item * segments + segment + 1) * width + channels, total, mask=live)


@triton.jit(do_not_specialize=_COUNTS)
def chain(
    states: tl.tensor,
    sums: tl.tensor,
    A: tl.tensor,
    width: tl.tensor,
    segments: tl.tensor,
    slots: tl.tensor,
    hop: tl.tensor,
    N: tl.constexpr,
) -> None:
    """Add to every segment's place what the places before it amount to, in order and in place."""
    row, _, channels, live = _locate(width, 1, 0)
    item, n = row // N, row % N
    rate = tl.load(A + n * width + channels, mask=live, other=0.0)
    slot = states + (item * slots * N + n) * width + channels
    h = tl.load(slot, mask=live, other=0.0)
    first = tl.full((), 1, tl.int32)
    while first < segments:
        # loaded before they are needed: one latency for a tile of segments
        totals, ends = (), ()
        for i in tl.static_range(_TILE):
            exists = live & (first + i < segments)
            total = sums + (item * segments + first + i) * width + channels
            end = slot + (first + i).to(tl.int64) * hop * N * width
            totals += (tl.load(total, mask=exists, other=0.0),)
            ends += (tl.load(end, mask=exists, other=0.0),)
        for i in tl.static_range(_TILE):
            h = tl.exp2(totals[i] * rate) * h + ends[i]
            end = slot + (first + i).to(tl.int64) * hop * N * width
            tl.store(end, h, mask=live & (first + i < segments))
        first += _TILE


@triton.jit(do_not_specialize=_COUNTS)
def scan(
    u: tl.tuple,
    delta: tl.tuple,
    z: tl.tuple,
    B: tl.tensor,
    C: tl.tensor,
    A: tl.tensor,
    D: tl.tensor,
    bias: tl.tensor,
    y: tl.tuple,
    states: tl.tensor,
    last: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    tiles: tl.tensor,
    segments: tl.tensor,
    span: tl.tensor,
    slots: tl.tensor,
    N: tl.constexpr,
    KEEP: tl.constexpr,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
) -> None:
    """Scan every segment from the state in its place; write y and the last state (item, N, D).

    With KEEP there is a slot for every tile, which gets the state before it; without, the slot
    of the segment is all there is.
    """
    item, segment, channels, live = _locate(width, segments, 0)
    place = (item, length, channels, live)
    tile = segment * span
    end = tl.minimum(tile + span, tiles)
    hop = N * width if KEEP else 0
    slot = states + (item * slots + (tile if KEEP else segment)) * N * width + channels
    last = last + item * N * width + channels
    offset = tl.load(bias + channels, mask=live, other=0.0)
    skip = tl.load(D + channels, mask=live, other=0.0)
    while tile < end:
        start = tile * _TILE
        steps = _load_steps(delta, offset, place, start, REVERSE, SOFTPLUS)
        value = _load_tile(u, place, start, REVERSE)
        drives = _products(steps, value)
        out = _scaled(value, skip)
        for n in range(N):
            rate = tl.load(A + n * width + channels, mask=live, other=0.0)
            h = tl.load(slot + n * width, mask=live, other=0.0)
            b = B + ((item * tiles + tile) * N + n) * _TILE
            c = C + ((item * tiles + tile) * N + n) * _TILE
            more = ()
            for i in tl.static_range(_TILE):
                h = tl.exp2(steps[i] * rate) * h + drives[i] * tl.load(b + i)
                more += (out[i] + h * tl.load(c + i),)
            out = more
            tl.store(slot + hop + n * width, h, mask=live & (tile + 1 < end))
            tl.store(last + n * width, h, mask=live & (tile + 1 == tiles))
        if z is not None:
            out = _products(out, _silu(_load_tile(z, place, start, REVERSE)))
        _store_tile(y, out, place, start, REVERSE)
        tl.debug_barrier()
        slot += hop
        tile += 1


@triton.jit
def _load_output_gradients(
    dy: tl.tuple, z: tl.tuple, place: tl.tuple, start: tl.tensor, REVERSE: tl.constexpr
) -> tl.tuple:
    """Return the gradients of a tile's outputs before the gate."""
    dp = _load_tile(dy, place, start, REVERSE)
    if z is not None:
        dp = _products(dp, _silu(_load_tile(z, place, start, REVERSE)))
    return dp


@triton.jit(do_not_specialize=_COUNTS)
def sum_up_gradients(
    delta: tl.tuple,
    z: tl.tuple,
    dy: tl.tuple,
    C: tl.tensor,
    A: tl.tensor,
    bias: tl.tensor,
    carries: tl.tensor,
    sums: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    tiles: tl.tensor,
    segments: tl.tensor,
    span: tl.tensor,
    N: tl.constexpr,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
) -> None:
    """Run the state's gradient back through every segment but the first, from zero after it.

    As `sum_up`, in the order of the backward: place 0 is that of the last segment.
    """
    item, rank, channels, live = _locate(width, segments - 1, 0)
    place = (item, length, channels, live)
    slot = carries + (item * segments + rank + 1) * N * width + channels
    begin = (segments - 1 - rank) * span
    end = tl.minimum(begin + span, tiles)
    offset = tl.load(bias + channels, mask=live, other=0.0)
    total = tl.zeros((_LANES,), tl.float32)
    tile = end - 1
    while tile >= begin:
        start = tile * _TILE
        steps = _load_steps(delta, offset, place, start, REVERSE, SOFTPLUS)
        dp = _load_output_gradients(dy, z, place, start, REVERSE)
        for i in tl.static_range(_TILE):
            total += steps[i]
        for n in range(N):
            rate = tl.load(A + n * width + channels, mask=live, other=0.0)
            carry = tl.load(slot + n * width, mask=live & (tile + 1 < end), other=0.0)
            c = C + ((item * tiles + tile) * N + n) * _TILE
            for i in tl.static_range(_TILE - 1, -1, -1):
                carry = tl.exp2(steps[i] * rate) * (carry + dp[i] * tl.load(c + i))
            tl.store(slot + n * width, carry, mask=live)
        tl.debug_barrier()
        tile -= 1
    tl.store(sums + (item * segments + rank + 1) * width + channels, total, mask=live)


@triton.jit
def _states(
    steps: tl.tuple, drives: tl.tuple, rate: tl.tensor, h: tl.tensor, b: tl.tensor
) -> tl.tuple:
    """Return the decays of a tile, and its states from the one before to the last."""
    decays, states = (), (h,)
    for i in tl.static_range(_TILE):
        decay = tl.exp2(steps[i] * rate)
        h = decay * h + drives[i] * tl.load(b + i)
        decays += (decay,)
        states += (h,)
    return decays, states


@triton.jit
def _reverse_state(
    tile: tl.tuple, sums: tl.tuple, rate: tl.tensor, h: tl.tensor, carry: tl.tensor, bc: tl.tuple
) -> tl.tuple:
    """Run the gradient of one state back through a tile, from `carry`, that of the state after.

    Returns it before the tile, the parts of A's, the sums over channels for B's and C's side by
    side, and the sums over states (output, gradients of steps and drives) with this one added.
    """
    steps, drives, dp = tile
    b, c = bc
    decays, hs = _states(steps, drives, rate, h, b)
    out, dstep, ddrive = (), (), ()
    da = tl.zeros((_LANES,), tl.float32)
    rows, lanes = tl.zeros((2 * _TILE,), tl.float32), tl.arange(0, 2 * _TILE)
    for i in tl.static_range(_TILE - 1, -1, -1):
        b_i, c_i = tl.load(b + i), tl.load(c + i)
        g = carry + dp[i] * c_i
        carry = decays[i] * g
        slope = carry * hs[i]
        da += slope * steps[i]
        rows = tl.where(lanes == i, tl.sum(g * drives[i], 0), rows)
        rows = tl.where(lanes == _TILE + i, tl.sum(hs[i + 1] * dp[i], 0), rows)
        out = (sums[0][i] + hs[i + 1] * c_i,) + out  # noqa: RUF005
        dstep = (sums[1][i] + slope * rate,) + dstep  # noqa: RUF005
        ddrive = (sums[2][i] + g * b_i,) + ddrive  # noqa: RUF005
    return carry, da, rows, (out, dstep, ddrive)


@triton.jit(do_not_specialize=_COUNTS)
def reverse(
    u: tl.tuple,
    delta: tl.tuple,
    z: tl.tuple,
    dy: tl.tuple,
    B: tl.tensor,
    C: tl.tensor,
    A: tl.tensor,
    D: tl.tensor,
    bias: tl.tensor,
    states: tl.tensor,
    carries: tl.tensor,
    du: tl.tuple,
    ddelta: tl.tuple,
    dz: tl.tuple,
    dBC: tl.tensor,
    dA: tl.tensor,
    dD: tl.tensor,
    dbias: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    tiles: tl.tensor,
    segments: tl.tensor,
    span: tl.tensor,
    first: tl.tensor,
    N: tl.constexpr,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
) -> None:
    """Go back through every segment, from the gradient of the state after it in its place.

    The segments of all items are numbered together and begin with `first`. Sums over the channels
    of the program go to `dBC` (segment - first, block, tile, N, 2 TILE), B's gradient and C's side
    by side; sums over its tokens to `dA` (item, segment, N, D), `dD` and `dbias` (.., D).
    """
    item, segment, channels, live = _locate(width, segments, first)
    place = (item, length, channels, live)
    row = item * segments + segment
    slot = carries + (item * segments + segments - 1 - segment) * N * width + channels
    dA_at = dA + row * N * width + channels
    begin = segment * span
    end = tl.minimum(begin + span, tiles)
    offset = tl.load(bias + channels, mask=live, other=0.0)
    skip = tl.load(D + channels, mask=live, other=0.0)
    lanes = tl.arange(0, 2 * _TILE)
    skip_sum = tl.zeros((_LANES,), tl.float32)
    bias_sum = tl.zeros((_LANES,), tl.float32)
    tile = end - 1
    while tile >= begin:
        start = tile * _TILE
        steps = _load_steps(delta, offset, place, start, REVERSE, SOFTPLUS)
        value = _load_tile(u, place, start, REVERSE)
        dp = _load_output_gradients(dy, z, place, start, REVERSE)
        drives = _products(steps, value)
        sums = (_scaled(value, skip), _zeros(), _zeros())
        at = item * tiles + tile
        dBC_at = dBC + (tl.program_id(0).to(tl.int64) * span + tile - begin) * N * 2 * _TILE
        for n in range(N):
            rate = tl.load(A + n * width + channels, mask=live, other=0.0)
            bc = B + (at * N + n) * _TILE, C + (at * N + n) * _TILE
            h = tl.load(states + (at * N + n) * width + channels, mask=live, other=0.0)
            carry = tl.load(slot + n * width, mask=live, other=0.0)
            da = tl.load(dA_at + n * width, mask=live & (tile + 1 < end), other=0.0)
            carry, part, rows, sums = _reverse_state((steps, drives, dp), sums, rate, h, carry, bc)
            tl.store(slot + n * width, carry, mask=live)
            tl.store(dA_at + n * width, da + part, mask=live)
            tl.store(dBC_at + n * 2 * _TILE + lanes, rows)
        # read again rather than kept: registers are scarce in the loop above
        raw = _load_tile(delta, place, start, REVERSE)
        value = _load_tile(u, place, start, REVERSE)
        out, dstep, ddrive = sums
        dvalues, dsteps = (), ()
        for i in tl.static_range(_TILE):
            draw = ddrive[i] * value[i] + dstep[i] * _LN_2
            if SOFTPLUS:
                draw = draw / (1.0 + tl.exp2(-(raw[i] + offset) * _LOG2_E))
            skip_sum += dp[i] * value[i]
            bias_sum += tl.where(start + i < length, draw, 0.0)
            dsteps += (draw,)
            dvalues += (ddrive[i] * steps[i] + skip * dp[i],)
        _store_tile(ddelta, dsteps, place, start, REVERSE)
        _store_tile(du, dvalues, place, start, REVERSE)
        if z is not None:
            gate = _load_tile(z, place, start, REVERSE)
            outer = _load_tile(dy, place, start, REVERSE)
            dgates = ()
            for i in tl.static_range(_TILE):
                s = 1.0 / (1.0 + tl.exp2(-gate[i] * _LOG2_E))
                dgates += (outer[i] * out[i] * s * (1.0 + gate[i] * (1.0 - s)),)
            _store_tile(dz, dgates, place, start, REVERSE)
        tl.debug_barrier()
        tile -= 1
    tl.store(dD + row * width + channels, skip_sum, mask=live)
    tl.store(dbias + row * width + channels, bias_sum, mask=live)
