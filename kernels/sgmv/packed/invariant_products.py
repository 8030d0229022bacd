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
    from kernels.sgmv.segments import Rows

ROWS_OF_A_BLOCK = 8


def add_in_blocks_(adapter: PackedAdapter, y: Tensor, x: Tensor, rows: Rows) -> None:
    """Add the LoRA product of x[rows] to y[rows], in place; the last block is padded with zeros."""
    working = torch.promote_types(x.dtype, torch.float32)
    gathered = x[rows].to(working)
    count = len(gathered)
    blocks = pad(gathered, (0, 0, 0, -count % ROWS_OF_A_BLOCK)).split(ROWS_OF_A_BLOCK)
    for linear in adapter.linears:
        a_wide, b_wide = adapter.a[:, linear.columns].to(working), linear.b.to(working)
        delta = torch.cat([torch.mm(torch.mm(block, a_wide), b_wide) for block in blocks])
        own = y[:, linear.outputs]
        own[rows] = linear.combine(own[rows].to(working), delta[:count]).to(y.dtype)
