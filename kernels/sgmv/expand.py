"""Expand: y[i, slice] += scale · f[i] · (sum of planes[:, i]) · B[s(i)], in Triton.

Slices with gains (DoRA): y[i, slice] = gain · ((y[i, slice] - bias) + the same) + bias.
"""

from __future__ import annotations

import triton
import triton.language as tl

from aril.kernels.sgmv.forms import add_product, no_sums, spread_rows, spread_weights, summed


@triton.jit(do_not_specialize=["rows_total"])
def expand_kernel(  # noqa: PLR0915, PLR0917 - straight down; operands in the formula's order
    planes: tl.tensor,
    b0: tl.tensor,
    b1: tl.tensor,
    b2: tl.tensor,
    b3: tl.tensor,
    width0: tl.tensor,
    width1: tl.tensor,
    width2: tl.tensor,
    width3: tl.tensor,
    y: tl.tensor,
    ranks: tl.tensor,
    scales: tl.tensor,
    gains: tl.tensor,
    has_gain: tl.tensor,
    bias: tl.tensor,
    row_scales: tl.tensor,
    block_rows: tl.tensor,
    block_slots: tl.tensor,
    rows_total: tl.tensor,
    tiles: tl.tensor,
    first_column: tl.tensor,
    stride_y_row: tl.tensor,
    stride_y_column: tl.tensor,
    stride_plane: tl.tensor,
    stride_gain: tl.tensor,
    SLICES: tl.constexpr,
    FIRST_SLICE: tl.constexpr,
    MAX_RANK: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PIECE: tl.constexpr,
    GAIN: tl.constexpr,
    BIAS: tl.constexpr,
    SCALED: tl.constexpr,
    UPCAST: tl.constexpr,
) -> None:
    """One program: one block of rows, one tile of one slice's outputs.

    planes [SPLITS, T, SLICES · MAX_RANK] fp32, bN [slots, widthN, MAX_RANK] contiguous, y [T, ...].
    Up to four slices, from FIRST_SLICE on, are walked as one row of tiles, each rounded up to whole
    tiles; a spare one has width 0. Their columns of y begin at first_column. Without GAIN the
    arguments gains [slots, ...] fp32, has_gain [slots, SLICES] and bias are not read, nor is bias
    without BIAS; with it, gains are read only for a slice that has_gain names. f is row_scales [T]
    fp32, 1 and not read without SCALED. The rank is loaded
    in whole pieces of PIECE, which divides MAX_RANK, and what is past the live rank is dropped.
    """
    pid = tl.program_id(0)
    tile = pid % tiles
    block = pid // tiles
    slot = tl.load(block_slots + block)
    if slot < 0:
        return

    end0 = tl.cdiv(width0, BLOCK_N)
    end1 = end0 + tl.cdiv(width1, BLOCK_N)
    end2 = end1 + tl.cdiv(width2, BLOCK_N)
    in0, in1, in2 = tile < end0, tile < end1, tile < end2
    part = FIRST_SLICE + tl.where(in0, 0, tl.where(in1, 1, tl.where(in2, 2, 3)))
    tile -= tl.where(in0, 0, tl.where(in1, end0, tl.where(in2, end1, end2)))
    width = tl.where(in0, width0, tl.where(in1, width1, tl.where(in2, width2, width3)))
    column = first_column + tl.where(in0, 0, width0) + tl.where(in1, 0, width1)
    column += tl.where(in2, 0, width2)
    b = tl.where(in0, b0, tl.where(in1, b1, tl.where(in2, b2, b3)))
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
    sums = no_sums(BLOCK_M, BLOCK_R, BLOCK_N)
    loaded = tl.cdiv(rank, PIECE) * PIECE
    for r0 in range(0, rank, BLOCK_R):
        r = r0 + tl.arange(0, BLOCK_R)
        live_r = r < loaded
        plane = spread_rows(shrunk_rows + r[None, :], BLOCK_M)
        plane_live = spread_rows(live_rows[:, None] & live_r[None, :], BLOCK_M)
        shrunk = tl.load(plane, plane_live, other=0.0)
        for _ in tl.static_range(1, SPLITS):
            plane += stride_plane
            shrunk += tl.load(plane, plane_live, other=0.0)
        b_at, b_live = b_rows + r[:, None], live_r[:, None] & live_outputs[None, :]
        b_tile = tl.load(spread_weights(b_at, BLOCK_M), spread_weights(b_live, BLOCK_M), other=0.0)
        if PIECE > 1:  # what is past the rank is anything: away with it before it is rounded
            shrunk = tl.where(spread_rows((r < rank)[None, :], BLOCK_M), shrunk, 0.0)
            b_tile = tl.where(spread_weights((r < rank)[:, None], BLOCK_M), b_tile, 0.0)
        sums = add_product(sums, shrunk.to(b_tile.dtype), b_tile, BLOCK_M, UPCAST)
    sums = summed(sums, BLOCK_M)

    if GAIN:
        scaled = tl.load(has_gain + slot * SLICES + part) != 0
        read = live_outputs & scaled
        gain_row = gains + slot.to(tl.int64) * stride_gain + column
        gain = tl.load(gain_row + outputs, read, other=1.0)  # [BN]
        own = tl.zeros([BLOCK_N], tl.float32)  # [BN]
        if BIAS:
            own = tl.load(bias + column + outputs, read, other=0.0).to(tl.float32)
        prior -= own[None, :]
    if SCALED:
        scale *= tl.load(row_scales + rows, live_rows, other=1.0)[:, None]  # [BM, 1]
    # One expression with and without gains, so that it is rounded alike: less 0 changes no bit, nor
    # does a row's scale of 1.
    total = prior + sums * scale
    if GAIN:
        total = tl.where(scaled, total * gain[None, :] + own[None, :], total)
    tl.store(y_tile, total.to(y.dtype.element_ty), live)
