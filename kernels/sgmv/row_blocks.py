"""Row blocks: the segments of a plan as the Triton kernels walk them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids = NDArray[np.int32]


class BlockTable(NamedTuple):
    """Rows grouped by slot, each group padded to whole blocks; one block has one adapter.

    `rows` int32 [blocks · block_m]: row ids; padding holds the number of rows, which no row has.
    `slots` int32 [blocks]: the block's slot, -1 where a static table has more room than work.
    """

    rows: Any  # a tensor; an array while it is on its way from the host
    slots: Any
    block_m: int


def worst_case_blocks(rows: int, slots: int, block_m: int) -> int:
    """How many blocks any segmentation of `rows` rows can need: the room of a static table."""
    used = min(rows, slots)
    return (rows + used * (block_m - 1)) // block_m


def lay_out_blocks(row_slots: Ids, *, block_m: int, slots: int, static: bool = False) -> BlockTable:
    """Group rows by slot on the host, as `build_blocks` does on a device: arrays, the same numbers.

    `row_slots` int32 [T] is in [-1, slots). The table is as long as it has to be, or with `static`
    as `worst_case_blocks` says.
    """
    rows = len(row_slots)
    order = np.argsort(row_slots, kind="stable")
    order = order[row_slots[order] >= 0]
    used, first, sizes = np.unique(row_slots[order], return_index=True, return_counts=True)
    needed = -(-sizes // block_m)
    ends = needed.cumsum()
    whole = int(needed.sum())
    blocks = worst_case_blocks(rows, slots, block_m) if static else whole
    table = np.full(blocks * block_m, rows, np.int32)
    starts = (ends - needed) * block_m  # of each group, in the table
    table[np.arange(len(order)) + np.repeat(starts - first, sizes)] = order
    block_slots = np.full(blocks, -1, np.int32)
    block_slots[:whole] = np.repeat(used, needed)
    return BlockTable(table, block_slots, block_m)


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
