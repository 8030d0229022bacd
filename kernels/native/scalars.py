"""What Numba lacks for kernels over raw memory: typed addresses, half types, a shared counter.

A kernel's elements are float32, bfloat16 or float16; `load` and `store` convert, so that all sums
are in float32.
"""

from __future__ import annotations

import platform
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# Sums may be reordered and products fused, once and for all when the kernel is compiled. NaN and
# infinities stay what they are.
OPTIONS: Final = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}

compiled = njit(**OPTIONS)

# What a kernel's elements are is told by the type of its pointer. Numba knows no bfloat16, and of
# float16 only a part: both are words to it.
FLOATS = types.CPointer(types.float32)
BFLOATS = types.CPointer(types.uint16)
HALVES = types.CPointer(types.int16)

_FLOAT, _WORD, _HALF = ir.FloatType(), ir.IntType(16), ir.HalfType()
_BITS = ir.IntType(32)


class BFloat(ir.types._BaseFloatType):  # noqa: SLF001 - llvmlite has every float type but this
    """LLVM's bfloat."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"


BFloat._create_instance()  # noqa: SLF001 - as for llvmlite's own


def declared(builder: Any, kind: Any, name: str) -> Any:
    """Return LLVM's own function of a name, declared where it is called."""
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


def everywhere(builder: Any, word: Any, kind: Any) -> Any:
    """Emit 32 bits, a float or a pair of bfloats, repeated to a vector of a kind.

    Of pairs a vector has twice as many numbers as of floats.
    """
    lanes = kind.count if kind.element == _FLOAT else kind.count // 2
    words = ir.VectorType(_BITS, lanes)
    one = builder.insert_element(words(ir.Undefined), word, _BITS(0))
    every = builder.shuffle_vector(one, words(ir.Undefined), words([0] * lanes))
    return builder.bitcast(every, kind)


def _address(pointee: Any) -> Any:
    """Make the function that takes a number as the address of such elements."""

    @intrinsic
    def at(_typing: Any, address: Any) -> Any:
        pointer = types.CPointer(pointee)

        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.int64), generate

    return at


floats = _address(types.float32)
bytes_at = _address(types.uint8)
int32s = _address(types.int32)
int64s = _address(types.int64)


@intrinsic
def elements(_typing: Any, address: Any, like: Any) -> Any:
    """Take a number as the address of elements of the type that `like` points to."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(like))

    return like(types.int64, like), generate


@intrinsic
def untyped(_typing: Any, pointer: Any) -> Any:
    """Return a pointer without its type, as `carray` takes it."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(pointer), generate


