"""Gated activations of two products, in Triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows_total"])
def gate_kernel(  # noqa: PLR0917 - the operands of one launch
    out: tl.tensor,
    gates: tl.tensor,
    up: tl.tensor,
    stride_gate: tl.tensor,
    stride_up: tl.tensor,
    rows_total: tl.tensor,
    UP: tl.constexpr,
    WIDTH: tl.constexpr,
    TANH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    """One program: BLOCK_N columns of BLOCK_M rows of out [T, WIDTH] contiguous.

    silu(gates) · up, or with TANH gelu(gates) · up by its approximation of that name; rows of
    adjacent columns. `up` begins UP numbers behind its pointer: both may be halves of one product.
    """
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = (row < rows_total)[:, None] & (column < WIDTH)[None, :]  # [BM, BN]
    row = row.to(tl.int64)[:, None]
    column = column[None, :]
    x = tl.load(gates + row * stride_gate + column, live, other=0.0).to(tl.float32)
    by = tl.load(up + UP + row * stride_up + column, live, other=0.0).to(tl.float32)
    if TANH:  # noqa: SIM108 - the other branch is not compiled
        # (1 + tanh(z)) / 2 is the logistic function of 2 z.
        z = 1.5957691216 * (x + 0.044715 * x * x * x)
    else:
        z = x
    e = tl.exp(-tl.abs(z))  # which cannot overflow
    logistic = tl.where(z >= 0, 1.0, e) / (1.0 + e)
    tl.store(out + row * WIDTH + column, (x * logistic * by).to(out.dtype.element_ty), live)
