"""Row blocks: the segments of a plan as the Triton kernels walk them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class BlockTable(NamedTuple):
    """Rows grouped by slot, each group padded to whole blocks; one block has one adapter.

    `rows` int32 [blocks · block_m]: row ids; padding holds the number of rows, which no row has.
    `slots` int32 [blocks]: the block's slot, -1 where a static table has more room than work.
    """

    rows: Tensor
    slots: Tensor
    block_m: int


def worst_case_blocks(rows: int, slots: int, block_m: int) -> int:
    """How many blocks any segmentation of `rows` rows can need: the room of a static table."""
    used = min(rows, slots)
    return (rows + used * (block_m - 1)) // block_m


def build_blocks(row_slots: Tensor, *, slots: int, block_m: int, blocks: int) -> BlockTable:
    """Group rows by slot with a fixed set of tensor operations: no read by the host, no atomics.

    `blocks` is the room of the table, at least what the segments need. Ids that are no slot
    (-1, or what an unchecked device tensor may hold) are left out, so no kernel can follow them.
    """
    device = row_slots.device
    rows = row_slots.shape[0]
    known = (row_slots >= 0) & (row_slots < slots)
    key, order = torch.sort(torch.where(known, row_slots, slots), stable=True)
    bounds = torch.searchsorted(key, torch.arange(slots + 1, device=device, dtype=key.dtype))
    first_row, sizes = bounds[:-1], bounds.diff()
    needed = (sizes + block_m - 1) // block_m
    ends = needed.cumsum(0)

    block = torch.arange(blocks, device=device)
    slot = torch.searchsorted(ends, block, right=True)
    used = slot < slots
    slot = slot.clamp(max=slots - 1)
    position = (block - ends[slot] + needed[slot])[:, None] * block_m + torch.arange(
        block_m, device=device
    )
    live = used[:, None] & (position < sizes[slot][:, None])
    source = (first_row[slot][:, None] + position).clamp(max=max(rows - 1, 0))
    table = torch.where(live, order[source], rows)
    return BlockTable(
        table.to(torch.int32).flatten(),
        torch.where(used, slot, -1).to(torch.int32),
        block_m,
    )
