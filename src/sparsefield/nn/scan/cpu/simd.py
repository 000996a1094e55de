"""A vector of float32 lanes for numba kernels, with the elementary functions the scan needs.

numba leaves vectorisation to the compiler, which gives up on loops as short and as entangled as
a scan's. Here a value of type `lanes` *is* a vector: `+ - * /` act on all lanes at once, and LLVM
splits it into as many registers as the processor needs (two with AVX-512, four with AVX2, eight
with NEON or SSE). Arithmetic is as written; NaN and infinity follow IEEE 754. Memory is named by
address, since numba would count a reference for every array that a function passes on.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

LANES = 32
LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453

_F32, _I16, _I32 = ir.FloatType(), ir.IntType(16), ir.IntType(32)
_VECTOR = ir.VectorType(_F32, LANES)
_INTEGERS = ir.VectorType(_I32, LANES)
_HALVES = ir.VectorType(_I16, LANES)
_NUMBERS = ir.Constant(_INTEGERS, list(range(LANES)))


class LanesType(types.Type):  # type: ignore[misc]
    """The numba type of a vector of `LANES` float32 values."""

    def __init__(self) -> None:
        super().__init__(name=f"lanes{LANES}")


lanes = LanesType()
register_model(LanesType)(lambda manager, kind: models.PrimitiveModel(manager, kind, _VECTOR))


def _arithmetic(op: Callable[..., Any], instruction: str) -> None:
    """Teach numba one infix operator on two vectors."""

    @infer_global(op)
    class Template(ConcreteTemplate):  # type: ignore[misc]
        cases = [signature(lanes, lanes, lanes)]  # noqa: RUF012

    @lower_builtin(op, lanes, lanes)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


def _constant(vector: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(vector, [value] * LANES)


def _fill(builder: Any, scalar: Any, vector: ir.VectorType) -> Any:
    """Return the vector with the scalar in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    single = builder.insert_element(undefined, scalar, _I32(0))
    return builder.shuffle_vector(single, undefined, _constant(_INTEGERS, 0))


def _pointer(builder: Any, address: Any, target: ir.Type) -> Any:
    return builder.inttoptr(address, target.as_pointer())


def _call(builder: Any, name: str, result: ir.Type, args: list[Any]) -> Any:
    """Call an LLVM intrinsic."""
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


@intrinsic
def splat(typingctx: Any, value: Any) -> Any:
    """Return a vector with the number in every lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _fill(builder, context.cast(builder, args[0], value, types.float32), _VECTOR)

    return lanes(value), codegen


@intrinsic
def broadcast(typingctx: Any, address: Any) -> Any:
    """Return a vector with the float32 at the address in every lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _fill(builder, builder.load(_pointer(builder, args[0], _F32), align=4), _VECTOR)

    return lanes(types.intp), codegen


@intrinsic
def load(typingctx: Any, address: Any) -> Any:
    """Return the `LANES` consecutive float32 values at the address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], _VECTOR), align=4)

    return lanes(types.intp), codegen


@intrinsic
def store(typingctx: Any, address: Any, value: Any) -> Any:
    """Write the lanes to consecutive float32 values at the address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], _pointer(builder, args[0], _VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, lanes), codegen


@intrinsic
def store_total(typingctx: Any, address: Any, value: Any) -> Any:
    """Write the sum over the lanes, added in a tree of fixed shape, to the address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector, width = args[1], LANES
        while width > 1:
            width //= 2
            halves = [
                builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_I32, width), s))
                for s in (list(range(width)), list(range(width, 2 * width)))
            ]
            vector = builder.fadd(*halves)
        total = builder.extract_element(vector, _I32(0))
        builder.store(total, _pointer(builder, args[0], _F32), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, lanes), codegen


@intrinsic
def prefetch(typingctx: Any, address: Any) -> Any:
    """Ask for the cache lines of a vector at the address, which need not be valid."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        for line in range(0, 4 * LANES, 64):
            pointer = _pointer(builder, builder.add(args[0], args[0].type(line)), ir.IntType(8))
            hints = [_I32(0), _I32(3), _I32(1)]  # to read, into the nearest cache, data
            _call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *hints])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


def _widen(builder: Any, halves: Any) -> Any:
    """Return bfloat16 bits as float32 values."""
    bits = builder.shl(builder.zext(halves, _INTEGERS), _constant(_INTEGERS, 16))
    return builder.bitcast(bits, _VECTOR)


def _narrow(builder: Any, value: Any) -> Any:
    """Return float32 values as bfloat16 bits, rounded to nearest even, NaN kept."""
    bits = builder.bitcast(value, _INTEGERS)
    sixteen = _constant(_INTEGERS, 16)
    odd = builder.and_(builder.lshr(bits, sixteen), _constant(_INTEGERS, 1))
    rounded = builder.add(builder.add(bits, odd), _constant(_INTEGERS, 0x7FFF))
    nan = builder.or_(bits, _constant(_INTEGERS, 0x400000))
    bits = builder.select(builder.fcmp_unordered("uno", value, value), nan, rounded)
    return builder.trunc(builder.lshr(bits, sixteen), _HALVES)


