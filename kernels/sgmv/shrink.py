"""Shrink: planes[split, i, j] = partial sum over K of x[i] · A[s(i)][j], in Triton."""

from __future__ import annotations

import triton
import triton.language as tl

from aril.kernels.sgmv.forms import add_product, no_sums, spread_rows, spread_weights, summed


@triton.jit(do_not_specialize=["rows_total"])
def shrink_kernel(  # noqa: PLR0917 - the operands, in the order of the formula
    x: tl.tensor,
    a: tl.tensor,
    planes: tl.tensor,
    ranks: tl.tensor,
    block_rows: tl.tensor,
    block_slots: tl.tensor,
    rows_total: tl.tensor,
    in_features: tl.tensor,
    split_k: tl.tensor,
    stride_x_row: tl.tensor,
    stride_x_k: tl.tensor,
    stride_plane: tl.tensor,
    SLICES: tl.constexpr,
    MAX_RANK: tl.constexpr,
    TILES: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    UPCAST: tl.constexpr,
) -> None:
    """One program: one block of rows, one tile of one slice's rank, one part of K.

    TILES = ceil(MAX_RANK / BLOCK_N), the tiles of a slice; those past the live rank return at once.
    x [T, K], a [slots, SLICES · MAX_RANK, K] contiguous, planes [SPLITS, T, SLICES · MAX_RANK].
    """
    pid = tl.program_id(0)
    first = pid % TILES * BLOCK_N
    part = pid // TILES % SLICES
    split = pid // (TILES * SLICES) % SPLITS
    block = pid // (TILES * SLICES * SPLITS)

    slot = tl.load(block_slots + block)
    if slot < 0:
        return
    rank = tl.load(ranks + slot * SLICES + part)
    if first >= rank:
        return

    rows = tl.load(block_rows + block * BLOCK_M + tl.arange(0, BLOCK_M))  # [BM]
    live_rows = rows < rows_total
    rows = rows.to(tl.int64)
    columns = first + tl.arange(0, BLOCK_N)  # [BN]
    live_columns = columns < rank
    a_rows = (slot.to(tl.int64) * SLICES + part) * MAX_RANK + columns
    start = split * split_k
    stop = tl.minimum(start + split_k, in_features)
    x_rows = x + rows[:, None] * stride_x_row
    a_rows = a + a_rows[None, :] * in_features

    sums = no_sums(BLOCK_M, BLOCK_K, BLOCK_N)
    for k0 in range(start, stop, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        live_k = k < stop
        k = k.to(tl.int64)
        x_at, x_live = x_rows + k[None, :] * stride_x_k, live_rows[:, None] & live_k[None, :]
        a_at, a_live = a_rows + k[:, None], live_k[:, None] & live_columns[None, :]
        x_tile = tl.load(spread_rows(x_at, BLOCK_M), spread_rows(x_live, BLOCK_M), other=0.0)
        a_tile = tl.load(spread_weights(a_at, BLOCK_M), spread_weights(a_live, BLOCK_M), other=0.0)
        sums = add_product(sums, x_tile, a_tile, BLOCK_M, UPCAST)
    sums = summed(sums, BLOCK_M)

    out = planes + split.to(tl.int64) * stride_plane + rows[:, None] * (SLICES * MAX_RANK)
    out += part * MAX_RANK + columns[None, :]
    tl.store(out, sums, live_rows[:, None] & live_columns[None, :])
