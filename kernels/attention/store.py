"""Write new keys and values into the paged cache, in Triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def store_kernel(  # noqa: PLR0917 - the operands of one launch
    k: tl.tensor,
    v: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    slot_mapping: tl.tensor,
    cache_slots: tl.tensor,
    stride_k_row: tl.tensor,
    stride_v_row: tl.tensor,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One program: one row's kv_heads · d = SIZE numbers of k and of v.

    A slot that the cache does not have is skipped like -1: there is nobody to raise to here.
    """
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slot_mapping + row)
    if (slot < 0) | (slot >= cache_slots):
        return
    element = tl.arange(0, BLOCK)
    live = element < SIZE
    tl.store(
        k_cache + slot * SIZE + element,
        tl.load(k + row * stride_k_row + element, live),
        live,
    )
    tl.store(
        v_cache + slot * SIZE + element,
        tl.load(v + row * stride_v_row + element, live),
        live,
    )
