"""Gated activations of two products, in Triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _logistic(x: tl.tensor) -> tl.tensor:
    """Return 1 / (1 + e^-x), by exponentials that cannot overflow."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def gate_kernel(  # noqa: PLR0917 - the operands of one launch
    out: tl.tensor,
    gates: tl.tensor,
    up: tl.tensor,
    stride_gate: tl.tensor,
    stride_up: tl.tensor,
    UP: tl.constexpr,
    WIDTH: tl.constexpr,
    TANH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One program: BLOCK columns of a row of out [T, WIDTH] contiguous.

    silu(gates) · up, or with TANH gelu(gates) · up by its approximation of that name; rows of
    adjacent columns. `up` begins UP numbers behind its pointer: both may be halves of one product.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = column < WIDTH
    x = tl.load(gates + row * stride_gate + column, live, other=0.0).to(tl.float32)
    by = tl.load(up + row * stride_up + UP + column, live, other=0.0).to(tl.float32)
    if TANH:  # noqa: SIM108 - the other branch is not compiled
        # (1 + tanh(z)) / 2 is the logistic function of 2 z.
        z = 1.5957691216 * (x + 0.044715 * x * x * x)
    else:
        z = x
    tl.store(out + row * WIDTH + column, (x * _logistic(z) * by).to(out.dtype.element_ty), live)
