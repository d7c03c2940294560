"""Lanes: a few channels side by side, which Numba kernels hold in vector registers.

Numba vectorises an innermost loop only if LLVM can prove a great deal about it, and never one that
calls `math.exp`. Kernels written with this type say it themselves: a value holds 16 channels in
float32 or 8 in float64, `+ - *` act on each, and LLVM cuts it to the width that the processor
has (one AVX-512 register, two of AVX2, four of NEON).

    h = load(state, offset)
    store(state, offset, h + fma(a, h, x))
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

_I32 = ir.IntType(32)


class Lanes(types.Type):
    """Numba's type of a vector of channels; `dtype` is float32 or float64."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.count = 512 // dtype.bitwidth
        super().__init__(name=f"Lanes({dtype})")

    @property
    def vector(self) -> ir.VectorType:
        scalar = ir.FloatType() if self.dtype == types.float32 else ir.DoubleType()
        return ir.VectorType(scalar, self.count)

    def constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.vector, [value] * self.count)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, lanes.vector)


@intrinsic
def pointer_at(typingctx, like, address):  # type: ignore[no-untyped-def]
    """An int64 address as a pointer to numbers of the type of `like`."""
    target = types.CPointer(like)

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[1], context.get_value_type(target))

    return target(like, types.int64), codegen


@intrinsic
def take_one(typingctx, counters, index):  # type: ignore[no-untyped-def]
    """The int64 at counters[index], which grows by 1; no two threads get the same."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        counter = builder.gep(args[0], [args[1]], inbounds=True)
        return builder.atomic_rmw("add", counter, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counters, types.intp), codegen


def _address(builder: Any, lanes: Lanes, pointer: Any, offset: Any) -> Any:
    first = builder.gep(pointer, [offset], inbounds=True)
    return builder.bitcast(first, lanes.vector.as_pointer())


@intrinsic
def load(typingctx, pointer, offset):  # type: ignore[no-untyped-def]
    """The lanes that start at pointer[offset]."""
    lanes = Lanes(pointer.dtype)

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.load(_address(builder, lanes, *args), align=lanes.dtype.bitwidth // 8)

    return lanes(pointer, types.intp), codegen


@intrinsic
def store(typingctx, pointer, offset, value):  # type: ignore[no-untyped-def]
    """Writes lanes to pointer[offset] and on."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        address = _address(builder, value, *args[:2])
        builder.store(args[2], address, align=value.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), codegen


@intrinsic
def lane_count(typingctx, like):  # type: ignore[no-untyped-def]
    """Numbers in a value, for numbers of the type of `like`."""
    count = ir.Constant(ir.IntType(64), Lanes(like).count)
    return types.intp(like), lambda context, builder, sig, args: count


@intrinsic
def splat(typingctx, scalar):  # type: ignore[no-untyped-def]
    """The same number in each lane."""
    lanes = Lanes(scalar)

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        undefined = ir.Constant(lanes.vector, ir.Undefined)
        one = builder.insert_element(undefined, args[0], ir.Constant(_I32, 0))
        everywhere = ir.Constant(ir.VectorType(_I32, lanes.count), None)
        return builder.shuffle_vector(one, undefined, everywhere)

    return lanes(scalar), codegen


@intrinsic
def zeros(typingctx, like):  # type: ignore[no-untyped-def]
    """0 in each lane, for numbers of the type of `like`."""
    lanes = Lanes(like)
    return lanes(like), lambda context, builder, sig, args: lanes.constant(0.0)


@intrinsic
def ones(typingctx, like):  # type: ignore[no-untyped-def]
    """1 in each lane, for numbers of the type of `like`."""
    lanes = Lanes(like)
    return lanes(like), lambda context, builder, sig, args: lanes.constant(1.0)


