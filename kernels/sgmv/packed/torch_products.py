"""One adapter's products by torch: any type, any device, any number of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aril.kernels.sgmv.packed.torch_sums import choose_sum

if TYPE_CHECKING:
    from torch import Tensor

    from aril.kernels.sgmv.packed.adapter import PackedAdapter
    from aril.kernels.sgmv.segments import Segment


class TorchProducts:
    """A product with A, then one with B for each linear, added by the way of its kind."""

    __slots__ = ("_sums", "adapter")

    def __init__(self, adapter: PackedAdapter, y_dtype: torch.dtype) -> None:
        self.adapter = adapter
        self._sums = [(linear, choose_sum(linear, y_dtype)) for linear in adapter.linears]

    def add_(self, y: Tensor, x: Tensor, segment: Segment) -> None:
        """Add the LoRA product of the segment's rows of x to those of y, in place."""
        rows = segment.rows
        shrunk = torch.mm(x[rows], self.adapter.a)
        if segment.scales is not None:
            shrunk.mul_(segment.scales)
        for linear, add_ in self._sums:
            add_(linear, y[:, linear.outputs], shrunk[:, linear.columns], rows)
