"""Tiles of a product with a weight: `TALL` rows by `VECTORS` vectors of columns.

As in tiles.py sums stay in registers, each made alone in the order of its terms. Here both operands
have the model's type, and what comes out too, rounded once. bfloat16 is multiplied in pairs by the
processor's own instruction (`vdpbf16ps`), which adds two products to each sum.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from aril.kernels.native.scalars import (
    BFLOATS,
    BFloat,
    compiled,
    declared,
    emit_prefetch,
    everywhere,
)
from aril.kernels.native.tiles import LANES, PAIR_VECTOR, add_pairs

TALL: Final = 8
"""Rows of a tile."""

VECTORS: Final = 3
"""Vectors of columns of a tile: 24 sums, 3 vectors of the weight and one number fill 28 of the 32
registers that AVX-512 has."""

COLUMNS: Final = VECTORS * LANES

_BITS, _WORD = ir.IntType(32), ir.IntType(64)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_NARROW = ir.VectorType(BFloat(), LANES)


def terms(dtype: torch.dtype) -> int:
    """Return how many terms of a sum are added at once."""
    return 2 if dtype is torch.bfloat16 else 1


def has_tiles(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies the type by tiles as fast as any library (decision 077)."""
    features = binding.get_host_cpu_features()
    if dtype is torch.float32:
        return bool(features.get("avx512f"))
    # AMX multiplies blocks of bfloat16, sixteen times as many at once: oneDNN knows how.
    narrow = features.get("avx512bf16") and not features.get("amx-bf16")
    return dtype is torch.bfloat16 and bool(narrow)


class _Tile:
    """Generates one kind of tile; its types are those of the operands that it is given."""

    def __init__(self, rows: int, vectors: int) -> None:
        self._rows, self._vectors = rows, vectors

    def generate(self, context: Any, builder: Any, signature: Any, args: Any) -> Any:
        """Emit the loop over the depth, with one vector of sums a row and vector of columns."""
        out, out_at, out_row, x, x_at, x_row, weight, at, bias, bias_at, depth, ahead = args
        pairs = signature.args[0] == BFLOATS
        step = 2 if pairs else 1
        pitch = self._vectors * LANES * step  # elements of the weight, of one step
        columns = range(self._vectors)
        begin = [
            self._load(builder, bias, builder.add(bias_at, _WORD(vector * LANES)), _FLOATS, 4)
            for vector in columns
        ]
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("k", "add", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        k, line = builder.phi(_WORD), builder.phi(_WORD)
        k.add_incoming(_WORD(0), before)
        line.add_incoming(at, before)
        sums = [[builder.phi(_FLOATS) for _ in columns] for _ in range(self._rows)]
        for row in sums:
            for own, start in zip(row, begin, strict=True):
                own.add_incoming(start, before)
        builder.cbranch(builder.icmp_signed("<", k, depth), body, after)
        builder.position_at_end(body)
        kind, align = (PAIR_VECTOR, 2) if pairs else (_FLOATS, 4)
        factors = []
        for vector in columns:
            place = builder.add(line, _WORD(vector * LANES * step))
            factors.append(self._load(builder, weight, place, kind, align))
            # Of the strip that comes after this one.
            emit_prefetch(builder, builder.gep(weight, [builder.add(place, ahead)]))
        for number, row in enumerate(sums):
            place = builder.add(builder.add(x_at, builder.mul(_WORD(number), x_row)), k)
            mine = everywhere(builder, self._load(builder, x, place, _BITS, align), kind)
            for own, factor in zip(row, factors, strict=True):
                own.add_incoming(self._add(builder, own, mine, factor), body)
        k.add_incoming(builder.add(k, _WORD(step)), body)
        line.add_incoming(builder.add(line, _WORD(pitch)), body)
        builder.branch(head)
        builder.position_at_end(after)
        for number, row in enumerate(sums):
            for vector, own in enumerate(row):
                place = builder.add(out_at, builder.mul(_WORD(number), out_row))
                place = builder.gep(out, [builder.add(place, _WORD(vector * LANES))])
                value = builder.fptrunc(own, _NARROW) if pairs else own
                builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=align)
        return context.get_dummy_value()

    @staticmethod
    def _load(builder: Any, pointer: Any, at: Any, kind: Any, align: int) -> Any:
        place = builder.bitcast(builder.gep(pointer, [at]), kind.as_pointer())
        return builder.load(place, align=align)

    @staticmethod
    def _add(builder: Any, own: Any, mine: Any, factor: Any) -> Any:
        if factor.type == _FLOATS:
            kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
            fused = declared(builder, kind, f"llvm.fmuladd.v{LANES}f32")
            return builder.call(fused, [mine, factor, own])
        return add_pairs(builder, own, mine, factor)


def _tile(rows: int, vectors: int) -> Any:
    made, at = _Tile(rows, vectors), types.int64

    @intrinsic
    def multiply(
        _typing: Any,
        out: Any,
        out_at: Any,
        out_row: Any,
        x: Any,
        x_at: Any,
        x_row: Any,
        weight: Any,
        weight_at: Any,
        bias: Any,
        bias_at: Any,
        depth: Any,
        ahead: Any,
    ) -> Any:
        return types.void(out, at, at, x, at, at, weight, at, bias, at, at, at), made.generate

    return multiply


def strip(vectors: int) -> Any:
    """Make the function that multiplies any number of rows by a strip of so many vectors."""
    eight, four, two, one = (_tile(rows, vectors) for rows in (TALL, 4, 2, 1))

    @compiled
    def multiply(
        out: Any,
        out_at: Any,
        out_row: Any,
        x: Any,
        x_at: Any,
        x_row: Any,
        w: Any,
        w_at: Any,
        bias: Any,
        b_at: Any,
        depth: Any,
        ahead: Any,
        rows: Any,
    ) -> None:
        i = 0
        while i + TALL <= rows:
            o, r = out_at + i * out_row, x_at + i * x_row
            eight(out, o, out_row, x, r, x_row, w, w_at, bias, b_at, depth, ahead)
            i += TALL
        if i + 4 <= rows:
            o, r = out_at + i * out_row, x_at + i * x_row
            four(out, o, out_row, x, r, x_row, w, w_at, bias, b_at, depth, ahead)
            i += 4
        if i + 2 <= rows:
            o, r = out_at + i * out_row, x_at + i * x_row
            two(out, o, out_row, x, r, x_row, w, w_at, bias, b_at, depth, ahead)
            i += 2
        if i < rows:
            o, r = out_at + i * out_row, x_at + i * x_row
            one(out, o, out_row, x, r, x_row, w, w_at, bias, b_at, depth, ahead)

    return multiply
