"""Merge the splits of decode rows, in Triton: the second launch of paged attention."""

from __future__ import annotations

import triton
import triton.language as tl

from aril.kernels.attention.online_softmax import add_sink, first_seen, rescaling


@triton.jit(do_not_specialize=["splits"])
def merge_kernel(  # noqa: PLR0917 - the operands of one launch
    partial: tl.tensor,
    stats: tl.tensor,
    out: tl.tensor,
    cu_q: tl.tensor,
    kv_lens: tl.tensor,
    sinks: tl.tensor,
    splits: tl.tensor,
    window: tl.tensor,
    split_keys: tl.tensor,
    heads: tl.tensor,
    DIM: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    CHUNKED: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """One program: add the splits of one decode row and head, in order of position."""
    seq = tl.program_id(0)
    head = tl.program_id(1)
    q_start = tl.load(cu_q + seq)
    q_len = tl.load(cu_q + seq + 1) - q_start
    if q_len != 1:
        return
    kv_len = tl.load(kv_lens + seq)
    begin = 0
    if HAS_WINDOW:
        begin = first_seen(kv_len - 1, window, CHUNKED)
    first_split = begin // split_keys
    last_split = tl.cdiv(kv_len, split_keys)
    if last_split - first_split <= 1:
        return
    row_head = q_start.to(tl.int64) * heads + head
    seq_head = seq.to(tl.int64) * heads + head
    d = tl.arange(0, BLOCK_D)
    live_d = d < DIM
    top = float("-inf")
    total = 0.0
    result = tl.zeros([BLOCK_D], tl.float32)
    for split in range(first_split, last_split):
        slot = seq_head * splits + split
        split_top = tl.load(stats + slot * 2)
        split_total = tl.load(stats + slot * 2 + 1)
        split_result = tl.load(partial + slot * DIM + d, live_d, other=0.0)
        new_top = tl.maximum(top, split_top)
        keep, add = rescaling(top, new_top), rescaling(split_top, new_top)
        total = total * keep + split_total * add
        result = result * keep + split_result * add
        top = new_top
    if HAS_SINKS:
        total = add_sink(top, total, tl.load(sinks + head))
    tl.store(out + row_head * DIM + d, (result / total).to(out.dtype.element_ty), live_d)
