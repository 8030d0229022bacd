"""Attention of several queries to the same keys: blocks of keys laid out for tiles.

They are a sequence's new tokens, or those of many sequences that share their beginning, which is
then read once for all of them (Hydragen: arXiv 2402.05099). A task takes a block of queries, all
heads of one kv head together, along the blocks of keys that any of them sees. The softmax is made
as keys come, so scores and sums stay in the processor's cache (FlashAttention: arXiv 2205.14135).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import carray

from aril.kernels.native.kernel import Kernel, record
from aril.kernels.native.key_blocks import KEYS, LAY_OUT, lay_out_keys, lay_out_values
from aril.kernels.native.scalars import (
    cap,
    compiled,
    elements,
    exp,
    floats,
    int32s,
    load,
    own_number,
    store,
    take,
    untyped,
)
from aril.kernels.native.tiles import (
    COLUMNS,
    LANES,
    ROWS,
    add_narrow_staged,
    add_wide_staged,
    largest,
    set_wide_staged,
    staged,
    terms,
)
from aril.kernels.program import settle

if TYPE_CHECKING:
    from torch import Tensor

# Queries times heads of a task, about: with 64 features its rows, sums and scores take 72 KB.
_AT_ONCE = 96

_OPERANDS = record(
    *("out", "states", "q", "keys", "values", "k", "v", "pages", "scratch", "size"),
    *("rows", "firsts", "ends", "places", "sinks"),
    *("length", "page", "queries", "at_once", "heads", "kv_heads", "blocks"),
    *("dim", "deep", "wide"),
    *("q_row", "q_head", "scale", "softcap"),
    real=("scale", "softcap"),
)


class Prompt:
    """n queries over the same keys.

    A step's layers share one, and its memory.
    """

    def __init__(
        self,
        length: int,
        pages: Tensor,
        rows: Tensor,
        firsts: Tensor,
        ends: Tensor,
        places: Tensor | None = None,
    ) -> None:
        """Take so many keys in `pages` int32, and rows int32 [n] of q.

        `firsts` and `ends` int32 [n]: the first position that a query sees, and the one behind the
        last. `places` int32 [n], where more keys follow: whose sums these are, see `Queries`. All
        contiguous.
        """
        self.length, self.queries = length, len(rows)
        self.blocks = -(-length // KEYS)
        self.seen = int((ends - firsts).sum())  # positions they see, all together
        self.pages = pages.data_ptr()
        self.whole = places is None
        given = rows, firsts, ends, rows if places is None else places
        self.addresses = tuple(each.data_ptr() for each in given)
        self._kept = pages, given  # what is pointed to
        self._memory: dict[str, Tensor] = {}

    def memory(self, use: str, size: int) -> Tensor:
        """Return so many float32, the same ones for each layer."""
        found = self._memory.get(use)
        if found is None or len(found) < size:
            settle()
            found = self._memory[use] = torch.empty(size, dtype=torch.float32)
        return found


def attend_prompt(
    out: Tensor,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    prompt: Prompt,
    *,
    scale: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    states: int = 0,
) -> None:
    """Write the prompt's rows of out [T, heads, d]; semantics and shapes of `paged_attention`.

    q [T, heads, d] with adjacent features; out and the caches contiguous; sinks float32 [heads].
    Where more keys follow, what is summed so far goes to the address `states` instead.
    """
    _, heads, dim = q.shape
    _, page, kv_heads, _ = k_cache.shape
    deep, wide = -(-dim // 2) * 2, -(-dim // LANES) * LANES
    count = kv_heads * prompt.blocks * KEYS
    group = heads // kv_heads
    at_once = max(1, _AT_ONCE // group)  # queries of a task
    keys = values = 0
    if prompt.queries > at_once:  # tasks that read the same keys find them laid out
        keys = prompt.memory("keys", count * deep).data_ptr()
        values = prompt.memory("values", count * wide).data_ptr()
        LAY_OUT(
            k_cache.dtype,
            kv_heads * prompt.blocks,
            2 * count * dim,
            keys,
            values,
            k_cache.data_ptr(),
            v_cache.data_ptr(),
            prompt.pages,
            prompt.length,
            kv_heads,
            dim,
            deep,
            wide,
            page,
        )
    rows = -(-min(at_once, prompt.queries) * group // ROWS) * ROWS
    size = rows * (deep + wide + 2 * KEYS + 2) + (deep + wide) * KEYS
    scratch = prompt.memory("scratch", torch.get_num_threads() * size)
    _ATTEND(
        q.dtype,
        -(-prompt.queries // at_once) * kv_heads,
        heads * prompt.seen * dim // 8,  # sums of a vector each
        out.data_ptr(),
        0 if prompt.whole else states,
        q.data_ptr(),
        keys,
        values,
        k_cache.data_ptr(),
        v_cache.data_ptr(),
        prompt.pages,
        scratch.data_ptr(),
        size,
        *prompt.addresses,
        0 if sinks is None else sinks.data_ptr(),
        prompt.length,
        page,
        prompt.queries,
        at_once,
        heads,
        kv_heads,
        prompt.blocks,
        dim,
        deep,
        wide,
        q.stride(0),
        q.stride(1),
        scale,
        softcap or 0.0,
    )


def _attend(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _OPERANDS)[0]
    out, q = elements(o.out, pointer), elements(o.q, pointer)
    k, v, pages = elements(o.k, pointer), elements(o.v, pointer), int32s(o.pages)
    query_rows, firsts, ends = int32s(o.rows), int32s(o.firsts), int32s(o.ends)
    states, places, sinks = floats(o.states), int32s(o.places), floats(o.sinks)
    dim, deep, wide, group = o.dim, o.deep, o.wide, o.heads // o.kv_heads
    # A thread's own: a block's keys and values, rows of queries, of sums, of scores and of the
    # weights that these become, tops and totals.
    mine = o.scratch + own_number(pointer) * o.size * 4
    laid_out = o.keys != 0
    keys = staged(o.keys if laid_out else mine, pointer)
    values = staged(o.values if laid_out else mine + deep * KEYS * 4, pointer)
    mine += (deep + wide) * KEYS * 4
    own, rows_of_q = floats(mine), staged(mine, pointer)
    most = (o.size - (deep + wide) * KEYS) // (deep + wide + 2 * KEYS + 2)
    sums, scores = most * deep, most * (deep + wide)
    n = terms(keys)
    # In float32 weights take their scores' place.
    weights = staged(mine + (scores + (most * KEYS if n > 1 else 0)) * 4, pointer)
    tops = scores + 2 * most * KEYS
    totals = tops + most
    while True:
        task = take(pointer)
        if task >= o.tasks:
            return
        task = o.tasks - 1 - task  # those that see most come first
        head, begin = task % o.kv_heads, task // o.kv_heads * o.at_once
        count: Any = min(o.at_once, o.queries - begin)
        rows = (count * group + ROWS - 1) // ROWS * ROWS
        for i in range(count * group, rows):
            for d in range(deep):
                store(rows_of_q, i * deep + d, np.float32(0))
        for i in range(rows * wide):
            own[sums + i] = np.float32(0)
        for i in range(rows):
            own[tops + i], own[totals + i] = np.float32(-np.inf), np.float32(0)
        low, high = np.int64(firsts[begin]), np.int64(0)
        for i in range(count):
            low, high = min(low, np.int64(firsts[begin + i])), max(high, np.int64(ends[begin + i]))
            for g in range(group):
                base = query_rows[begin + i] * o.q_row + (head * group + g) * o.q_head
                into = (i * group + g) * deep
                for d in range(dim):
                    store(rows_of_q, into + d, load(q, base + d))
                for d in range(dim, deep):
                    store(rows_of_q, into + d, np.float32(0))
        for block in range(low // KEYS, (high + KEYS - 1) // KEYS):
            first = block * KEYS
            seen: Any = min(KEYS, high - first)
            if laid_out:
                place = head * o.blocks + block
                key, value = place * deep * KEYS, place * KEYS * wide
            else:
                key = value = 0
                end: Any = min(first + KEYS, o.length)
                lay_out_keys(keys, key, k, pages, first, end, o.page, o.kv_heads, head, dim, deep)
                lay_out_values(
                    values, value, v, pages, first, end, o.page, o.kv_heads, head, dim, wide
                )
            for r in range(0, rows, ROWS):
                for c in range(0, seen, COLUMNS):
                    s, b = scores + r * KEYS + c, key + c * n
                    set_wide_staged(own, s, KEYS, rows_of_q, r * deep, deep, keys, b, KEYS, deep)
            for i in range(count * group):
                query = begin + i // group
                lowest: Any = max(np.int64(firsts[query]) - first, 0)
                behind: Any = min(np.int64(ends[query]) - first, KEYS)
                if lowest < behind:
                    row = scores + i * KEYS
                    at = tops + i
                    keep = _weigh(
                        own, row, lowest, behind, at, totals + i, np.float32(o.scale), o.softcap
                    )
                    if keep != 1:
                        for d in range(wide):
                            own[sums + i * wide + d] *= keep
                else:
                    for t in range(KEYS):
                        own[scores + i * KEYS + t] = np.float32(0)
                if n > 1:
                    for t in range(KEYS):
                        store(weights, i * KEYS + t, own[scores + i * KEYS + t])
            last = (seen + n - 1) // n * n
            for r in range(0, rows, ROWS):
                s, mixed, c = r * KEYS, sums + r * wide, 0
                while c + COLUMNS <= wide:
                    b = value + c * n
                    add_wide_staged(own, mixed + c, wide, weights, s, KEYS, values, b, wide, last)
                    c += COLUMNS
                while c < wide:
                    b = value + c * n
                    add_narrow_staged(own, mixed + c, wide, weights, s, KEYS, values, b, wide, last)
                    c += LANES
        for i in range(count * group):
            at = head * group + i % group
            mixed = sums + i * wide
            if o.states != 0:
                state = (places[begin + i // group] * o.heads + at) * (dim + 2)
                states[state], states[state + 1] = own[tops + i], own[totals + i]
                for d in range(dim):
                    states[state + 2 + d] = own[mixed + d]
                continue
            total = own[totals + i]
            if o.sinks != 0:
                total += exp(min(sinks[at] - own[tops + i], np.float32(87)))
            inverse = np.float32(1) / total
            base = (query_rows[begin + i // group] * o.heads + at) * dim
            for d in range(dim):
                store(out, base + d, own[mixed + d] * inverse)


@compiled
def _weigh(
    own: Any, base: Any, first: Any, end: Any, top: Any, total: Any, scale: Any, softcap: Any
) -> Any:
    """Turn a row's scores of a block into weights; return what its sums so far are worth now.

    It sees the keys first … end - 1 of the block, one of them at least. Loops over whole blocks
    are what vectors are made for.
    """
    whole = first == 0 and end == KEYS
    for t in range(base, base + KEYS):
        own[t] *= scale
    if softcap > 0:
        for t in range(base, base + KEYS):
            own[t] = cap(own[t], np.float32(softcap))
    if not whole:
        for t in range(KEYS):
            own[base + t] = own[base + t] if first <= t < end else np.float32(-np.inf)
    before = own[top]
    highest: Any = max(before, largest(own, base, KEYS))
    added = np.float32(0)
    for t in range(base, base + KEYS):
        weight = exp(own[t] - highest)
        own[t] = weight
        added += weight
    if not whole:  # a hidden key's weight is the least that there is: it shall be none
        added = np.float32(0)
        for t in range(KEYS):
            weight = own[base + t] if first <= t < end else np.float32(0)
            own[base + t] = weight
            added += weight
    keep = exp(before - highest)
    own[top] = highest
    own[total] = own[total] * keep + added
    return keep


_ATTEND = Kernel(_attend, _OPERANDS)
