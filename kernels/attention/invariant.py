"""The torch path of paged attention where a row's bits must not depend on the batch.

Every product has one fixed shape: blocks of `QUERIES` rows of one sequence against splits of
`SPLIT` keys that begin at fixed positions. A row decoded alone, decoded among others or computed
again in a prefill meets the same numbers in the same order; what a block or a split has too much
is hidden, and adds exact zeros. It costs more than the fast path; it is for `ARIL_INVARIANT=1`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from aril.kernels.attention.sight import FAR, Sight

if TYPE_CHECKING:
    from torch import Tensor

    from aril.kernels.attention.scores import Extras

QUERIES = 8
SPLIT = 64


class Split(NamedTuple):
    """One span of keys, for the m blocks of rows that look at it."""

    blocks: Tensor  # [m] int64
    places: Tensor  # [m · SPLIT] int64: of the keys, in a flat cache
    hidden: Tensor  # [m, 1, QUERIES, 1, SPLIT] bool


class InvariantPlan(NamedTuple):
    """Index tensors of one step, the same for every layer of one sight."""

    rows: Tensor  # [blocks · QUERIES] int64 into T; spare ones repeat the block's last row
    first: Tensor  # [T] int64: where each row stands among `rows`
    splits: tuple[Split, ...]


def make_invariant_plan(
    block_table: Tensor,
    cu_q: Tensor,
    kv_lens: Tensor,
    *,
    block_size: int,
    sight: Sight = FAR,
) -> InvariantPlan:
    """Cut the rows of each sequence into blocks and its keys into splits; see `paged_attention`."""
    device = block_table.device
    starts, lengths = cu_q.tolist(), kv_lens.tolist()
    owners: list[int] = []
    rows: list[list[int]] = []
    firsts: list[int] = []
    for owner in range(len(lengths)):
        for row in range(starts[owner], starts[owner + 1], QUERIES):
            last = min(row + QUERIES, starts[owner + 1]) - 1
            firsts += range(len(rows) * QUERIES, len(rows) * QUERIES + last - row + 1)
            rows.append([min(row + at, last) for at in range(QUERIES)])
            owners.append(owner)
    indices = torch.tensor(rows, dtype=torch.int64, device=device).view(-1, QUERIES)
    owner_of = torch.tensor(owners, dtype=torch.int64, device=device)
    length = kv_lens.long()[owner_of, None]
    positions = length - cu_q.long()[owner_of + 1, None] + indices  # [blocks, QUERIES]
    pages = (length - 1) // block_size  # a sequence's last page: others' are never read
    splits = []
    for start in range(0, max(lengths, default=0), SPLIT):
        seen_by = positions[:, -1] >= start
        if sight:
            seen_by &= sight.first(positions[:, 0]) < start + SPLIT
        active = seen_by.nonzero()[:, 0]
        if not len(active):
            continue
        key = torch.arange(start, start + SPLIT, device=device)
        page = torch.minimum(key[None] // block_size, pages[active])
        places = block_table.long()[owner_of[active, None], page] * block_size + key % block_size
        at = positions[active, :, None]
        hidden = key > at
        if sight:
            hidden |= key < sight.first(at)
        splits.append(Split(active, places.flatten(), hidden[:, None, :, None]))
    return InvariantPlan(
        indices.flatten(),
        torch.tensor(firsts, dtype=torch.int64, device=device),
        tuple(splits),
    )


def attend_invariant(  # noqa: PLR0917 - the operands
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: InvariantPlan,
    scale: float,
    extras: Extras,
) -> Tensor:
    """Attend all blocks at once, split by split in order; sums in fp32 at least."""
    working = torch.promote_types(q.dtype, torch.float32)
    kv_heads, dim = k_cache.shape[2:]
    group = q.shape[1] // kv_heads
    blocks = q[plan.rows].to(working) * scale
    blocks = blocks.view(-1, QUERIES, kv_heads, group, dim).transpose(1, 2)
    blocks = blocks.reshape(-1, kv_heads, QUERIES * group, dim)
    top = blocks.new_full((*blocks.shape[:3], 1), float("-inf"))
    total, result = torch.zeros_like(top), torch.zeros_like(blocks)
    for split in plan.splits:
        keys, values = (
            cache.view(-1, kv_heads, dim)[split.places]
            .to(working)
            .view(-1, SPLIT, kv_heads, dim)
            .transpose(1, 2)
            .flatten(0, 1)
            for cache in (k_cache, v_cache)
        )  # [m · kv_heads, SPLIT, d]
        own = split.blocks
        scores = torch.bmm(blocks[own].flatten(0, 1), keys.transpose(1, 2))
        scores = extras.cap(scores).view(-1, kv_heads, QUERIES, group, SPLIT)
        scores = scores.masked_fill(split.hidden, float("-inf"))
        scores = scores.view(-1, kv_heads, QUERIES * group, SPLIT)
        new_top = torch.maximum(top[own], scores.amax(-1, keepdim=True))
        reference = new_top.clamp(min=torch.finfo(working).min)  # where nothing was seen yet
        weights = torch.exp(scores - reference)
        keep = torch.exp(top[own] - reference)
        part = torch.bmm(weights.flatten(0, 1), values).view(len(own), kv_heads, -1, dim)
        top[own] = new_top
        total[own] = total[own] * keep + weights.sum(-1, keepdim=True)
        result[own] = result[own] * keep + part
    if extras.sinks is not None:  # after all keys, whatever their number
        sinks = extras.sinks.to(working).view(1, kv_heads, 1, group)
        sinks = sinks.expand(1, kv_heads, QUERIES, group).reshape(1, kv_heads, -1, 1)
        total += torch.exp(sinks - top)
    out = (result / total).view(-1, kv_heads, QUERIES, group, dim).transpose(1, 2)
    return out.reshape(-1, kv_heads * group, dim)[plan.first].to(q.dtype)