def _first(builder: Any, count: Any) -> Any:
    """Return the mask of the first `count` lanes."""
    limit = _fill(builder, builder.trunc(count, _I32), _INTEGERS)
    return builder.icmp_signed("<", _NUMBERS, limit)


def _load_masked(builder: Any, address: Any, count: Any, memory: ir.VectorType) -> Any:
    name = f"llvm.masked.load.v{LANES}{'i16' if memory is _HALVES else 'f32'}.p0"
    pointer, mask = _pointer(builder, address, memory), _first(builder, count)
    zero = ir.Constant(memory, None)
    return _call(builder, name, memory, [pointer, _I32(2), mask, zero])


def _store_masked(builder: Any, address: Any, count: Any, value: Any) -> None:
    name = f"llvm.masked.store.v{LANES}{'i16' if value.type is _HALVES else 'f32'}.p0"
    pointer, mask = _pointer(builder, address, value.type), _first(builder, count)
    _call(builder, name, ir.VoidType(), [value, pointer, _I32(2), mask])


@intrinsic
def load_first(typingctx: Any, address: Any, count: Any) -> Any:
    """Return the first `count` float32 values at the address, zero in the other lanes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _load_masked(builder, args[0], args[1], _VECTOR)

    return lanes(types.intp, types.intp), codegen


@intrinsic
def load_first_bfloat16(typingctx: Any, address: Any, count: Any) -> Any:
    """Return the first `count` bfloat16 values at the address, zero in the other lanes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _widen(builder, _load_masked(builder, args[0], args[1], _HALVES))

    return lanes(types.intp, types.intp), codegen


@intrinsic
def store_first(typingctx: Any, address: Any, count: Any, value: Any) -> Any:
    """Write the first `count` lanes to the address; leave the memory after them alone."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _store_masked(builder, *args)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, lanes), codegen


@intrinsic
def store_first_bfloat16(typingctx: Any, address: Any, count: Any, value: Any) -> Any:
    """Write the first `count` lanes as bfloat16 to the address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _store_masked(builder, args[0], args[1], _narrow(builder, args[2]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, lanes), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, in one rounding where the processor can."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, f"llvm.fmuladd.v{LANES}f32", _VECTOR, list(args))

    return lanes(lanes, lanes, lanes), codegen


@intrinsic
def at_least(typingctx: Any, value: Any, bound: Any) -> Any:
    """Return max(value, bound) per lane, NaN where the value is NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args), args[1], args[0])

    return lanes(lanes, lanes), codegen


@intrinsic
def at_most(typingctx: Any, value: Any, bound: Any) -> Any:
    """Return min(value, bound) per lane, NaN where the value is NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), args[1], args[0])

    return lanes(lanes, lanes), codegen


@intrinsic
def _power_of_two(typingctx: Any, shifted: Any) -> Any:
    """Return 2^k for the integer k in the low mantissa bits: 0 for -127, infinity for 128."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.add(builder.bitcast(args[0], _INTEGERS), _constant(_INTEGERS, 127))
        return builder.bitcast(builder.shl(bits, _constant(_INTEGERS, 23)), _VECTOR)

    return lanes(lanes), codegen


@njit
def exp2(x: Any) -> Any:
    """Return 2^x to 1.5 units in the last place; 0 below -126.5, infinity above 127.5.

    With k the integer nearest to x, 2^x = 2^k 2^(x - k); the polynomial for the second factor has
    relative error 9.2e-8 and is exact at 0, so that slow decays stay exact.
    """
    x = at_most(at_least(x, splat(-127.0)), splat(128.0))
    # 1.5 * 2^23: the sum has no bits left for a fraction, so that it rounds to an integer
    shifted = x + splat(12582912.0)
    r = x - (shifted - splat(12582912.0))
    p = splat(0.001326472731307149)
    p = fma(p, r, splat(0.009671512991189957))
    p = fma(p, r, splat(0.05550733581185341))
    p = fma(p, r, splat(0.24022242426872253))
    p = fma(p, r, splat(0.6931470036506653))
    p = fma(p, r, splat(1.0))
    return p * _power_of_two(shifted)


@njit
def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x))."""
    return splat(1.0) / (splat(1.0) + exp2(splat(-LOG2_E) * x))


@njit
def softplus(x: Any) -> Any:
    """Return log(1 + exp(x)) to a few units in the last place, however negative x is.

    With e = exp(-|x|), the logarithm is max(x, 0) + 2 artanh(e / (2 + e)), where the inverse
    hyperbolic tangent of an argument below 1/3 is an odd polynomial.
    """
    magnitude = at_least(x, splat(0.0) - x)
    e = exp2(splat(-LOG2_E) * magnitude)
    s = e / (splat(2.0) + e)
    q = s * s
    p = splat(0.1400599479675293)
    p = fma(p, q, splat(0.14000903069972992))
    p = fma(p, q, splat(0.2001076340675354))
    p = fma(p, q, splat(0.3333320915699005))
    p = fma(p, q, splat(1.0))
    return at_least(x, splat(0.0)) + splat(2.0) * s * p
