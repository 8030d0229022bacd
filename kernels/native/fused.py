"""What stands between a decoder layer's products, each in one pass over its rows.

Queries, keys and values are read out of the one product that made them, and outputs are the
caller's: a step has the same few for all its layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import carray

from aril.kernels.native.kernel import Kernel, record
from aril.kernels.native.rows import GATE_ROWS, root_of_mean, rotate_head
from aril.kernels.native.scalars import compiled, elements, int64s, load, store, take, untyped

if TYPE_CHECKING:
    from torch import Tensor

    from aril.kernels.norm import Norm

_ADD_NORM = record(
    *("out", "sums", "x", "y", "weight", "width", "eps", "offset"), real=("eps", "offset")
)
_PLACE = record(
    *("q_out", "k_cache", "v_cache", "rows", "row", "places", "cos", "sin"),
    *("heads", "kv_heads", "dim", "q_weight", "k_weight"),
    *("q_eps", "q_offset", "k_eps", "k_offset"),
    real=("q_eps", "q_offset", "k_eps", "k_offset"),
)


_NO_NORM = (0, 0.0, 0.0)


def add_norm(out: Tensor, sums: Tensor, x: Tensor, y: Tensor, norm: Norm) -> None:
    """Write sums = x + y, rounded to their type, and out = its RMSNorm (see `rms_norm`).

    All [T, n] contiguous and of one type, the weight too; none overlaps another.
    """
    rows, width = x.shape
    _ADD_NORM_ROWS(
        x.dtype,
        rows,
        4 * rows * width,
        out.data_ptr(),
        sums.data_ptr(),
        x.data_ptr(),
        y.data_ptr(),
        norm.weight.data_ptr(),
        width,
        norm.eps,
        norm.offset,
    )


def place_heads_of(
    q_out: Tensor,
    rows: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    places: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_norm: Norm | None = None,
    k_norm: Norm | None = None,
) -> None:
    """Take each row's queries, keys and values apart: rotate, and put them where attention reads.

    rows [T, (heads + 2 · kv_heads) · d] with adjacent columns, in this order. Queries and keys get
    their norm over d, where there is one, and are rotated (see `rotate`) by cos and sin [T, d];
    queries go to q_out [T, heads, d], keys and values to the caches [blocks, page, kv_heads, d] at
    places int64 [T] (see `store_rows`; -1 is left out). All but rows contiguous, all of one type.
    """
    count, heads, dim = q_out.shape
    q_weight, q_eps, q_offset = _operands(q_norm)
    k_weight, k_eps, k_offset = _operands(k_norm)
    _PLACE_ROWS(
        q_out.dtype,
        count,
        2 * count * rows.shape[1],
        q_out.data_ptr(),
        k_cache.data_ptr(),
        v_cache.data_ptr(),
        rows.data_ptr(),
        rows.stride(0),
        places.data_ptr(),
        cos.data_ptr(),
        sin.data_ptr(),
        heads,
        k_cache.shape[2],
        dim,
        q_weight,
        k_weight,
        q_eps,
        q_offset,
        k_eps,
        k_offset,
    )


def gate_halves(out: Tensor, both: Tensor, *, tanh: bool = False) -> None:
    """Write `gate` of both[:, :n] and both[:, n:] to out [T, n].

    both [T, 2 n] with adjacent columns; out contiguous, of the same type.
    """
    rows, width = out.shape
    gates = both.data_ptr()
    row = both.stride(0)
    GATE_ROWS(
        both.dtype,
        rows,
        8 * rows * width,
        out.data_ptr(),
        gates,
        gates + width * both.element_size(),
        width,
        row,
        row,
        int(tanh),
    )


def _operands(norm: Norm | None) -> tuple[int, float, float]:
    return _NO_NORM if norm is None else (norm.weight.data_ptr(), norm.eps, norm.offset)


def _add_norm(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _ADD_NORM)[0]
    out, sums, weight = (
        elements(o.out, pointer),
        elements(o.sums, pointer),
        elements(o.weight, pointer),
    )
    x, y = elements(o.x, pointer), elements(o.y, pointer)
    width, offset = o.width, np.float32(o.offset)
    while True:
        row = take(pointer)
        if row >= o.tasks:
            return
        base = row * width
        for i in range(base, base + width):
            store(sums, i, load(x, i) + load(y, i))
        inverse = np.float32(1) / root_of_mean(sums, base, width, o.eps)
        for i in range(width):
            factor = load(weight, i) + offset
            store(out, base + i, load(sums, base + i) * inverse * factor)


def _place(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _PLACE)[0]
    x, q_out = elements(o.rows, pointer), elements(o.q_out, pointer)
    k_cache, v_cache = elements(o.k_cache, pointer), elements(o.v_cache, pointer)
    q_weight, k_weight = elements(o.q_weight, pointer), elements(o.k_weight, pointer)
    cos, sin, places = elements(o.cos, pointer), elements(o.sin, pointer), int64s(o.places)
    dim = o.dim
    while True:
        row = take(pointer)
        if row >= o.tasks:
            return
        at, base = row * dim, row * o.row
        for h in range(o.heads):
            into = (row * o.heads + h) * dim
            if o.q_weight == 0:
                rotate_head(q_out, into, x, base, cos, sin, at, dim)
            else:
                by = np.float32(1) / root_of_mean(x, base, dim, o.q_eps)
                _rotate_normed(q_out, into, x, base, cos, sin, at, dim, q_weight, by, o.q_offset)
            base += dim
        place = places[row]
        if place < 0:
            continue
        for h in range(o.kv_heads):
            into = (place * o.kv_heads + h) * dim
            if o.k_weight == 0:
                rotate_head(k_cache, into, x, base, cos, sin, at, dim)
            else:
                by = np.float32(1) / root_of_mean(x, base, dim, o.k_eps)
                _rotate_normed(k_cache, into, x, base, cos, sin, at, dim, k_weight, by, o.k_offset)
            base += dim
        into = place * o.kv_heads * dim
        for i in range(o.kv_heads * dim):
            v_cache[into + i] = x[base + i]


@compiled
def _rotate_normed(
    out: Any,
    into: Any,
    x: Any,
    base: Any,
    cos: Any,
    sin: Any,
    at: Any,
    dim: Any,
    weight: Any,
    inverse: Any,
    offset: Any,
) -> None:
    """Do the same to x / √(mean(x²) + eps) · (weight + offset), the root's inverse being given."""
    half, more = dim // 2, np.float32(offset)
    for i in range(half):
        other = half + i
        a = load(x, base + i) * inverse * (load(weight, i) + more)
        b = load(x, base + other) * inverse * (load(weight, other) + more)
        store(out, into + i, a * load(cos, at + i) - b * load(sin, at + i))
        store(out, into + other, b * load(cos, at + other) + a * load(sin, at + other))


_ADD_NORM_ROWS = Kernel(_add_norm, _ADD_NORM)
_PLACE_ROWS = Kernel(_place, _PLACE)
