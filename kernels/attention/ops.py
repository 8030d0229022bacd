"""Paged attention and the store into the paged cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernels.attention.gather import attend, make_attention_plan

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.attention.gather import AttentionPlan


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    cu_q: Tensor,
    kv_lens: Tensor,
    *,
    scale: float,
    window: int | None = None,
    backend: str = "auto",
    plan: AttentionPlan | None = None,
) -> Tensor:
    """Causal attention of the new rows of several sequences over their paged keys and values.

    Semantics, for sequence i with queries q[cu_q[i] : cu_q[i+1]] and its keys and values K, V
    [kv_lens[i], kv_heads, d] read through block_table[i]:

        out = softmax(scale · q Kᵀ + mask) V

    where the queries are the last positions of the sequence, each sees itself and what came before
    it, and with a `window` only the last `window` positions. The rows' own keys and values are
    already in the cache (`store_kv`). Query head n uses the kv head n // (heads / kv_heads).

    Shapes: q [T, heads, d], caches [blocks, block_size, kv_heads, d], block_table int32
    [seqs, max_blocks] (entries past a sequence's end are not used), cu_q int32 [seqs + 1] from 0 to
    T, kv_lens int32 [seqs], at least the sequence's number of queries. Returns [T, heads, d].

    `plan` (`make_attention_plan`) saves the torch path from reading the lengths at every layer.
    Raises `ValueError` with the shapes when they don't fit each other.
    """
    if plan is None:
        plan = make_attention_plan(
            block_table, cu_q, kv_lens, block_size=k_cache.shape[1], window=window
        )
    return attend(q, k_cache, v_cache, plan, scale=scale)


def store_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """Write the rows' keys and values into the paged cache, in place.

    k, v [T, kv_heads, d]; caches [blocks, block_size, kv_heads, d]; slot_mapping int64 [T] holds
    block · block_size + offset for each row, -1 skips the row.
    """
    keep = slot_mapping >= 0
    if not bool(keep.all()):
        k, v, slot_mapping = k[keep], v[keep], slot_mapping[keep]
    for rows, cache in ((k, k_cache), (v, v_cache)):
        cache.view(-1, *cache.shape[2:]).index_copy_(0, slot_mapping, rows)
