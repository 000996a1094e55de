"""The three products of attention, on `ROWS` gathered rows of `WIDTH` float32 values each.

Row i lies at `base + offsets[i]`; all arguments but scales are addresses, all loops are unrolled
in the emitted code. A row fills one AVX-512 register; LLVM splits it for smaller ones.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sparsefield.nn.scan.cpu.simd import LANES, lanes

WIDTH = ROWS = 16

_F32 = ir.FloatType()
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_ROW = ir.VectorType(_F32, WIDTH)


def _shuffle(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(order)), order))


def _pointer(builder: Any, address: Any, kind: ir.Type, number: int = 0) -> Any:
    """Return the pointer to element `number` of an array."""
    pointer = builder.inttoptr(address, kind.as_pointer())
    return builder.gep(pointer, [_I64(number)], source_etype=kind)


def _load(builder: Any, pointer: Any) -> Any:
    return builder.load(pointer, align=4)


def _row(builder: Any, offsets: Any, base: Any, number: int) -> Any:
    """Return the pointer to a gathered row."""
    offset = builder.load(_pointer(builder, offsets, _I64, number), align=8)
    return _pointer(builder, builder.add(base, offset), _ROW)


def _splat(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_ROW, ir.Undefined)
    single = builder.insert_element(undefined, scalar, _I32(0))
    return _shuffle(builder, single, undefined, [0] * WIDTH)


def _weight(builder: Any, weights: Any, number: int) -> Any:
    return _splat(builder, _load(builder, _pointer(builder, weights, _F32, number)))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    product = builder.fmul(a, b, flags=("contract",))
    return builder.fadd(product, c, flags=("contract",))


def _neighbour_sums(builder: Any, a: Any, b: Any, unit: int) -> Any:
    """Return the sums of neighbouring units of `unit` lanes, a's and b's side by side.

    Within groups of four units, because shuffles inside 128 bits, or of 128 bits, are cheap.
    """

    def pick(odd: int) -> Any:
        units = [source * WIDTH + unit * (2 * i + odd) for source in (0, 1) for i in (0, 1)]
        groups = range(0, WIDTH, 4 * unit)
        order = [group + first + i for group in groups for first in units for i in range(unit)]
        return _shuffle(builder, a, b, order)

    return builder.fadd(pick(0), pick(1))


def _totals(builder: Any, vector: Callable[[int], Any], first: int, count: int) -> Any:
    """Return a vector whose lane i is the total of vector(i), depth first to spare registers."""
    if count == 1:
        return vector(first)
    a = _totals(builder, vector, first, count // 2)
    b = _totals(builder, vector, first + count // 2, count // 2)
    return _neighbour_sums(builder, a, b, unit=1 if count <= 4 else 4)


@intrinsic
def add_dots(typingctx: Any, scale: Any, query: Any, offsets: Any, base: Any, scores: Any) -> Any:
    """Add scale * (query . row) to the score of every row."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        scale, query, offsets, base, scores = args
        scaled = builder.fmul(
            _splat(builder, scale), _load(builder, _pointer(builder, query, _ROW))
        )

        def product(i: int) -> Any:
            return builder.fmul(scaled, _load(builder, _row(builder, offsets, base, i)))

        target = _pointer(builder, scores, _ROW)
        total = builder.fadd(_load(builder, target), _totals(builder, product, 0, ROWS))
        builder.store(total, target, align=4)
        return context.get_dummy_value()

    intp = types.intp
    return types.void(types.float32, intp, intp, intp, intp), codegen


@intrinsic
def add_combination(
    typingctx: Any, scale: Any, weights: Any, offsets: Any, base: Any, out: Any
) -> Any:
    """Add scale * sum(weight * row) to the row `out`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        scale, weights, offsets, base, out = args
        sums = [ir.Constant(_ROW, None)] * 4  # independent, to hide the latency of an addition
        for i in range(ROWS):
            row = _load(builder, _row(builder, offsets, base, i))
            sums[i % 4] = _multiply_add(builder, _weight(builder, weights, i), row, sums[i % 4])
        total = builder.fadd(builder.fadd(sums[0], sums[1]), builder.fadd(sums[2], sums[3]))
        target = _pointer(builder, out, _ROW)
        total = _multiply_add(builder, _splat(builder, scale), total, _load(builder, target))
        builder.store(total, target, align=4)
        return context.get_dummy_value()

    intp = types.intp
    return types.void(types.float32, intp, intp, intp, intp), codegen


@intrinsic
def scatter(typingctx: Any, weights: Any, value: Any, offsets: Any, base: Any) -> Any:
    """Add weight * value to every row, one after the other: rows may occur twice."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        weights, value, offsets, base = args
        value = _load(builder, _pointer(builder, value, _ROW))
        for i in range(ROWS):
            target = _row(builder, offsets, base, i)
            row = _load(builder, target)
            row = _multiply_add(builder, _weight(builder, weights, i), value, row)
            builder.store(row, target, align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


def _fold(builder: Any, vector: Any, merge: Callable[[Any, Any], Any]) -> Any:
    """Merge the lanes of a vector in a tree of fixed shape."""
    width = LANES
    while width > 1:
        width //= 2
        other = _shuffle(builder, vector, vector, [(i + width) % LANES for i in range(LANES)])
        vector = merge(vector, other)
    return builder.extract_element(vector, _I32(0))


@intrinsic
def total(typingctx: Any, value: Any) -> Any:
    """Return the sum of the lanes of a vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _fold(builder, args[0], builder.fadd)

    return types.float32(lanes), codegen


@intrinsic
def largest(typingctx: Any, value: Any) -> Any:
    """Return the largest of the lanes of a vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def larger(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", b, a), b, a)

        return _fold(builder, args[0], larger)

    return types.float32(lanes), codegen
