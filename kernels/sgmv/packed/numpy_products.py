"""One adapter's products by numpy, for few rows in fp32 on the CPU.

A decode step calls this for every adapter and every group of linears, thousands of times a second,
and each product is so small that its call counts: numpy's cost half of torch's, views are made once
and not in each call, and nothing is allocated. Decision 020 has the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy import matmul, multiply

from kernels.sgmv.packed.numpy_sums import choose_sum
from kernels.sgmv.packed.scratch import layout_of

if TYPE_CHECKING:
    from kernels.sgmv.packed.adapter import PackedAdapter
    from kernels.sgmv.packed.operands import Operands
    from kernels.sgmv.packed.scratch import Scratch
    from kernels.sgmv.packed.torch_products import TorchProducts
    from kernels.sgmv.segments import Segment

# Up to this many multiply-adds numpy's OpenBLAS takes its small-matrix path: one thread, nothing
# packed. Above it torch's threads win.
SMALL_PRODUCT = 1_000_000


class NumpyProducts:
    """The weights as numpy sees them, in the tensors' own memory; `large` takes larger segments."""

    __slots__ = ("_a", "_b", "_large", "_layout", "_max_rows", "_scratch", "_sum_", "adapter")

    def __init__(self, adapter: PackedAdapter, scratch: Scratch, large: TorchProducts) -> None:
        a, linears, width = adapter
        self.adapter = adapter
        self._a = a.numpy()
        self._b = [linear.b.numpy() for linear in linears]
        self._layout = layout_of(
            tuple(
                (part.columns.start, part.columns.stop, part.outputs.start, part.outputs.stop)
                for part in linears
            ),
            width,
        )
        self._sum_ = choose_sum(adapter).add_
        self._max_rows = SMALL_PRODUCT // max(a.numel(), *(part.b.numel() for part in linears))
        self._large = large
        self._scratch = scratch

    def add_(self, operands: Operands, segment: Segment) -> None:
        """Add the LoRA product of the segment's rows of x to those of y, in place."""
        _, _, arrays = operands
        _, count, rows, scales = segment
        if arrays is None or count > self._max_rows:
            self._large.add_(operands, segment)
            return
        y, x = arrays
        places = rows if isinstance(rows, slice) else rows.numpy()
        buffers = self._scratch.buffers(count, self._layout)
        shrunk, shrunk_columns, _, deltas = buffers
        matmul(x[places], self._a, shrunk)
        if scales is not None:
            multiply(shrunk, scales.numpy(), shrunk)
        for columns, b, delta in zip(shrunk_columns, self._b, deltas, strict=True):
            matmul(columns, b, delta)
        self._sum_(y, buffers, places)
