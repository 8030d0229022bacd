"""A batch's products: a small pair of matmuls per segment, each at the adapter's own rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from kernels.sgmv.packed.invariant_products import add_in_blocks_
from kernels.sgmv.packed.numpy_products import NumpyProducts
from kernels.sgmv.packed.operands import operands_of
from kernels.sgmv.packed.torch_products import TorchProducts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kernels.sgmv.packed.adapter import PackedAdapter
    from kernels.sgmv.packed.operands import Operands
    from kernels.sgmv.packed.scratch import Scratch
    from kernels.sgmv.plan import SgmvPlan
    from kernels.sgmv.segments import Segment


class Products(Protocol):
    """How one adapter's products are computed and added, chosen when it is loaded."""

    adapter: PackedAdapter

    def add_(self, operands: Operands, segment: Segment) -> None:
        """Add the LoRA product of the segment's rows of x to those of y, in place."""


def choose_products(adapter: PackedAdapter, scratch: Scratch, y_dtype: torch.dtype) -> Products:
    """Choose by device and types: numpy where it is the faster for few rows, else torch alone."""
    products = TorchProducts(adapter, y_dtype)
    if adapter.a.is_cpu and adapter.a.dtype is y_dtype is torch.float32:
        return NumpyProducts(adapter, scratch, large=products)
    return products


def add_rounded_once_(
    y: Tensor, x: Tensor, slots: Sequence[Products | None], plan: SgmvPlan, working: torch.dtype
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


def add_segments_(y: Tensor, x: Tensor, slots: Sequence[Products | None], plan: SgmvPlan) -> None:
    """Add scale · (x[rows of s] A[s]) B[s] to y[rows of s] for each segment s of the plan.

    Rows that have a scale of their own multiply x A by it.

    Linears that have a gain are scaled by it afterwards, see `PackedLinear.combine`. `slots` holds
    None where there is no adapter.
    """
    if plan.invariant:
        for segment in plan.segments:
            products = slots[segment.slot]
            if products is not None:
                add_in_blocks_(products.adapter, y, x, segment)
        return
    operands = operands_of(y, x)
    for segment in plan.segments:
        products = slots[segment.slot]
        if products is not None:
            products.add_(operands, segment)
