"""The two forms of a block's product, in Triton: tensor cores, and matrix by vectors.

Tensor cores take 16 rows at least. Smaller blocks take the matrix-vector form: threads keep the
weights as they were loaded, 16 bytes along the summed axis, multiply them by each row in fp32, and
add across threads once, at the end. Its tiles have all three axes from the load on, because two
axes that are widened later go through shared memory.
"""

from __future__ import annotations

import triton
import triton.language as tl

from aril.kernels.sgmv.tiles import MIN_TILE

MATRIX_ROWS = tl.constexpr(MIN_TILE)


@triton.jit
def no_sums(BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr) -> tl.tensor:
    """Begin a product [BM, BK] x [BK, BN] in fp32."""
    if BLOCK_M >= MATRIX_ROWS:
        return tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    else:  # noqa: RET505 - Triton compiles both without it
        return tl.zeros([BLOCK_M, BLOCK_K, BLOCK_N], tl.float32)


@triton.jit
def spread_rows(rows: tl.tensor, BLOCK_M: tl.constexpr) -> tl.tensor:
    """Give what has the axes [BM, BK] those of the form: addresses and masks, before the load."""
    return rows if BLOCK_M >= MATRIX_ROWS else rows[:, :, None]


@triton.jit
def spread_weights(weights: tl.tensor, BLOCK_M: tl.constexpr) -> tl.tensor:
    """Give what has the axes [BK, BN] those of the form, likewise."""
    return weights if BLOCK_M >= MATRIX_ROWS else weights[None, :, :]


@triton.jit
def add_product(
    sums: tl.tensor,
    rows: tl.tensor,
    weights: tl.tensor,
    BLOCK_M: tl.constexpr,
    UPCAST: tl.constexpr,
) -> tl.tensor:
    """Add one step's product; both tiles have the axes of the form."""
    if UPCAST or BLOCK_M < MATRIX_ROWS:
        rows = rows.to(tl.float32)
        weights = weights.to(tl.float32)
    if BLOCK_M >= MATRIX_ROWS:
        return tl.dot(rows, weights, sums, input_precision="ieee")
    else:  # noqa: RET505 - as above
        return sums + rows * weights


@triton.jit
def summed(sums: tl.tensor, BLOCK_M: tl.constexpr) -> tl.tensor:
    """End the product: [BM, BN]."""
    return sums if BLOCK_M >= MATRIX_ROWS else tl.sum(sums, 1)
