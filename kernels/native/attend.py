"""Attention of few queries over a paged cache: pages are read where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import carray

from aril.kernels.native.kernel import Kernel, record
from aril.kernels.native.scalars import (
    ask_for,
    cap,
    compiled,
    elements,
    exp,
    floats,
    int32s,
    load,
    store,
    take,
    untyped,
)
from aril.kernels.program import settle

if TYPE_CHECKING:
    from torch import Tensor

# Keys whose scores are held at once. Spans begin at multiples of it, whatever a query sees: its
# sums are the same ones alone, among others and when a prefill computes it again.
SPAN = 64

# Keys that are asked for before they are multiplied by, across the end of a span too. Pages lie
# anywhere, and a processor guesses no further than 4 KiB.
AHEAD = 8

_OPERANDS = record(
    *("out", "q", "k", "v", "queries", "seqs", "firsts", "ends", "begun", "table", "states"),
    *("scratch", "sinks"),
    *("heads", "kv_heads", "dim", "page", "table_width", "q_row", "q_head", "splits"),
    "line",
    *("scale", "softcap"),
    real=("scale", "softcap"),
)


class Queries:
    """Which rows attend, and to what: n queries, each of one sequence.

    A step's layers share one: its addresses are read once.
    """

    def __init__(
        self,
        rows: Tensor,
        seqs: Tensor,
        firsts: Tensor,
        ends: Tensor,
        table: Tensor,
        begun: Tensor | None = None,
    ) -> None:
        """Take rows int32 [n] of q and the output, and of each what it sees.

        `seqs` int32 [n] are rows of the block table int32 [seqs, pages]; `firsts` and `ends` int32
        [n] the first position and the one behind the last. `begun` int32 [n] is 1 where `states`
        will hold what was summed before the first position. All contiguous.
        """
        self.count = len(rows)
        self.seen = int((ends - firsts).sum())  # positions they see, all together
        given = rows, seqs, firsts, ends
        self.addresses = tuple(each.data_ptr() for each in given)
        self.begun = 0 if begun is None else begun.data_ptr()
        self.table, self.table_width = table.data_ptr(), table.shape[1]
        self._kept = given, table, begun  # what is pointed to
        self._states = torch.empty(0)
        self._scratch, self._room = torch.empty(0), 0

    def states(self, heads: int, dim: int) -> int:
        """Return the address of the sums so far: float32 [n, heads, 2 + dim].

        They are a query's largest score, the sum of its weights, and that of its weighted values.
        """
        if not self.begun:
            return 0
        if self._states.shape[1:] != (heads, 2 + dim):
            settle()
            self._states = torch.empty(self.count, heads, 2 + dim)
        return self._states.data_ptr()

    def scratch(self, size: int) -> int:
        """Return the address of so many float32 that a call may write to."""
        if size > self._room:
            settle()
            self._scratch, self._room = torch.empty(size, dtype=torch.float32), size
        return self._scratch.data_ptr()


def attend_queries(
    out: Tensor,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    queries: Queries,
    *,
    scale: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> None:
    """Write the queries' rows of out [T, heads, d]; semantics and shapes of `paged_attention`.

    q [T, heads, d] with adjacent features; out and the caches contiguous; sinks float32 [heads].
    """
    _, heads, dim = q.shape
    _, page, kv_heads, _ = k_cache.shape
    count = queries.count
    # One task reads all heads of a page, which lie together; few queries share their heads out.
    splits = 1 if count >= 2 * torch.get_num_threads() else kv_heads
    size = kv_heads // splits * _padded(heads // kv_heads) * (2 * dim + SPAN + 2) + SPAN + AHEAD
    _ATTEND(
        q.dtype,
        count * splits,
        2 * queries.seen * heads * dim,
        out.data_ptr(),
        q.data_ptr(),
        k_cache.data_ptr(),
        v_cache.data_ptr(),
        *queries.addresses,
        queries.begun,
        queries.table,
        queries.states(heads, dim),
        queries.scratch(count * splits * size),
        0 if sinks is None else sinks.data_ptr(),
        heads,
        kv_heads,
        dim,
        page,
        queries.table_width,
        q.stride(0),
        q.stride(1),
        splits,
        64 // q.element_size(),
        scale,
        softcap or 0.0,
    )


def _padded(group: int) -> int:
    """Heads of one kv head as they are computed: by fours, and what is left one by one."""
    return group + (group % 4 == 3)  # noqa: PLR2004 - three cost as much as four


_heads_computed = compiled(_padded)


def _attend(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _OPERANDS)[0]
    out, q = elements(o.out, pointer), elements(o.q, pointer)
    k, v = elements(o.k, pointer), elements(o.v, pointer)
    queries, seqs, table = int32s(o.queries), int32s(o.seqs), int32s(o.table)
    firsts, ends, sinks = int32s(o.firsts), int32s(o.ends), floats(o.sinks)
    begun, states = int32s(o.begun), floats(o.states)
    dim, page, group = o.dim, o.page, o.heads // o.kv_heads
    padded = _heads_computed(group)
    kv_heads = o.kv_heads // o.splits  # of a task
    rows = kv_heads * padded
    size = rows * (2 * dim + SPAN + 2) + SPAN + AHEAD
    while True:
        task = take(pointer)
        if task >= o.tasks:
            return
        query, low = task // o.splits, task % o.splits * kv_heads
        row = np.int64(queries[query])
        pages = np.int64(seqs[query]) * o.table_width
        # A task's own floats: its queries, their sums, scores, tops and totals.
        own = floats(o.scratch + task * size * 4)
        places = int32s(o.scratch + ((task + 1) * size - SPAN - AHEAD) * 4)
        sums, scores = rows * dim, 2 * rows * dim
        tops = scores + rows * SPAN
        totals = tops + rows
        for i in range(size - SPAN - AHEAD):
            own[i] = np.float32(0)
        for head in range(kv_heads * group):
            i = head // group * padded + head % group
            base = row * o.q_row + (low * group + head) * o.q_head
            for d in range(dim):
                own[i * dim + d] = load(q, base + d) * np.float32(o.scale)
        for i in range(rows):
            own[tops + i] = np.float32(-np.inf)
        if o.begun != 0 and begun[query] != 0:
            for head in range(kv_heads * group):
                i = head // group * padded + head % group
                state = (query * o.heads + low * group + head) * (dim + 2)
                own[tops + i], own[totals + i] = states[state], states[state + 1]
                for d in range(dim):
                    own[sums + i * dim + d] = states[state + 2 + d]
        first, end = np.int64(firsts[query]), np.int64(ends[query])
        start = first // SPAN * SPAN
        while start < end:
            begin: Any = max(start, first)
            stop: Any = min(start + SPAN, end)
            at = begin // page
            offset = begin - at * page
            asked: Any = min(stop + AHEAD, end)
            for t in range(begin, asked):
                places[t - start] = (table[pages + at] * page + offset) * o.kv_heads + low
                offset += 1
                if offset == page:
                    offset = 0
                    at += 1
            for t in range(begin, stop):
                ask_for(v, np.int64(places[t - start]) * dim, kv_heads * dim, o.line)
                if t + AHEAD < asked:
                    ask_for(k, np.int64(places[t + AHEAD - start]) * dim, kv_heads * dim, o.line)
                for head in range(kv_heads):
                    i = head * padded
                    key = (np.int64(places[t - start]) + head) * dim
                    while i + 4 <= (head + 1) * padded:
                        _score_four(own, i * dim, scores + i * SPAN + t - start, k, key, dim)
                        i += 4
                    while i < (head + 1) * padded:
                        _score_one(own, i * dim, scores + i * SPAN + t - start, k, key, dim)
                        i += 1
            for i in range(rows):
                mine = scores + i * SPAN
                if o.softcap > 0:
                    for t in range(begin, stop):
                        score = own[mine + t - start]
                        own[mine + t - start] = cap(score, np.float32(o.softcap))
                top = own[tops + i]
                for t in range(begin, stop):
                    top = max(top, own[mine + t - start])
                keep = exp(own[tops + i] - top)
                total = np.float32(0)
                for t in range(begin, stop):
                    weight = exp(own[mine + t - start] - top)
                    own[mine + t - start] = weight
                    total += weight
                own[tops + i] = top
                own[totals + i] = own[totals + i] * keep + total
                for d in range(dim):
                    own[sums + i * dim + d] *= keep
                for t in range(stop, min(stop + 3, start + SPAN)):
                    own[mine + t - start] = np.float32(0)
            # By whole fours of the span. Where one reaches out of what is seen, the first or last
            # key stands in with weight 0: a span's weights before its beginning were never set.
            lowest, last = begin - start, stop - 1 - start
            for t in range(begin - begin % 4, stop, 4):
                p0 = np.int64(places[max(t - start, lowest)])
                p1 = np.int64(places[min(max(t + 1 - start, lowest), last)])
                p2 = np.int64(places[min(max(t + 2 - start, lowest), last)])
                p3 = np.int64(places[min(max(t + 3 - start, lowest), last)])
                for head in range(kv_heads):
                    i = head * padded
                    v0, v1 = (p0 + head) * dim, (p1 + head) * dim
                    v2, v3 = (p2 + head) * dim, (p3 + head) * dim
                    while i + 4 <= (head + 1) * padded:
                        weights = scores + i * SPAN + t - start
                        _mix_four(own, sums + i * dim, weights, v, v0, v1, v2, v3, dim)
                        i += 4
                    while i < (head + 1) * padded:
                        weights = scores + i * SPAN + t - start
                        _mix_one(own, sums + i * dim, weights, v, v0, v1, v2, v3, dim)
                        i += 1
            start += SPAN
        for head in range(kv_heads * group):
            i = head // group * padded + head % group
            total = own[totals + i]
            if o.sinks != 0:
                total += exp(min(sinks[low * group + head] - own[tops + i], np.float32(87)))
            base = (row * o.heads + low * group + head) * dim
            for d in range(dim):
                store(out, base + d, own[sums + i * dim + d] / total)


@compiled
def _score_one(own: Any, query: Any, score: Any, k: Any, key: Any, dim: Any) -> None:
    a = np.float32(0)
    for d in range(dim):
        a += own[query + d] * load(k, key + d)
    own[score] = a


@compiled
def _score_four(own: Any, query: Any, score: Any, k: Any, key: Any, dim: Any) -> None:
    """Four heads at once, which read the key once."""
    a0 = a1 = a2 = a3 = np.float32(0)
    for d in range(dim):
        own_key = load(k, key + d)
        a0 += own[query + d] * own_key
        a1 += own[query + dim + d] * own_key
        a2 += own[query + 2 * dim + d] * own_key
        a3 += own[query + 3 * dim + d] * own_key
    own[score], own[score + SPAN] = a0, a1
    own[score + 2 * SPAN], own[score + 3 * SPAN] = a2, a3


@compiled
def _mix_one(
    own: Any, sums: Any, weights: Any, v: Any, v0: Any, v1: Any, v2: Any, v3: Any, dim: Any
) -> None:
    a0, a1, a2, a3 = own[weights], own[weights + 1], own[weights + 2], own[weights + 3]
    for d in range(dim):
        one = a0 * load(v, v0 + d) + a1 * load(v, v1 + d)
        own[sums + d] += one + a2 * load(v, v2 + d) + a3 * load(v, v3 + d)


@compiled
def _mix_four(
    own: Any, sums: Any, weights: Any, v: Any, v0: Any, v1: Any, v2: Any, v3: Any, dim: Any
) -> None:
    """Four values into the sums of four heads, which read them once."""
    w = weights
    a0, a1, a2, a3 = own[w], own[w + 1], own[w + 2], own[w + 3]
    w += SPAN
    b0, b1, b2, b3 = own[w], own[w + 1], own[w + 2], own[w + 3]
    w += SPAN
    c0, c1, c2, c3 = own[w], own[w + 1], own[w + 2], own[w + 3]
    w += SPAN
    e0, e1, e2, e3 = own[w], own[w + 1], own[w + 2], own[w + 3]
    for d in range(dim):
        x0, x1, x2, x3 = load(v, v0 + d), load(v, v1 + d), load(v, v2 + d), load(v, v3 + d)
        own[sums + d] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
        own[sums + dim + d] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
        own[sums + 2 * dim + d] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
        own[sums + 3 * dim + d] += e0 * x0 + e1 * x1 + e2 * x2 + e3 * x3


_ATTEND = Kernel(_attend, _OPERANDS)
