"""A sum and its RMSNorm, in Triton: one pass over a row."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def root_mean(x: tl.tensor, WIDTH: tl.constexpr, eps: tl.tensor) -> tl.tensor:
    """Return 1 / √(mean(x²) + eps) along the last axis, of which WIDTH numbers are not 0."""
    return tl.rsqrt(tl.sum(x * x, -1) / WIDTH + eps)


@triton.jit
def norm_kernel(  # noqa: PLR0917 - the operands, in the order of the formula
    out: tl.tensor,
    sums: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    weight: tl.tensor,
    eps: tl.tensor,
    offset: tl.tensor,
    ADD: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One program: one row of WIDTH numbers, all contiguous.

    With ADD sums = x + y rounded to its type, and out is the norm of that; else it is x's, and
    neither sums nor y is touched.
    """
    row = tl.program_id(0).to(tl.int64) * WIDTH
    column = tl.arange(0, BLOCK)
    live = column < WIDTH
    values = tl.load(x + row + column, live, other=0.0).to(tl.float32)
    if ADD:
        more = tl.load(y + row + column, live, other=0.0).to(tl.float32)
        rounded = (values + more).to(sums.dtype.element_ty)
        tl.store(sums + row + column, rounded, live)
        values = rounded.to(tl.float32)
    factor = tl.load(weight + column, live, other=0.0).to(tl.float32) + offset
    normed = values * root_mean(values, WIDTH, eps) * factor
    tl.store(out + row + column, normed.to(out.dtype.element_ty), live)
