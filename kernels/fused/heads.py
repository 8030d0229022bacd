"""Heads normed, rotated and put where attention reads them, in Triton.

A program takes heads of any rows, as many as it has room for: the heads of all rows are counted
through. A head's halves are two tiles [heads, d / 2]: what rotation multiplies with each other then
stands in the same place of both, and no thread asks another one.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _turn(  # noqa: PLR0917 - the operands, in the order of the formula
    x: tl.tensor,
    out: tl.tensor,
    live: tl.tensor,
    angles: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    weight: tl.tensor,
    eps: tl.tensor,
    offset: tl.tensor,
    NORM: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """Rotate heads from the places x to the places out, those of their first halves [BH, BD].

    With NORM what is rotated is x / √(mean(x²) + eps) · (weight + offset). `angles` [BH, BD] says
    where in cos and sin those of their rows are.
    """
    kind = out.dtype.element_ty
    a = tl.load(x, live, other=0.0).to(tl.float32)
    b = tl.load(x + HALF, live, other=0.0).to(tl.float32)
    if NORM:
        d = tl.arange(0, BLOCK_D)
        low = tl.load(weight + d, d < HALF, other=0.0).to(tl.float32) + offset
        high = tl.load(weight + HALF + d, d < HALF, other=0.0).to(tl.float32) + offset
        inverse = tl.rsqrt(tl.sum(a * a + b * b, 1) / (2 * HALF) + eps)[:, None]
        a = a * inverse * low[None, :]
        b = b * inverse * high[None, :]
    c = tl.load(cos + angles, live, other=0.0).to(tl.float32)
    s = tl.load(sin + angles, live, other=0.0).to(tl.float32)
    tl.store(out, (a * c - b * s).to(kind), live)
    c = tl.load(cos + angles + HALF, live, other=0.0).to(tl.float32)
    s = tl.load(sin + angles + HALF, live, other=0.0).to(tl.float32)
    tl.store(out + HALF, (b * c + a * s).to(kind), live)


@triton.jit(do_not_specialize=["rows_total"])
def place_kernel(  # noqa: PLR0917 - the operands of one launch
    q_out: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    rows: tl.tensor,
    places: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    q_weight: tl.tensor,
    k_weight: tl.tensor,
    q_eps: tl.tensor,
    q_offset: tl.tensor,
    k_eps: tl.tensor,
    k_offset: tl.tensor,
    cache_places: tl.tensor,
    stride_row: tl.tensor,
    rows_total: tl.tensor,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    Q_NORM: tl.constexpr,
    K_NORM: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """One program: BLOCK_H heads, all queries, keys, or values.

    rows [T, (HEADS + 2 · KV_HEADS) · 2 · HALF] with adjacent columns; q_out [T, HEADS, 2 · HALF],
    caches [places, KV_HEADS, 2 · HALF], cos and sin [T, 2 · HALF]. A place that the cache does not
    have is skipped like -1: there is nobody to raise to here.
    """
    DIM: tl.constexpr = 2 * HALF
    block = tl.program_id(0)
    q_blocks = tl.cdiv(rows_total * HEADS, BLOCK_H)
    kv_blocks = tl.cdiv(rows_total * KV_HEADS, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    if block < q_blocks:
        number = block * BLOCK_H + tl.arange(0, BLOCK_H)
        live = (number < rows_total * HEADS)[:, None] & (d < HALF)[None, :]
        row = (number // HEADS).to(tl.int64)
        x = rows + (row * stride_row + number % HEADS * DIM)[:, None] + d[None, :]
        to = q_out + number.to(tl.int64)[:, None] * DIM + d[None, :]
        at = row[:, None] * DIM + d[None, :]
        _turn(x, to, live, at, cos, sin, q_weight, q_eps, q_offset, Q_NORM, HALF, BLOCK_D)
    else:
        number = (block - q_blocks) % kv_blocks * BLOCK_H + tl.arange(0, BLOCK_H)
        row = (number // KV_HEADS).to(tl.int64)
        head = number % KV_HEADS
        place = tl.load(places + row, row < rows_total, other=-1)
        stored = (place >= 0) & (place < cache_places)
        live = stored[:, None] & (d < HALF)[None, :]
        x = rows + (row * stride_row + (HEADS + head) * DIM)[:, None] + d[None, :]
        cached = (place * (KV_HEADS * DIM) + head * DIM)[:, None] + d[None, :]
        if block < q_blocks + kv_blocks:
            to = k_cache + cached
            at = row[:, None] * DIM + d[None, :]
            _turn(x, to, live, at, cos, sin, k_weight, k_eps, k_offset, K_NORM, HALF, BLOCK_D)
        else:
            to = v_cache + cached
            x += KV_HEADS * DIM
            tl.store(to, tl.load(x, live), live)
            tl.store(to + HALF, tl.load(x + HALF, live), live)


@triton.jit(do_not_specialize=["rows_total"])
def rotate_kernel(  # noqa: PLR0917 - the operands of one launch
    out: tl.tensor,
    x: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    stride_row: tl.tensor,
    stride_head: tl.tensor,
    rows_total: tl.tensor,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """One program: BLOCK_H heads of x, rotated into out [T, HEADS, 2 · HALF]."""
    d = tl.arange(0, BLOCK_D)
    number = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    live = (number < rows_total * HEADS)[:, None] & (d < HALF)[None, :]
    row = (number // HEADS).to(tl.int64)
    at = row[:, None] * (2 * HALF) + d[None, :]
    to = out + number.to(tl.int64)[:, None] * (2 * HALF) + d[None, :]
    x += (row * stride_row + number % HEADS * stride_head)[:, None] + d[None, :]
    _turn(x, to, live, at, cos, sin, cos, 0.0, 0.0, False, HALF, BLOCK_D)  # noqa: FBT003
