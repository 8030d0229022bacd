"""Online softmax, in Triton: sums over parts of the keys are kept relative to their maximum."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rescaling(maximum: tl.tensor, reference: tl.tensor) -> tl.tensor:
    """Return 2^(maximum - reference), 0 where nothing was seen yet."""
    seen = maximum > float("-inf")
    return tl.where(seen, tl.exp2(maximum - tl.where(seen, reference, 0.0)), 0.0)
