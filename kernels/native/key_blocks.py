"""Keys and values of a paged cache laid out in blocks, as tiles read them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import carray

from aril.kernels.native.kernel import Kernel, record
from aril.kernels.native.scalars import compiled, elements, int32s, load, store, take, untyped
from aril.kernels.native.tiles import staged, terms

KEYS: Final = 64
"""Keys of a block: whole tiles."""

_OPERANDS = record(
    "k_out", "v_out", "k", "v", "pages", "length", "heads", "dim", "deep", "wide", "page"
)


def _lay_out(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _OPERANDS)[0]
    k, v = elements(o.k, pointer), elements(o.v, pointer)
    k_out, v_out = staged(o.k_out, pointer), staged(o.v_out, pointer)
    pages = int32s(o.pages)
    heads, dim, deep, wide = o.heads, o.dim, o.deep, o.wide
    while True:
        task = take(pointer)
        if task >= o.tasks:
            return
        block, head = task // heads, task % heads
        place = head * (o.tasks // heads) + block
        keys, values = place * deep * KEYS, place * KEYS * wide
        begin = block * KEYS
        end: Any = min(begin + KEYS, o.length)
        lay_out_keys(k_out, keys, k, pages, begin, end, o.page, heads, head, dim, deep)
        lay_out_values(v_out, values, v, pages, begin, end, o.page, heads, head, dim, wide)


@compiled
def lay_out_keys(
    out: Any,
    into: Any,
    k: Any,
    pages: Any,
    begin: Any,
    end: Any,
    page: Any,
    heads: Any,
    head: Any,
    dim: Any,
    deep: Any,
) -> None:
    """Write a block's keys of a head: [deep / n, KEYS, n], zeros behind features and keys.

    n is `terms` of what is staged there, and divides deep.
    """
    n = terms(out)
    if end - begin < KEYS or dim < deep:
        for i in range(deep * KEYS):
            store(out, into + i, np.float32(0))
    for t in range(begin, end):
        at = _place(pages, t, page, heads, head) * dim
        base = into + (t - begin) * n
        if n == 1:
            for d in range(dim):
                out[base + d * KEYS] = load(k, at + d)
        else:  # of one type: nothing is rounded
            for d in range(0, dim - 1, 2):
                out[base + d * KEYS] = k[at + d]
                out[base + d * KEYS + 1] = k[at + d + 1]
            if dim < deep:
                out[base + (dim - 1) * KEYS] = k[at + dim - 1]


@compiled
def lay_out_values(
    out: Any,
    into: Any,
    v: Any,
    pages: Any,
    begin: Any,
    end: Any,
    page: Any,
    heads: Any,
    head: Any,
    dim: Any,
    wide: Any,
) -> None:
    """Write a block's values of a head: [KEYS / n, wide, n], zeros behind features and keys."""
    n = terms(out)
    if end - begin < KEYS or dim < wide:
        for i in range(KEYS * wide):
            store(out, into + i, np.float32(0))
    if n == 1:
        for t in range(begin, end):
            at = _place(pages, t, page, heads, head) * dim
            for d in range(dim):
                out[into + (t - begin) * wide + d] = load(v, at + d)
        return
    for t in range(begin, end - 1, 2):
        one = _place(pages, t, page, heads, head) * dim
        other = _place(pages, t + 1, page, heads, head) * dim
        base = into + (t - begin) * wide
        for d in range(dim):
            out[base + 2 * d] = v[one + d]
            out[base + 2 * d + 1] = v[other + d]
    if (end - begin) % 2:
        at = _place(pages, end - 1, page, heads, head) * dim
        base = into + (end - 1 - begin) * wide
        for d in range(dim):
            out[base + 2 * d] = v[at + d]


@compiled
def _place(pages: Any, t: Any, page: Any, heads: Any, head: Any) -> Any:
    return (np.int64(pages[t // page]) * page + t % page) * heads + head


LAY_OUT = Kernel(_lay_out, _OPERANDS)
