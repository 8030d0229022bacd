"""Heads normed, rotated and put where attention reads them, in Triton.

A head's halves are two tiles [heads, d / 2]: what rotation multiplies with each other then stands
in the same place of both, and no thread asks another one.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _halves(
    head: tl.tensor, stride: tl.tensor, HALF: tl.constexpr, BLOCK_D: tl.constexpr
) -> tl.tensor:
    """Return where the first halves of these heads lie [BH, BD], and which of it there is."""
    d = tl.arange(0, BLOCK_D)
    return head[:, None] * stride + d[None, :], (head >= 0)[:, None] & (d < HALF)[None, :]


@triton.jit
def _angles(
    angles: tl.tensor, row: tl.tensor, HALF: tl.constexpr, BLOCK_D: tl.constexpr
) -> tl.tensor:
    """Return a row's cosines or sines in fp32: of both halves [1, BD]."""
    d = tl.arange(0, BLOCK_D)
    at = angles + row * (2 * HALF) + d
    low = tl.load(at, d < HALF, other=0.0).to(tl.float32)
    high = tl.load(at + HALF, d < HALF, other=0.0).to(tl.float32)
    return low[None, :], high[None, :]


@triton.jit
def _normed(  # noqa: PLR0917 - the operands, in the order of the formula
    a: tl.tensor,
    b: tl.tensor,
    weight: tl.tensor,
    eps: tl.tensor,
    offset: tl.tensor,
    HALF: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> tl.tensor:
    """Return both halves x / √(mean(x²) + eps) · (weight + offset), in fp32."""
    d = tl.arange(0, BLOCK_D)
    low = tl.load(weight + d, d < HALF, other=0.0).to(tl.float32) + offset
    high = tl.load(weight + HALF + d, d < HALF, other=0.0).to(tl.float32) + offset
    inverse = tl.rsqrt(tl.sum(a * a + b * b, 1) / (2 * HALF) + eps)[:, None]
    return a * inverse * low[None, :], b * inverse * high[None, :]


@triton.jit
def _turn(  # noqa: PLR0917 - the operands, in the order of the formula
    out: tl.tensor,
    x: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    weight: tl.tensor,
    eps: tl.tensor,
    offset: tl.tensor,
    row: tl.tensor,
    head: tl.tensor,
    stride: tl.tensor,
    NORM: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """Write these heads of a row, from x at this stride to out side by side; -1 is no head."""
    at, live = _halves(head, stride, HALF, BLOCK_D)
    a = tl.load(x + at, live, other=0.0).to(tl.float32)
    b = tl.load(x + at + HALF, live, other=0.0).to(tl.float32)
    if NORM:
        a, b = _normed(a, b, weight, eps, offset, HALF, BLOCK_D)
    cos_low, cos_high = _angles(cos, row, HALF, BLOCK_D)
    sin_low, sin_high = _angles(sin, row, HALF, BLOCK_D)
    to, live = _halves(head, 2 * HALF, HALF, BLOCK_D)
    kind = out.dtype.element_ty
    tl.store(out + to, (a * cos_low - b * sin_low).to(kind), live)
    tl.store(out + to + HALF, (b * cos_high + a * sin_high).to(kind), live)


@triton.jit
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
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    Q_NORM: tl.constexpr,
    K_NORM: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """One program: up to BLOCK_H heads of one row, all queries, keys, or values.

    rows [T, (HEADS + 2 · KV_HEADS) · 2 · HALF] with adjacent columns; q_out [T, HEADS, 2 · HALF],
    caches [places, KV_HEADS, 2 · HALF], cos and sin [T, 2 · HALF]. A place that the cache does not
    have is skipped like -1: there is nobody to raise to here.
    """
    Q_BLOCKS: tl.constexpr = (HEADS + BLOCK_H - 1) // BLOCK_H
    KV_BLOCKS: tl.constexpr = (KV_HEADS + BLOCK_H - 1) // BLOCK_H
    DIM: tl.constexpr = 2 * HALF
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    x = rows + row * stride_row
    if block < Q_BLOCKS:
        head = block * BLOCK_H + tl.arange(0, BLOCK_H)
        head = tl.where(head < HEADS, head, -1)
        q_row = q_out + row * (HEADS * DIM)
        _turn(q_row, x, cos, sin, q_weight, q_eps, q_offset, row, head, DIM, Q_NORM, HALF, BLOCK_D)
    else:
        place = tl.load(places + row)
        if (place >= 0) & (place < cache_places):
            to = place * (KV_HEADS * DIM)
            head = (block - Q_BLOCKS) % KV_BLOCKS * BLOCK_H + tl.arange(0, BLOCK_H)
            head = tl.where(head < KV_HEADS, head, -1)
            x += HEADS * DIM
            if block < Q_BLOCKS + KV_BLOCKS:
                k_row = k_cache + to
                _turn(
                    k_row,
                    x,
                    cos,
                    sin,
                    k_weight,
                    k_eps,
                    k_offset,
                    row,
                    head,
                    DIM,
                    K_NORM,
                    HALF,
                    BLOCK_D,
                )
            else:
                at, live = _halves(head, DIM, HALF, BLOCK_D)
                x += KV_HEADS * DIM
                v_row = v_cache + to
                tl.store(v_row + at, tl.load(x + at, live), live)
                tl.store(v_row + at + HALF, tl.load(x + at + HALF, live), live)


@triton.jit
def rotate_kernel(  # noqa: PLR0917 - the operands of one launch
    out: tl.tensor,
    x: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    stride_row: tl.tensor,
    stride_head: tl.tensor,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """One program: up to BLOCK_H heads of one row of x, rotated into out [T, HEADS, 2 · HALF]."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    head = tl.where(head < HEADS, head, -1)
    to = out + row * (HEADS * 2 * HALF)
    x += row * stride_row
    _turn(to, x, cos, sin, cos, 0.0, 0.0, row, head, stride_head, False, HALF, BLOCK_D)  # noqa: FBT003
