"""Expand: y[i, slice] += scale · (sum of planes[:, i]) · B[s(i)], in Triton."""

# Triton reads these names and the absence of annotations as part of a kernel's signature.
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def expand_kernel(
    planes,
    b0,
    b1,
    b2,
    b3,
    width0,
    width1,
    width2,
    width3,
    y,
    ranks,
    scales,
    block_rows,
    block_slots,
    rows_total,
    tiles,
    first_column,
    stride_y_row,
    stride_y_column,
    stride_plane,
    SLICES: tl.constexpr,
    FIRST_SLICE: tl.constexpr,
    PARTS: tl.constexpr,
    MAX_RANK: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """One program: one block of rows, one tile of one slice's outputs.

    planes [SPLITS, T, SLICES · MAX_RANK] fp32, bN [slots, widthN, MAX_RANK] contiguous, y [T, ...].
    The slices FIRST_SLICE to FIRST_SLICE + PARTS are walked as one row of tiles, each slice rounded
    up to whole tiles; their columns of y begin at first_column.
    """
    pid = tl.program_id(0)
    tile = pid % tiles
    block = pid // tiles
    slot = tl.load(block_slots + block)
    if slot < 0:
        return

    part = 0
    b = b0
    width = width0
    column = first_column
    if PARTS > 1:
        if tile >= tl.cdiv(width0, BLOCK_N):
            tile -= tl.cdiv(width0, BLOCK_N)
            part = 1
            b = b1
            width = width1
            column += width0
            if PARTS > 2:
                if tile >= tl.cdiv(width1, BLOCK_N):
                    tile -= tl.cdiv(width1, BLOCK_N)
                    part = 2
                    b = b2
                    width = width2
                    column += width1
                    if PARTS > 3:
                        if tile >= tl.cdiv(width2, BLOCK_N):
                            tile -= tl.cdiv(width2, BLOCK_N)
                            part = 3
                            b = b3
                            width = width3
                            column += width2
    part += FIRST_SLICE
    rank = tl.load(ranks + slot * SLICES + part)
    if rank == 0:
        return
    scale = tl.load(scales + slot * SLICES + part)

    rows = tl.load(block_rows + block * BLOCK_M + tl.arange(0, BLOCK_M))  # [BM]
    live_rows = rows < rows_total
    rows = rows.to(tl.int64)
    outputs = tile * BLOCK_N + tl.arange(0, BLOCK_N)  # [BN]
    live_outputs = outputs < width
    live = live_rows[:, None] & live_outputs[None, :]
    y_tile = y + rows[:, None] * stride_y_row
    y_tile += (column + outputs).to(tl.int64)[None, :] * stride_y_column
    prior = tl.load(y_tile, live, other=0.0).to(tl.float32)

    shrunk_rows = planes + rows[:, None] * (SLICES * MAX_RANK) + part * MAX_RANK
    b_rows = b + (slot.to(tl.int64) * width + outputs)[None, :] * MAX_RANK
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for r0 in range(0, rank, BLOCK_R):
        r = r0 + tl.arange(0, BLOCK_R)
        live_r = r < rank
        shrunk_mask = live_rows[:, None] & live_r[None, :]
        shrunk = tl.load(shrunk_rows + r[None, :], shrunk_mask, other=0.0)  # [BM, BR]
        for split in tl.static_range(1, SPLITS):
            plane = split * stride_plane
            shrunk += tl.load(shrunk_rows + plane + r[None, :], shrunk_mask, other=0.0)
        b_tile = tl.load(
            b_rows + r[:, None], live_r[:, None] & live_outputs[None, :], other=0.0
        )  # [BR, BN]
        shrunk = shrunk.to(b_tile.dtype)
        if UPCAST:
            shrunk = shrunk.to(tl.float32)
            b_tile = b_tile.to(tl.float32)
        sums = tl.dot(shrunk, b_tile, sums, input_precision="ieee")

    tl.store(y_tile, (prior + sums * scale).to(y.dtype.element_ty), live)
