"""Keys and values of a paged cache laid out in blocks, as tiles read them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import carray

from kernels.native.kernel import Kernel, record
from kernels.native.scalars import compiled, elements, floats, int32s, load, take, untyped

KEYS: Final = 64
"""Keys of a block: whole tiles."""

_OPERANDS = record("k_out", "v_out", "k", "v", "pages", "length", "heads", "dim", "wide", "page")


def _lay_out(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _OPERANDS)[0]
    k, v = elements(o.k, pointer), elements(o.v, pointer)
    k_out, v_out, pages = floats(o.k_out), floats(o.v_out), int32s(o.pages)
    heads, dim, wide = o.heads, o.dim, o.wide
    while True:
        task = take(pointer)
        if task >= o.tasks:
            return
        block, head = task // heads, task % heads
        place = head * (o.tasks // heads) + block
        keys, values = place * dim * KEYS, place * KEYS * wide
        begin = block * KEYS
        end: Any = min(begin + KEYS, o.length)
        lay_out_keys(k_out, keys, k, pages, begin, end, o.page, heads, head, dim)
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
) -> None:
    """Write a block's keys of a head as float32 [dim, KEYS], zeros behind the last one."""
    if end - begin < KEYS:
        for i in range(dim * KEYS):
            out[into + i] = np.float32(0)
    for t in range(begin, end):
        at = _place(pages, t, page, heads, head) * dim
        for d in range(dim):
            out[into + d * KEYS + t - begin] = load(k, at + d)


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
    """Write a block's values of a head as float32 [KEYS, wide], zeros behind features and keys."""
    if end - begin < KEYS or dim < wide:
        for i in range(KEYS * wide):
            out[into + i] = np.float32(0)
    for t in range(begin, end):
        at = _place(pages, t, page, heads, head) * dim
        for d in range(dim):
            out[into + (t - begin) * wide + d] = load(v, at + d)


@compiled
def _place(pages: Any, t: Any, page: Any, heads: Any, head: Any) -> Any:
    return (np.int64(pages[t // page]) * page + t % page) * heads + head


LAY_OUT = Kernel(_lay_out, _OPERANDS)
