"""A sum and its RMSNorm, in Triton: one pass over a row."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows_total"])
def norm_kernel(  # noqa: PLR0917 - the operands, in the order of the formula
    out: tl.tensor,
    sums: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    weight: tl.tensor,
    eps: tl.tensor,
    offset: tl.tensor,
    rows_total: tl.tensor,
    ADD: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    """One program: BLOCK_M rows of WIDTH ≤ BLOCK_N numbers, all contiguous.

    With ADD sums = x + y rounded to its type, and out is the norm of that; else it is x's, and
    neither sums nor y is touched.
    """
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.arange(0, BLOCK_N)
    live = (row < rows_total)[:, None] & (column < WIDTH)[None, :]
    at = row.to(tl.int64)[:, None] * WIDTH + column[None, :]  # [BM, BN]
    values = tl.load(x + at, live, other=0.0).to(tl.float32)
    if ADD:
        rounded = (values + tl.load(y + at, live, other=0.0).to(tl.float32)).to(x.dtype.element_ty)
        tl.store(sums + at, rounded, live)
        values = rounded.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(values * values, 1) / WIDTH + eps)  # [BM]
    factor = tl.load(weight + column, column < WIDTH, other=0.0).to(tl.float32) + offset
    normed = values * inverse[:, None] * factor[None, :]
    tl.store(out + at, normed.to(out.dtype.element_ty), live)
