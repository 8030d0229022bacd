"""Tile choices, apart from the maths.

The figures below are starting values from the geometry of the problem; none has been measured on
a GPU yet. `block_m` chooses the form: the tensor cores' from 16 rows on, the matrix-vector form
below, for segments of one or a few rows. Two rules are not open to tuning:

- The split of K and its block size depend on the weights' shape alone, in both modes where they
  decide a row's bits (`INVARIANT`), so that a row's sum has one order whatever shares its batch.
- `EXPAND_STAGES` is 1: ptxas before CUDA 13.3 miscompiles a pipelined wgmma whose A operand was
  made in registers, and the shrunk rows are summed and rounded there.
"""

from __future__ import annotations

from typing import NamedTuple

from aril.kernels.sgmv.plan import SgmvMode

EXPAND_STAGES = 1

# A matrix tile needs at least 16 in each direction.
MIN_TILE = 16

# Up to this many rows `fast` takes the matrix-vector form; 0 is never. Not measured: both forms
# read the same bytes, so geometry alone can't say which is the faster.
MATRIX_VECTOR_ROWS = 0

# Rows that share a tile in the matrix-vector form, at most: each adds a multiply-add to every
# weight, and at 4 an H100 by its data sheet has five times as many as its memory can feed.
MAX_VECTORS = 4

# Sums that a matrix-vector tile keeps in registers: 64 a thread with 4 warps.
VECTOR_SUMS = 8192

# Up to this many rows K is split: that pays only while the batch alone cannot fill the device.
MAX_SPLIT_K_ROWS = 128

# Rows of an adapter, on average, from which tall blocks are worth their padding.
TALL_SEGMENT = 32


class Tiles(NamedTuple):
    """One choice for a pair of launches: shrink [M, K] x [K, N], expand [M, R] x [R, N]."""

    block_m: int  # rows of one adapter that share a tile
    shrink_n: int  # of the rank
    shrink_k: int  # of the input features per step
    splits: int  # parts of the input features, summed in order by the expand
    expand_n: int  # of the output features
    expand_r: int  # of the rank per step
    warps: int
    shrink_stages: int  # of the tensor cores' form; the other has no pipeline


def choose_tiles(
    mode: SgmvMode, *, rows: int, in_features: int, max_rank: int, adapters: int | None = None
) -> Tiles:
    """Choose by the weights' shape, and in fast mode by the batch too.

    `adapters` is how many the rows are of; None where that may change, as in a captured graph,
    which keeps its tiles and is replayed with other segments.
    """
    if _few(mode, rows):
        return matrix_vector_tiles(rows, in_features=in_features, max_rank=max_rank)
    shrink_k = min(128, _power_of_two(in_features))
    many = _many(mode, rows)
    block_m = block_height(mode, rows=rows, adapters=adapters)
    tall = block_m > MIN_TILE
    return Tiles(
        block_m=block_m,
        shrink_n=min(64 if tall else 32, _power_of_two(max_rank)),
        shrink_k=min(64, shrink_k) if tall else shrink_k,
        splits=1 if many else _splits(in_features, shrink_k),
        expand_n=64,
        expand_r=min(64, _power_of_two(max_rank)),
        warps=4,
        shrink_stages=3,
    )


def block_height(mode: SgmvMode, *, rows: int, adapters: int | None) -> int:
    """Return the `block_m` that `choose_tiles` takes: of all linears alike."""
    if _few(mode, rows):
        return _vectors(rows)
    tall = _many(mode, rows) and (adapters is None or rows >= TALL_SEGMENT * adapters)
    return 4 * MIN_TILE if tall else MIN_TILE


def matrix_vector_tiles(rows: int, *, in_features: int, max_rank: int) -> Tiles:
    """Choose a matrix-vector form for a batch of so many rows; not measured.

    A block is as tall as the batch, up to four rows: then each adapter's weights are read once,
    however the rows share them. A step of shrink takes 16 rows of A, a step of expand up to 64 of
    the rank; both are as wide as their sums have registers.
    """
    block_m = _vectors(rows)
    shrink_k = min(VECTOR_SUMS // (MIN_TILE * max(2, block_m)), _power_of_two(in_features))
    expand_r = min(64, _power_of_two(max_rank))
    return Tiles(
        block_m=block_m,
        shrink_n=MIN_TILE,
        shrink_k=shrink_k,
        splits=_splits(in_features, min(128, shrink_k)),
        expand_n=min(128, VECTOR_SUMS // (block_m * expand_r)),
        expand_r=expand_r,
        warps=4,
        shrink_stages=1,
    )


def _few(mode: SgmvMode, rows: int) -> bool:
    return mode is SgmvMode.FAST and 1 <= rows <= MATRIX_VECTOR_ROWS


def _many(mode: SgmvMode, rows: int) -> bool:
    return mode is SgmvMode.FAST and rows > MAX_SPLIT_K_ROWS


def _vectors(rows: int) -> int:
    return min(MAX_VECTORS, 1 << (rows - 1).bit_length())


def _splits(in_features: int, shrink_k: int) -> int:
    """Give each split at least four steps, and stop at eight splits."""
    steps = -(-in_features // shrink_k)
    return max(1, min(8, steps // 4))


def _power_of_two(size: int) -> int:
    return max(MIN_TILE, 1 << (size - 1).bit_length())
