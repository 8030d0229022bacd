"""Small products whose sums stay in registers: what compilers do not find for themselves.

A tile of a product c = a · b is `ROWS` rows by some vectors of columns. For each k a vector of b is
loaded once and added, times a number of each row, to all of them. Each sum is made alone and in the
order of k, so its bits depend neither on the tile that it is in nor on the other rows.
"""

from __future__ import annotations

import platform
from typing import Any, Final

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from aril.kernels.native.scalars import BFLOATS, FLOATS, BFloat, declared, everywhere, widened

ROWS: Final = 4
"""Rows of a tile."""


def _vectors() -> tuple[int, int]:
    """Return this processor's floats in a vector, and vectors of a tile that fit its registers."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 16, 4
    if features.get("fma"):
        return 8, 2
    return 4, 4 if platform.machine() in {"aarch64", "arm64"} else 2


LANES, WIDE = _vectors()

PAIRS: Final = LANES == 16 and bool(binding.get_host_cpu_features().get("avx512bf16"))  # noqa: PLR2004 - of 512 bits
"""Whether this processor multiplies bfloat16 in pairs, and adds both products to a float32."""

COLUMNS: Final = LANES * WIDE
"""Columns of a wide tile; narrow ones have LANES. It divides 64."""


PAIR_VECTOR = ir.VectorType(BFloat(), 2 * LANES)


@intrinsic
def staged(_typing: Any, address: Any, like: Any) -> Any:
    """Take an address as that of numbers laid out for tiles, by the type of a kernel's elements.

    They are float32; of bfloat16 bfloat16, where the processor has PAIRS.
    """
    kind = BFLOATS if like == BFLOATS and PAIRS else FLOATS

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64, like), generate


@intrinsic
def terms(_typing: Any, pointer: Any) -> Any:
    """Return how many terms lie side by side in what is staged there: 2 of bfloat16, else 1."""
    number = 2 if pointer == BFLOATS else 1

    def generate(_context: Any, _builder: Any, _signature: Any, _args: Any) -> Any:
        return ir.IntType(64)(number)

    return types.int64(pointer), generate


class _Tile:
    """Generates one kind of tile.

    With `paired`, where a and b are bfloat16, both are in pairs of terms: b has k and k + 1 of a
    column side by side, and the depth is even.
    """

    def __init__(
        self, rows: int, vectors: int, lanes: int, *, adds: bool, paired: bool = False
    ) -> None:
        self._rows, self._vectors, self._lanes, self._adds = rows, vectors, lanes, adds
        self._paired = paired
        self._type = ir.VectorType(ir.FloatType(), lanes)

    def generate(self, context: Any, builder: Any, signature: Any, args: Any) -> Any:
        """Emit the loop over k, with one vector of sums a row and vector of columns."""
        c, c_at, c_row, a, a_at, a_row, b, b_at, b_row, depth = args
        word = ir.IntType(64)
        pairs = self._paired and signature.args[3] == signature.args[6] == BFLOATS
        step = 2 if pairs else 1

        def place(at: Any, row: int, width: Any, column: Any) -> Any:
            begin = builder.add(at, builder.mul(word(row), width))
            return builder.add(begin, column)

        targets = [
            self._vector_at(builder, c, place(c_at, row, c_row, word(vector * self._lanes)))
            for row in range(self._rows)
            for vector in range(self._vectors)
        ]
        zero = self._type([0.0] * self._lanes)
        begin = [builder.load(each, align=4) if self._adds else zero for each in targets]
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("k", "add", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(word)
        k.add_incoming(word(0), before)
        sums = [builder.phi(self._type) for _ in targets]
        for own, start in zip(sums, begin, strict=True):
            own.add_incoming(start, before)
        builder.cbranch(builder.icmp_signed("<", k, depth), body, after)
        builder.position_at_end(body)
        line = builder.add(b_at, builder.mul(k, b_row))
        columns = [
            self._loaded(builder, signature.args[6], b, builder.add(line, word(column)), step)
            for column in range(0, step * self._vectors * self._lanes, step * self._lanes)
        ]
        add = add_pairs if pairs else self._add
        for row in range(self._rows):
            number = builder.gep(a, [place(a_at, row, a_row, k)])
            if pairs:
                number = builder.bitcast(number, ir.IntType(32).as_pointer())
                number = builder.load(number, align=2)
            else:
                number = widened(builder, signature.args[3], builder.load(number))
                number = builder.bitcast(number, ir.IntType(32))
            factor = everywhere(builder, number, PAIR_VECTOR if pairs else self._type)
            for vector, column in enumerate(columns):
                own = sums[row * self._vectors + vector]
                own.add_incoming(add(builder, own, factor, column), body)
        k.add_incoming(builder.add(k, word(step)), body)
        builder.branch(head)
        builder.position_at_end(after)
        for target, own in zip(targets, sums, strict=True):
            builder.store(own, target, align=4)
        return context.get_dummy_value()

    def _vector_at(self, builder: Any, pointer: Any, at: Any) -> Any:
        return builder.bitcast(builder.gep(pointer, [at]), self._type.as_pointer())

    def _loaded(self, builder: Any, kind: Any, pointer: Any, at: Any, step: int) -> Any:
        """Load self._lanes elements from `at` on, as floats; or as many pairs."""
        place = builder.gep(pointer, [at])
        if step > 1:
            return builder.load(builder.bitcast(place, PAIR_VECTOR.as_pointer()), align=2)
        elements = ir.VectorType(place.type.pointee, self._lanes)
        align = 4 if kind == FLOATS else 2
        value = builder.load(builder.bitcast(place, elements.as_pointer()), align=align)
        return widened(builder, kind, value)

    def _add(self, builder: Any, own: Any, factor: Any, column: Any) -> Any:
        kind = ir.FunctionType(self._type, [self._type] * 3)
        # Fused where the processor can.
        multiply_add = declared(builder, kind, f"llvm.fmuladd.v{self._lanes}f32")
        return builder.call(multiply_add, [factor, column, own])


def add_pairs(builder: Any, own: Any, factor: Any, column: Any) -> Any:
    """Emit the sums with the products of both terms of each pair added; where there are PAIRS."""
    kind = ir.FunctionType(own.type, [own.type, PAIR_VECTOR, PAIR_VECTOR])
    multiply_add = declared(builder, kind, f"llvm.x86.avx512bf16.dpbf16ps.{32 * LANES}")
    return builder.call(multiply_add, [own, factor, column])


def tile(rows: int, vectors: int, lanes: int = LANES, *, adds: bool, paired: bool = False) -> Any:
    """Make the function that multiplies a tile of a kind."""
    made = _Tile(rows, vectors, lanes, adds=adds, paired=paired)
    at = types.int64

    @intrinsic
    def multiply(
        _typing: Any,
        c: Any,
        c_at: Any,
        c_row: Any,
        a: Any,
        a_at: Any,
        a_row: Any,
        b: Any,
        b_at: Any,
        b_row: Any,
        depth: Any,
    ) -> Any:
        return types.void(c, at, at, a, at, at, b, at, at, at), made.generate

    return multiply


set_wide, add_wide = (tile(ROWS, WIDE, adds=adds) for adds in (False, True))
add_narrow = tile(ROWS, 1, adds=True)

# The same over numbers that are laid out as `staged` says.
set_wide_staged, add_wide_staged = (
    tile(ROWS, WIDE, adds=adds, paired=True) for adds in (False, True)
)
add_narrow_staged = tile(ROWS, 1, adds=True, paired=True)


@intrinsic
def largest(_typing: Any, pointer: Any, at: Any, count: Any) -> Any:
    """Return the largest of `count` floats, a multiple of LANES; NaN is passed over."""
    vector = ir.VectorType(ir.FloatType(), LANES)
    word, bits = ir.IntType(64), ir.IntType(32)

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        floats, begin, number = args
        lowest = vector([float("-inf")] * LANES)
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("i", "more", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        i, top = builder.phi(word), builder.phi(vector)
        i.add_incoming(word(0), before)
        top.add_incoming(lowest, before)
        builder.cbranch(builder.icmp_signed("<", i, number), body, after)
        builder.position_at_end(body)
        place = builder.gep(floats, [builder.add(begin, i)])
        found = builder.load(builder.bitcast(place, vector.as_pointer()), align=4)
        larger = builder.select(builder.fcmp_ordered(">", found, top), found, top)
        top.add_incoming(larger, body)
        i.add_incoming(builder.add(i, word(LANES)), body)
        builder.branch(head)
        builder.position_at_end(after)
        half = LANES // 2
        while half:
            order = [*range(half, 2 * half)] + [0] * (LANES - half)
            turned = builder.shuffle_vector(top, top, ir.VectorType(bits, LANES)(order))
            top = builder.select(builder.fcmp_ordered(">", turned, top), turned, top)
            half //= 2
        return builder.extract_element(top, bits(0))

    return types.float32(pointer, types.int64, types.int64), generate
