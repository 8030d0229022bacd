"""The torch path of paged attention where a row's bits must not depend on the batch.

Every product has one fixed shape: blocks of `QUERIES` rows of one sequence against splits of
`SPLIT` keys that begin at fixed positions, padded. A row decoded alone, decoded among others or
computed again in a prefill meets the same numbers in the same order. It costs more than the fast
path; it is for `ARIL_INVARIANT=1`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from torch import Tensor

QUERIES = 8
SPLIT = 256


def attend_invariant(  # noqa: PLR0917 - the operands of `paged_attention`
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    cu_q: Tensor,
    kv_lens: Tensor,
    *,
    scale: float,
    window: int | None,
) -> Tensor:
    """Attend block by block; operands as in `paged_attention`, sums in fp32 at least."""
    working = torch.promote_types(q.dtype, torch.float32)
    page, kv_heads, dim = k_cache.shape[1:]
    out = torch.empty_like(q)
    starts, lengths = cu_q.tolist(), kv_lens.tolist()
    for seq, length in enumerate(lengths):
        pages = block_table[seq, : -(-length // page)].long()
        room = -(-length // SPLIT) * SPLIT
        keys, values = (
            pad(
                cache[pages].view(-1, kv_heads, dim)[:length].to(working),
                (0, 0, 0, 0, 0, room - length),
            ).transpose(0, 1)
            for cache in (k_cache, v_cache)
        )  # [kv_heads, room, d]
        first, stop = starts[seq], starts[seq + 1]
        for row in range(first, stop, QUERIES):
            rows = q[row : min(row + QUERIES, stop)]
            count = len(rows)
            positions = length - stop + row + torch.arange(QUERIES, device=q.device)
            block = pad(rows.to(working), (0, 0, 0, 0, 0, QUERIES - count))
            block = block.view(QUERIES, kv_heads, -1, dim).transpose(0, 1)
            result = _attend_block(block * scale, keys, values, positions, window)
            out[row : row + count] = result.transpose(0, 1).reshape(QUERIES, -1, dim)[:count]
    return out


def _attend_block(
    q: Tensor, keys: Tensor, values: Tensor, positions: Tensor, window: int | None
) -> Tensor:
    """Attend q [kv_heads, QUERIES, group, d] at `positions`, split by split in order."""
    kv_heads, queries, group, dim = q.shape
    q = q.reshape(kv_heads, queries * group, dim)
    at = positions.repeat_interleave(group)[:, None]
    top = q.new_full((kv_heads, queries * group, 1), float("-inf"))
    total = torch.zeros_like(top)
    result = torch.zeros_like(q)
    for start in range(0, keys.shape[1], SPLIT):
        key = torch.arange(start, start + SPLIT, device=q.device)
        seen = key <= at
        if window is not None:
            seen &= key > at - window
        scores = torch.bmm(q, keys[:, start : start + SPLIT].transpose(1, 2).contiguous())
        scores = scores.masked_fill(~seen, float("-inf"))
        new_top = torch.maximum(top, scores.amax(-1, keepdim=True))
        reference = new_top.clamp(min=torch.finfo(q.dtype).min)  # where nothing was seen yet
        weights = torch.exp(scores - reference)
        keep = torch.exp(top - reference)
        total = total * keep + weights.sum(-1, keepdim=True)
        result = result * keep + torch.bmm(weights, values[:, start : start + SPLIT].contiguous())
        top = new_top
    return (result / total).view(kv_heads, queries, group, dim)
