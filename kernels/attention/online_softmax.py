"""Online softmax, in Triton: sums over parts of the keys are kept relative to their maximum.

And which keys: what both kernels have in common.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def rescaling(maximum: tl.tensor, reference: tl.tensor) -> tl.tensor:
    """Return 2^(maximum - reference), 0 where nothing was seen yet."""
    seen = maximum > float("-inf")
    return tl.where(seen, tl.exp2(maximum - tl.where(seen, reference, 0.0)), 0.0)


@triton.jit
def capped(products: tl.tensor, scale: tl.tensor, softcap: tl.tensor) -> tl.tensor:
    """Return softcap · tanh(scale · products / softcap) · log2(e).

    Where the exponential overflows that is softcap · log2(e), as it should be.
    """
    cap = softcap * LOG2_E
    return cap - 2.0 * cap / (1.0 + tl.exp2(products * (scale / softcap * 2.0 * LOG2_E)))


@triton.jit
def add_sink(top: tl.tensor, total: tl.tensor, sink: tl.tensor) -> tl.tensor:
    """Return the sum with a sink's logit, always last: so a row's sum has one order.

    A sink that is so far above every key that it overflows leaves the row 0, as it should be.
    """
    return total + tl.exp2(sink.to(tl.float32) * LOG2_E - top)


@triton.jit
def first_seen(position: tl.tensor, window: tl.tensor, CHUNKED: tl.constexpr) -> tl.tensor:
    """Return the first position that a query sees: of its window, or of its chunk of so many."""
    if CHUNKED:  # noqa: SIM108 - the other branch is not compiled
        first = position // window * window
    else:
        first = tl.maximum(position - window + 1, 0)
    return first