@intrinsic
def as_float(_typing: Any, bits: Any) -> Any:
    """Read 32 bits as a float32."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _FLOAT)

    return types.float32(types.uint32), generate


@intrinsic
def size_bits(_typing: Any, value: Any) -> Any:
    """Return the bits of |value|, a float32, as an int32: they rise with it, infinity and NaN last.

    Largest numbers are found by them in any order, eight or sixteen at a time.
    """

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.and_(builder.bitcast(args[0], _BITS), _BITS(0x7FFFFFFF))

    return types.int32(types.float32), generate


def _counter(place: int, purpose: str) -> Any:
    """Make the function that counts one on in a word of a kernel's record, see `record`."""

    @intrinsic
    def count(_typing: Any, pointer: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            word = ir.IntType(64)
            counter = builder.gep(builder.bitcast(args[0], word.as_pointer()), [word(place)])
            return builder.atomic_rmw("add", counter, word(1), "acq_rel")

        return types.int64(pointer), generate

    count.__doc__ = purpose
    return count


@intrinsic
def count_up(_typing: Any, words: Any, at: Any) -> Any:
    """Add one to an int64 that other threads see; what this one wrote before is seen with it."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.atomic_rmw(
            "add", builder.gep(args[0], [args[1]]), args[1].type(1), "acq_rel"
        )

    return types.int64(words, types.int64), generate


@intrinsic
def seen(_typing: Any, words: Any, at: Any) -> Any:
    """Return an int64 that other threads change, and with it all that they wrote before."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "acquire", align=8)

    return types.int64(words, types.int64), generate


@intrinsic
def pause(_typing: Any) -> Any:
    """Tell the processor that this thread waits for another one's memory."""

    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        if platform.machine() in {"x86_64", "AMD64"}:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(declared(builder, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), generate


take = _counter(0, "Return the number of the next task, each once.")
own_number = _counter(2, "Return a number that no other thread of this call has; ask once.")


def emit_prefetch(builder: Any, place: Any) -> None:
    """Emit that a line of memory is asked for."""
    line = builder.bitcast(place, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [line.type, _BITS, _BITS, _BITS])
    ask = declared(builder, kind, "llvm.prefetch.p0")
    builder.call(ask, [line, _BITS(0), _BITS(3), _BITS(1)])  # read, into all levels, data


@intrinsic
def _prefetch(_typing: Any, pointer: Any, index: Any) -> Any:

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        emit_prefetch(builder, builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(pointer, types.int64), generate


def widened(builder: Any, kind: Any, value: Any) -> Any:
    """Emit what makes floats of elements that a `kind` points to: of one, or of a vector."""
    lanes = value.type.count if isinstance(value.type, ir.VectorType) else 0

    def like(each: Any) -> Any:
        return ir.VectorType(each, lanes) if lanes else each

    if kind == FLOATS:
        return value
    if kind == HALVES:
        return builder.fpext(builder.bitcast(value, like(_HALF)), like(_FLOAT))
    bits = builder.zext(value, like(_BITS))
    by = like(_BITS)([16] * lanes if lanes else 16)
    return builder.bitcast(builder.shl(bits, by), like(_FLOAT))


@intrinsic
def load(_typing: Any, pointer: Any, index: Any) -> Any:
    """Return pointer[index] as a float32."""

    def generate(_context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(builder.gep(args[0], [args[1]]))
        return widened(builder, signature.args[0], value)

    return types.float32(pointer, types.int64), generate


@intrinsic
def store(_typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Set pointer[index] to a float32, rounded to the nearest (even) where it is a half type."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, at, number = args
        if signature.args[0] == HALVES:
            number = builder.bitcast(builder.fptrunc(number, _HALF), _WORD)
        elif signature.args[0] == BFLOATS:
            bits = builder.bitcast(number, _BITS)
            odd = builder.and_(builder.lshr(bits, _BITS(16)), _BITS(1))
            rounded = builder.add(builder.add(bits, _BITS(0x7FFF)), odd)
            is_nan = builder.fcmp_unordered("uno", number, number)
            rounded = builder.select(is_nan, _BITS(0x7FC00000), rounded)
            number = builder.trunc(builder.lshr(rounded, _BITS(16)), _WORD)
        builder.store(number, builder.gep(target, [at]))
        return context.get_dummy_value()

    return types.void(pointer, types.int64, types.float32), generate


@compiled
def ask_for(pointer: Any, base: Any, count: Any, line: Any) -> None:
    """Ask for so many elements, `line` of them a cache line: they are read soon, nobody waits now.

    No address is wrong here: what there is not is not brought.
    """
    for i in range(base, base + count, line):
        _prefetch(pointer, i)


@njit(fastmath={"contract"}, error_model="numpy")
def exp(x: Any) -> Any:
    """Return e^x for x <= 87 in float32, to a unit of the last place; at least e^-87.

    NaN is NaN. By Cody and Waite's reduction, in whose order the sums have to stay, and the
    polynomial of Cephes' expf.
    """
    given = x
    x = max(np.float32(-87.0), x)
    n = np.floor(x * np.float32(1.44269504088896341) + np.float32(0.5))
    f = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * f + np.float32(1.3981999507e-3)
    p = p * f + np.float32(8.3334519073e-3)
    p = p * f + np.float32(4.1665795894e-2)
    p = p * f + np.float32(1.6666665459e-1)
    p = p * f + np.float32(5.0000001201e-1)
    p = p * f * f + f + np.float32(1.0)
    power = p * as_float(np.uint32(np.int32(n) + np.int32(127)) << np.uint32(23))
    return power if given == given else given  # noqa: PLR0124 - NaN is what does not equal itself


@compiled
def cap(x: Any, most: Any) -> Any:
    """Return most · tanh(x / most), by the exponential that cannot overflow."""
    e = exp(np.float32(-2) * abs(x / most))
    y = most * (np.float32(1) - e) / (np.float32(1) + e)
    return y if x >= 0 else -y
