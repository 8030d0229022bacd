"""Tile choices, apart from the maths.

The figures below are starting values from the geometry of the problem; none has been measured on
a GPU yet. Two rules are not open to tuning:

- The split of K and its block size depend on the weights' shape alone, in both modes where they
  decide a row's bits (`INVARIANT`), so that a row's sum has one order whatever shares its batch.
- `EXPAND_STAGES` is 1: ptxas before CUDA 13.3 miscompiles a pipelined wgmma whose A operand was
  made in registers, and the shrunk rows are summed and rounded there.
"""

from __future__ import annotations

from typing import NamedTuple

from kernels.sgmv.plan import SgmvMode

EXPAND_STAGES = 1

# A matrix tile needs at least 16 in each direction.
MIN_TILE = 16

# Splitting K pays only while the batch alone cannot fill the device.
FEW_ROWS = 128


class Tiles(NamedTuple):
    """One choice for a pair of launches: shrink [M, K] x [K, N], expand [M, R] x [R, N]."""

    block_m: int  # rows of one adapter that share a tile
    shrink_n: int  # of the rank
    shrink_k: int  # of the input features per step
    splits: int  # parts of the input features, summed in order by the expand
    expand_n: int  # of the output features
    expand_r: int  # of the rank per step
    warps: int
    shrink_stages: int


def choose_tiles(mode: SgmvMode, *, rows: int, in_features: int, max_rank: int) -> Tiles:
    """Choose by the weights' shape, and in fast mode by the number of rows too."""
    shrink_k = min(128, _power_of_two(in_features))
    expand_r = min(64, _power_of_two(max_rank))
    many = mode is SgmvMode.FAST and rows > FEW_ROWS
    return Tiles(
        block_m=64 if many else 16,
        shrink_n=min(64 if many else 32, _power_of_two(max_rank)),
        shrink_k=min(64, shrink_k) if many else shrink_k,
        splits=1 if many else _splits(in_features, shrink_k),
        expand_n=64,
        expand_r=expand_r,
        warps=4,
        shrink_stages=3,
    )


def _splits(in_features: int, shrink_k: int) -> int:
    """Give each split at least four steps, and stop at eight splits."""
    steps = -(-in_features // shrink_k)
    return max(1, min(8, steps // 4))


def _power_of_two(size: int) -> int:
    return max(MIN_TILE, 1 << (size - 1).bit_length())
