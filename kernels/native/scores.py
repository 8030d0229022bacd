"""What a long prompt's attention needs beside matrix products: gathered pages, and the softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import carray

from kernels.native.kernel import Kernel, record
from kernels.native.scalars import cap, elements, exp, floats, int32s, load, store, take, untyped

if TYPE_CHECKING:
    from torch import Tensor

_GATHER = record("k_out", "v_out", "k", "v", "pages", "length", "padded", "heads", "dim", "page")
_SOFTMAX = record(
    "scores", "ends", "firsts", "width", "queries", "softcap", "sinks", real=("softcap",)
)
_PLACE = record("out", "sums", "first", "queries", "group", "dim", "row", "head")


def gather_pages(
    k_cache: Tensor, v_cache: Tensor, pages: Tensor, length: int, padded: int
) -> tuple[Tensor, Tensor]:
    """Return a sequence's keys and values in float32 [kv_heads, padded, d], zeros from length on.

    Caches [blocks, page, kv_heads, d] contiguous, pages int32 [n].
    """
    page, heads, dim = k_cache.shape[1:]
    k, v = (torch.empty(heads, padded, dim) for _ in range(2))
    _GATHER_PAGES(
        k_cache.dtype,
        padded,
        2 * padded * heads * dim,
        k.data_ptr(),
        v.data_ptr(),
        k_cache.data_ptr(),
        v_cache.data_ptr(),
        pages.data_ptr(),
        length,
        padded,
        heads,
        dim,
        page,
    )
    return k, v


def softmax_(
    scores: Tensor, firsts: Tensor, ends: Tensor, softcap: float | None, sinks: Tensor | None
) -> None:
    """Turn scores float32 [heads, n, width] into weights, in place; hidden ones become 0.

    Query i sees the keys firsts[i] … ends[i] - 1, int32 [n]. `softcap` and `sinks` float32 [heads]
    as in `paged_attention`.
    """
    heads, queries, width = scores.shape
    _SOFTMAX_ROWS(
        torch.float32,
        heads * queries,
        4 * scores.numel(),
        scores.data_ptr(),
        ends.data_ptr(),
        firsts.data_ptr(),
        width,
        queries,
        softcap or 0.0,
        0 if sinks is None else sinks.data_ptr(),
    )


def place_heads(out: Tensor, sums: Tensor, count: int, first: int, head: int) -> None:
    """Write the first `count` of sums float32 [group, n, d] to out, from row and head on.

    Out [T, heads, d] contiguous.
    """
    group, queries, dim = sums.shape
    _PLACE_HEADS(
        out.dtype,
        count,
        sums.numel(),
        out.data_ptr(),
        sums.data_ptr(),
        first,
        queries,
        group,
        dim,
        out.stride(0),
        head,
    )


def _gather(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _GATHER)[0]
    k, v = elements(o.k, pointer), elements(o.v, pointer)
    k_out, v_out, pages = floats(o.k_out), floats(o.v_out), int32s(o.pages)
    while True:
        t = take(pointer)
        if t >= o.tasks:
            return
        for head in range(o.heads):
            into = (head * o.padded + t) * o.dim
            if t < o.length:
                place = (np.int64(pages[t // o.page]) * o.page + t % o.page) * o.heads + head
                for d in range(o.dim):
                    k_out[into + d] = load(k, place * o.dim + d)
                    v_out[into + d] = load(v, place * o.dim + d)
            else:
                for d in range(o.dim):
                    k_out[into + d] = np.float32(0)
                    v_out[into + d] = np.float32(0)


def _softmax(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _SOFTMAX)[0]
    scores, sinks = floats(o.scores), floats(o.sinks)
    firsts, ends = int32s(o.firsts), int32s(o.ends)
    while True:
        row = take(pointer)
        if row >= o.tasks:
            return
        base, query = row * o.width, row % o.queries
        first, end = np.int64(firsts[query]), np.int64(ends[query])
        if o.softcap > 0:
            for i in range(base + first, base + end):
                scores[i] = cap(scores[i], np.float32(o.softcap))
        top = np.float32(-np.inf)
        for i in range(base + first, base + end):
            top = max(top, scores[i])
        total = np.float32(0)
        for i in range(base + first, base + end):
            weight = exp(scores[i] - top)
            scores[i] = weight
            total += weight
        if o.sinks != 0:
            total += exp(min(sinks[row // o.queries] - top, np.float32(87)))
        inverse = np.float32(1) / total
        for i in range(base + first, base + end):
            scores[i] *= inverse
        for i in range(base, base + first):
            scores[i] = np.float32(0)
        for i in range(base + end, base + o.width):
            scores[i] = np.float32(0)


def _place(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _PLACE)[0]
    out, sums = elements(o.out, pointer), floats(o.sums)
    while True:
        query = take(pointer)
        if query >= o.tasks:
            return
        for g in range(o.group):
            base = (o.first + query) * o.row + (o.head + g) * o.dim
            own = (g * o.queries + query) * o.dim
            for d in range(o.dim):
                store(out, base + d, sums[own + d])


_GATHER_PAGES = Kernel(_gather, _GATHER)
_SOFTMAX_ROWS = Kernel(_softmax, _SOFTMAX, only=torch.float32)
_PLACE_HEADS = Kernel(_place, _PLACE)
