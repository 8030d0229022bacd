"""One adapter's products where a row's bits must not depend on the batch: blocks of one shape.

In fp32 at least: the CPU's half precision products are not alike for all rows of a block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from torch import Tensor

    from aril.kernels.sgmv.packed.adapter import PackedAdapter
    from aril.kernels.sgmv.segments import Segment

ROWS_OF_A_BLOCK = 8


def add_in_blocks_(adapter: PackedAdapter, y: Tensor, x: Tensor, segment: Segment) -> None:
    """Add the LoRA product of the segment's rows of x to those of y, in place.

    The last block is filled with zeros, and so are ranks and
    widths (`PackedAdapter.filled`). All linears' A are one product.
    """
    _, count, rows, scales = segment
    filled = adapter.filled
    spare = -count % ROWS_OF_A_BLOCK
    working = filled.a.dtype
    gathered = x[rows].to(working)
    if spare:
        gathered = pad(gathered, (0, 0, 0, spare))
    blocks = gathered.split(ROWS_OF_A_BLOCK)
    shrunk = [torch.mm(block, filled.a) for block in blocks]
    if scales is not None:
        own_scales = pad(scales, (0, 0, 0, spare)).split(ROWS_OF_A_BLOCK)
        shrunk = [each * own for each, own in zip(shrunk, own_scales, strict=True)]
    for linear in filled.linears:
        parts = [torch.mm(each[:, linear.columns], linear.b) for each in shrunk]
        delta = parts[0] if len(parts) == 1 else torch.cat(parts)
        own = y[:, linear.outputs]
        delta = delta[:count, : own.shape[1]]
        plain = linear.gain is None and linear.scale == 1 and y.dtype is working
        if plain and isinstance(rows, slice):
            own[rows].add_(delta)
        else:
            own[rows] = linear.combine(own[rows].to(working), delta).to(y.dtype)
