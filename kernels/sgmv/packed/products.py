"""A batch's products: a small pair of matmuls per segment, each at the adapter's own rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.kernels.sgmv.packed.invariant_products import add_in_blocks_

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from aril.kernels.sgmv.packed.torch_products import TorchProducts
    from aril.kernels.sgmv.plan import SgmvPlan

    Slots = Sequence[TorchProducts | None]


def add_rounded_once_(
    y: Tensor,
    x: Tensor,
    slots: Sequence[TorchProducts | None],
    plan: SgmvPlan,
    working: torch.dtype,
) -> None:
    """Do `add_segments_` in the type that the weights are kept in, then round y to its own.

    x and y are widened once for all segments.
    """
    if x.dtype is y.dtype is working:
        add_segments_(y, x, slots, plan)
    elif any(slots[segment.slot] is not None for segment in plan.segments):
        wide = y.to(working)
        add_segments_(wide, x.to(working), slots, plan)
        y.copy_(wide)


def add_segments_(
    y: Tensor, x: Tensor, slots: Sequence[TorchProducts | None], plan: SgmvPlan
) -> None:
    """Add scale · (x[rows of s] A[s]) B[s] to y[rows of s] for each segment s of the plan.

    Rows that have a scale of their own multiply x A by it.

    Linears that have a gain are scaled by it afterwards, see `PackedLinear.combine`. `slots` holds
    None where there is no adapter.
    """
    if not len(y) == len(x) == plan.rows:
        raise ValueError(f"mismatch of a plan of {plan.rows} rows, {len(x)} of x and {len(y)} of y")
    if plan.invariant:
        for segment in plan.segments:
            products = slots[segment.slot]
            if products is not None:
                add_in_blocks_(products.adapter, y, x, segment)
        return
    for segment in plan.segments:
        products = slots[segment.slot]
        if products is not None:
            products.add_(y, x, segment)