@intrinsic
def times_log2_e(typingctx, x):  # type: ignore[no-untyped-def]
    """x log2(e), so that e^x is 2 to this."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.fmul(args[0], x.constant(math.log2(math.e)))

    return x(x), codegen


def _register(symbol: Callable[..., Any], instruction: str) -> None:
    @infer_global(symbol)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):  # type: ignore[no-untyped-def]
            if len(args) == 2 and isinstance(args[0], Lanes) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(symbol, Lanes, Lanes)
    def _lower(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return getattr(builder, instruction)(*args)


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
):
    _register(_symbol, _instruction)


def _fma(builder: Any, lanes: Lanes, a: Any, b: Any, c: Any) -> Any:
    # fmuladd, not fma: where the processor has no fused operation it must not become a libm call
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(lanes.vector, [lanes.vector] * 3),
        f"llvm.fmuladd.v{lanes.count}f{lanes.dtype.bitwidth}",
    )
    return builder.call(function, (a, b, c))


@intrinsic
def fma(typingctx, a, b, c):  # type: ignore[no-untyped-def]
    """a * b + c, rounded once where the processor can."""
    return a(a, b, c), lambda context, builder, sig, args: _fma(builder, a, *args)


def _horner(builder: Any, lanes: Lanes, coefficients: Any, x: Any) -> Any:
    *lower, value = [lanes.constant(float(c)) for c in coefficients]
    for coefficient in reversed(lower):
        value = _fma(builder, lanes, value, x, coefficient)
    return value


@intrinsic
def power_of_two(typingctx, x):  # type: ignore[no-untyped-def]
    """2^x in two parts, (2^n, x - n) with n the integer nearest to x.

    Below the smallest normal number the first part is 0, above the largest it is infinite; a NaN
    stays in the second.
    """
    pair = types.UniTuple(x, 2)
    mantissa, bias = (23, 127) if x.dtype == types.float32 else (52, 1023)
    integer = ir.VectorType(ir.IntType(x.dtype.bitwidth), x.count)

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        (value,) = args
        # ordered comparisons are false for a NaN, so that it passes
        for sign, limit in (("<", -float(bias)), (">", bias + 1.0)):
            beyond = builder.fcmp_ordered(sign, value, x.constant(limit))
            value = builder.select(beyond, x.constant(limit), value)
        # adding 1.5 * 2^mantissa leaves the nearest integer in the low bits; with the exponent's
        # bias in it too, a shift makes them the bits of 2^n
        magic = x.constant(1.5 * 2.0**mantissa + bias)
        shifted = builder.fadd(value, magic)
        rest = builder.fsub(value, builder.fsub(shifted, magic))
        bits = builder.bitcast(shifted, integer)
        exponent = builder.shl(bits, ir.Constant(integer, [mantissa] * x.count))
        return context.make_tuple(builder, pair, [builder.bitcast(exponent, x.vector), rest])

    return pair(x), codegen


def _power_coefficients(degree: int) -> np.ndarray:
    """(2^x - 1) / x on [-1/2, 1/2], interpolated at Chebyshev's nodes."""

    def quotient(x: np.ndarray) -> np.ndarray:
        return np.where(x == 0.0, np.log(2.0), np.expm1(x * np.log(2.0)) / np.where(x == 0, 1, x))

    fit = np.polynomial.Chebyshev.interpolate(quotient, degree, domain=[-0.5, 0.5])
    return fit.convert(kind=np.polynomial.Polynomial).coef


# relative errors 2e-7 and 1e-16, of 2^x - 1 itself: a decay near 1 keeps its distance from 1
_POWER = {32: _power_coefficients(4), 64: _power_coefficients(11)}


@intrinsic
def power_minus_one(typingctx, x):  # type: ignore[no-untyped-def]
    """2^x - 1 for x in [-1/2, 1/2], accurate relative to itself."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        quotient = _horner(builder, x, _POWER[x.dtype.bitwidth], args[0])
        return builder.fmul(args[0], quotient)

    return x(x), codegen


@intrinsic
def log_one_plus(typingctx, x):  # type: ignore[no-untyped-def]
    """log(1 + x) for x in [0, 1], accurate relative to itself: 2 artanh(x / (2 + x)), whose series
    in the square of the quotient (at most 1/9) ends after 8 or 17 terms."""
    terms = 8 if x.dtype == types.float32 else 17
    series = [2.0 / (2 * i + 1) for i in range(terms)]

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        quotient = builder.fdiv(args[0], builder.fadd(args[0], x.constant(2.0)))
        square = builder.fmul(quotient, quotient)
        return builder.fmul(quotient, _horner(builder, x, series, square))

    return x(x), codegen


@intrinsic
def positive_and_minus_abs(typingctx, x):  # type: ignore[no-untyped-def]
    """(max(x, 0), -|x|); a NaN stays in the second."""
    pair = types.UniTuple(x, 2)

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        (value,) = args
        zero = x.constant(0.0)
        above = builder.fcmp_ordered(">", value, zero)
        opposite = builder.fsub(zero, value)
        parts = [builder.select(above, value, zero), builder.select(above, opposite, value)]
        return context.make_tuple(builder, pair, parts)

    return pair(x), codegen


@intrinsic
def two_totals(typingctx, a, b):  # type: ignore[no-untyped-def]
    """The sums of the lanes of a and of b, each by halving, so in a fixed order."""
    pair = types.UniTuple(a.dtype, 2)

    def half(builder, vector, indices):  # type: ignore[no-untyped-def]
        mask = ir.Constant(ir.VectorType(_I32, len(indices)), indices)
        return builder.shuffle_vector(vector[0], vector[1], mask)

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        # one vector holds what is left of both: [a's partial sums, b's partial sums]
        lanes, width = args, a.count
        starts = (0, width)
        while width > 1:
            width //= 2
            low = [start + i for start in starts for i in range(width)]
            high = [i + width for i in low]
            both = builder.fadd(half(builder, lanes, low), half(builder, lanes, high))
            lanes, starts = (both, ir.Constant(both.type, ir.Undefined)), (0, width)
        sums = [builder.extract_element(lanes[0], ir.Constant(_I32, i)) for i in (0, 1)]
        return context.make_tuple(builder, pair, sums)

    return pair(a, b), codegen
