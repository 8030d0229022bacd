"""One adapter's products where a row's bits must not depend on the batch: blocks of one shape.

In fp32 at least: the CPU's half precision products are not alike for all rows of a block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.sgmv.packed.adapter import PackedAdapter
    from kernels.sgmv.segments import Segment

ROWS_OF_A_BLOCK = 8

# Ranks and widths are filled with zeros to whole multiples of this: MKL's fp32 products with fewer
# columns differ by a row's place within its block on some AMD processors.
WHOLE_COLUMNS = 8


def add_in_blocks_(adapter: PackedAdapter, y: Tensor, x: Tensor, segment: Segment) -> None:
    """Add the LoRA product of the segment's rows of x to those of y, in place.

    The last block is filled with zeros.
    """
    _, count, rows, scales = segment
    working = torch.promote_types(x.dtype, torch.float32)
    gathered = x[rows].to(working)
    spare_rows = -count % ROWS_OF_A_BLOCK
    blocks = pad(gathered, (0, 0, 0, spare_rows)).split(ROWS_OF_A_BLOCK)
    for linear in adapter.linears:
        spare_ranks, spare_outputs = (-size % WHOLE_COLUMNS for size in linear.b.shape)
        a = _fill(adapter.a[:, linear.columns].to(working), rows=0, columns=spare_ranks)
        b = _fill(linear.b.to(working), rows=spare_ranks, columns=spare_outputs)
        shrunk = [torch.mm(block, a) for block in blocks]
        if scales is not None:
            own_scales = pad(scales, (0, 0, 0, spare_rows)).split(ROWS_OF_A_BLOCK)
            shrunk = [each * own for each, own in zip(shrunk, own_scales, strict=True)]
        delta = torch.cat([torch.mm(each, b) for each in shrunk])
        own = y[:, linear.outputs]
        own[rows] = linear.combine(own[rows].to(working), delta[:count, : own.shape[1]]).to(y.dtype)


def _fill(matrix: Tensor, *, rows: int, columns: int) -> Tensor:
    """Add rows and columns of zeros at the end."""
    return pad(matrix, (0, columns, 0, rows)) if rows or columns else matrix
