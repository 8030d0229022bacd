"""Paged attention in Triton: prefill and decode rows of many sequences in one launch.

Keys are walked in splits of so many tokens, which begin at multiples of that. A decode row's
splits are separate programs whose results `merge_kernel` adds in order; a block of prefill rows
walks its splits one after the other and adds them by the same steps. So with splits of one length a
row's sum has one order, however it came to be computed.
"""

from __future__ import annotations

import triton
import triton.language as tl

from aril.kernels.attention.online_softmax import LOG2_E, add_sink, capped, first_seen, rescaling


@triton.jit
def _find_sequence(
    cu_q: tl.tensor, seqs: tl.tensor, block: tl.tensor, BLOCK_Q: tl.constexpr
) -> tl.tensor:
    """Find the last sequence whose blocks begin at or before `block`.

    Sequence i begins at block cu_q[i] // BLOCK_Q + i: room for each part-filled last block.
    """
    low = 0
    high = seqs
    while low + 1 < high:
        middle = (low + high) // 2
        if tl.load(cu_q + middle) // BLOCK_Q + middle <= block:
            low = middle
        else:
            high = middle
    return low


@triton.jit
def _locate(
    cu_q: tl.tensor,
    seqs: tl.tensor,
    blocks: tl.tensor,
    splits: tl.tensor,
    BLOCK_Q: tl.constexpr,
) -> tl.tensor:
    """Say what this program is for: sequence, first query of the block, split."""
    program = tl.program_id(0)
    if program < blocks:
        seq = _find_sequence(cu_q, seqs, program, BLOCK_Q)
        first_query = (program - tl.load(cu_q + seq) // BLOCK_Q - seq) * BLOCK_Q
        split = 0
    else:
        further = tl.maximum(splits - 1, 1)
        seq = (program - blocks) // further
        first_query = 0
        split = 1 + (program - blocks) % further
    return seq, first_query, split


@triton.jit
def _walk_split(  # noqa: PLR0917 - one tile of queries and where its keys are
    q_tile: tl.tensor,
    position: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    table: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    scale: tl.tensor,
    softcap: tl.tensor,
    window: tl.tensor,
    stride_page: tl.tensor,
    stride_token: tl.tensor,
    DIM: tl.constexpr,
    PAGE: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    CHUNKED: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    UPCAST: tl.constexpr,
) -> tl.tensor:
    """Attend the keys low to high: maximum [BM], sum [BM] and unnormalised result [BM, BD]."""
    d = tl.arange(0, BLOCK_D)
    live_d = d < DIM
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    result = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(low, high, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)  # [BN]
        live_n = key < high
        page = tl.load(table + key // PAGE, live_n, other=0)
        token = page.to(tl.int64) * stride_page + (key % PAGE) * stride_token
        k_tile = tl.load(
            k_cache + token[None, :] + d[:, None], live_d[:, None] & live_n[None, :], other=0.0
        )  # [BD, BN]
        v_tile = tl.load(
            v_cache + token[:, None] + d[None, :], live_n[:, None] & live_d[None, :], other=0.0
        )  # [BN, BD]
        if UPCAST:
            k_tile = k_tile.to(tl.float32)
        scores = tl.dot(q_tile, k_tile, input_precision="ieee")
        scores = capped(scores, scale, softcap) if HAS_SOFTCAP else scores * (scale * LOG2_E)
        seen = (key[None, :] <= position[:, None]) & live_n[None, :]
        if HAS_WINDOW:
            seen = seen & (key[None, :] >= first_seen(position, window, CHUNKED)[:, None])
        scores = tl.where(seen, scores, float("-inf"))  # [BM, BN]
        new_top = tl.maximum(top, tl.max(scores, 1))
        keep = rescaling(top, new_top)
        weights = rescaling(scores, new_top[:, None])
        total = total * keep + tl.sum(weights, 1)
        weights = weights.to(v_tile.dtype)
        if UPCAST:
            weights = weights.to(tl.float32)
            v_tile = v_tile.to(tl.float32)
        result = tl.dot(weights, v_tile, result * keep[:, None], input_precision="ieee")
        top = new_top
    return top, total, result


# Numbers that change from step to step: one binary for all of them.
@triton.jit(do_not_specialize=["seqs", "splits", "rows_total", "stride_table"])
def attend_kernel(  # noqa: PLR0917 - the operands of one launch
    q: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    out: tl.tensor,
    partial: tl.tensor,
    stats: tl.tensor,
    block_table: tl.tensor,
    cu_q: tl.tensor,
    kv_lens: tl.tensor,
    sinks: tl.tensor,
    seqs: tl.tensor,
    splits: tl.tensor,
    rows_total: tl.tensor,
    scale: tl.tensor,
    softcap: tl.tensor,
    window: tl.tensor,
    split_keys: tl.tensor,
    heads: tl.tensor,
    stride_q_row: tl.tensor,
    stride_q_head: tl.tensor,
    stride_page: tl.tensor,
    stride_token: tl.tensor,
    stride_kv_head: tl.tensor,
    stride_table: tl.tensor,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    PAGE: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    CHUNKED: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    UPCAST: tl.constexpr,
) -> None:
    """One program: a block of queries of one sequence, one kv head, one split if it is a decode.

    The query heads of a kv head stand side by side in the rows of a tile: row m is query
    m // GROUP, head m % GROUP. The first T // BLOCK_Q + seqs programs are the blocks of queries;
    the rest are the further splits of the sequences that decode.

    q, out [T, heads, DIM]; caches [pages, PAGE, kv_heads, DIM]; partial fp32
    [seqs, heads, splits, DIM]; stats fp32 [seqs, heads, splits, 2] (maximum, sum). Without
    HAS_SINKS the sinks [heads] are not read; of splits apart, `merge_kernel` adds them.
    """
    BLOCK_Q: tl.constexpr = BLOCK_M // GROUP
    blocks = rows_total // BLOCK_Q + seqs
    kv_head = tl.program_id(1)
    seq, first_query, own_split = _locate(cu_q, seqs, blocks, splits, BLOCK_Q)
    q_start = tl.load(cu_q + seq)
    q_len = tl.load(cu_q + seq + 1) - q_start
    if first_query >= q_len:
        return
    kv_len = tl.load(kv_lens + seq)
    context = kv_len - q_len
    end = tl.minimum(context + first_query + BLOCK_Q, kv_len)  # keys that any of the queries sees
    begin = 0
    if HAS_WINDOW:
        begin = first_seen(context + first_query, window, CHUNKED)
    first_split = begin // split_keys
    last_split = tl.cdiv(end, split_keys)
    apart = (q_len == 1) & (last_split - first_split > 1)
    idle = tl.where(apart, (own_split < first_split) | (own_split >= last_split), own_split > 0)
    if idle:
        return
    first_split = tl.where(apart, own_split, first_split)
    last_split = tl.where(apart, own_split + 1, last_split)

    m = tl.arange(0, BLOCK_M)
    query = first_query + m // GROUP  # [BM]
    head = kv_head * GROUP + m % GROUP
    live_m = (m < BLOCK_Q * GROUP) & (query < q_len)
    row = (q_start + query).to(tl.int64)
    position = context + query
    d = tl.arange(0, BLOCK_D)
    live_d = d < DIM
    q_tile = tl.load(
        q + row[:, None] * stride_q_row + head[:, None] * stride_q_head + d[None, :],
        live_m[:, None] & live_d[None, :],
        other=0.0,
    )  # [BM, BD]
    if UPCAST:
        q_tile = q_tile.to(tl.float32)

    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    result = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for split in range(first_split, last_split):
        split_top, split_total, split_result = _walk_split(
            q_tile,
            position,
            k_cache + kv_head * stride_kv_head,
            v_cache + kv_head * stride_kv_head,
            block_table + seq * stride_table,
            tl.maximum(split * split_keys, begin // BLOCK_N * BLOCK_N),
            tl.minimum(split * split_keys + split_keys, end),
            scale,
            softcap,
            window,
            stride_page,
            stride_token,
            DIM,
            PAGE,
            HAS_WINDOW,
            CHUNKED,
            HAS_SOFTCAP,
            BLOCK_M,
            BLOCK_N,
            BLOCK_D,
            UPCAST,
        )
        new_top = tl.maximum(top, split_top)
        keep, add = rescaling(top, new_top), rescaling(split_top, new_top)
        total = total * keep + split_total * add
        result = result * keep[:, None] + split_result * add[:, None]
        top = new_top

    if apart:
        slot = (seq.to(tl.int64) * heads + head) * splits + own_split
        tl.store(stats + slot * 2, top, live_m)
        tl.store(stats + slot * 2 + 1, total, live_m)
        tl.store(
            partial + slot[:, None] * DIM + d[None, :], result, live_m[:, None] & live_d[None, :]
        )
    else:
        if HAS_SINKS:
            total = add_sink(top, total, tl.load(sinks + head, live_m, other=0.0))
        tl.store(
            out + (row * heads + head)[:, None] * DIM + d[None, :],
            (result / tl.where(total > 0, total, 1.0)[:, None]).to(out.dtype.element_ty),
            live_m[:, None] & live_d[None, :],
        )
