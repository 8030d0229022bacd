"""The torch path of paged attention: gather the pages, then scaled dot product attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from aril.kernels.attention.scores import Extras, attend_by_scores
from aril.kernels.attention.sight import FAR, Sight

if TYPE_CHECKING:
    from collections.abc import Sequence

# A batch of decode rows is padded to its longest sequence. Rows are put together while the
# shortest has at least this share of the longest, so that at most a fifth of the work is padding.
MIN_FILL = 0.8


@dataclass(frozen=True, slots=True)
class DecodeBatch:
    """Sequences with one query each, padded to the longest."""

    rows: Tensor  # int64 [n]
    pages: Tensor  # int64 [n · pages]
    mask: Tensor | None  # bool [n, 1, 1, pages · block_size]; None: nothing to hide
    length: int  # keys per sequence, the longest one's


@dataclass(frozen=True, slots=True)
class PrefillSequence:
    """One sequence with several queries."""

    rows: slice
    pages: Tensor  # int64 [pages]
    mask: Tensor | None  # bool [queries, keys]; None: plain causal
    length: int


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What the torch path needs to know of a step on the host; the same for every layer."""

    decodes: tuple[DecodeBatch, ...]
    prefills: tuple[PrefillSequence, ...]


def make_attention_plan(
    block_table: Tensor,
    cu_q: Tensor,
    kv_lens: Tensor,
    *,
    block_size: int,
    sight: Sight = FAR,
) -> AttentionPlan:
    """Read the step's lengths on the host, once for all layers of one sight.

    block_table int32 [seqs, max_blocks], cu_q int32 [seqs + 1], kv_lens int32 [seqs].
    """
    starts: list[int] = cu_q.tolist()
    lengths: list[int] = kv_lens.tolist()
    decodes = []
    prefills = []
    for seq, length in enumerate(lengths):
        queries = starts[seq + 1] - starts[seq]
        if queries == 1:
            decodes.append(seq)
        elif queries > 1:
            prefills.append(
                _plan_prefill(block_table[seq], starts[seq], queries, length, block_size, sight)
            )
    decodes.sort(key=lengths.__getitem__, reverse=True)
    batches = []
    while decodes:
        longest = lengths[decodes[0]]
        count = sum(1 for seq in decodes if lengths[seq] >= longest * MIN_FILL)
        batches.append(
            _plan_decode(decodes[:count], block_table, starts, lengths, block_size, sight)
        )
        decodes = decodes[count:]
    return AttentionPlan(tuple(batches), tuple(prefills))


def _plan_prefill(  # noqa: PLR0917 - one sequence's numbers
    pages: Tensor, start: int, queries: int, length: int, block_size: int, sight: Sight
) -> PrefillSequence:
    mask = None
    if queries != length or sight:
        key = torch.arange(length, device=pages.device)
        query = torch.arange(length - queries, length, device=pages.device)[:, None]
        mask = key <= query
        if sight:
            mask &= key >= sight.first(query)
    used = pages[: -(-length // block_size)].to(torch.int64)
    return PrefillSequence(slice(start, start + queries), used, mask, length)


def _plan_decode(  # noqa: PLR0917 - one batch's numbers
    seqs: Sequence[int],
    block_table: Tensor,
    starts: Sequence[int],
    lengths: Sequence[int],
    block_size: int,
    sight: Sight,
) -> DecodeBatch:
    device = block_table.device
    longest = lengths[seqs[0]]
    pages = block_table[torch.tensor(seqs, device=device), : -(-longest // block_size)]
    mask = None
    if sight or lengths[seqs[-1]] != longest:
        key = torch.arange(longest, device=device)
        end = torch.tensor([lengths[seq] for seq in seqs], device=device)[:, None]
        mask = key < end
        if sight:
            mask &= key >= sight.first(end - 1)
        mask = mask[:, None, None, :]
    # Table entries past a sequence's own end may be anything: they are masked, but must exist.
    used = pages.to(torch.int64).clamp_(min=0)
    rows = torch.tensor([starts[seq] for seq in seqs], device=device)
    return DecodeBatch(rows, used.flatten(), mask, longest)


def attend(  # noqa: PLR0917 - the operands
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: AttentionPlan,
    scale: float,
    extras: Extras,
) -> Tensor:
    """Attention of a step's rows q [T, heads, d] over the cached keys and values."""
    out = torch.empty_like(q)
    for batch in plan.decodes:
        _attend_decodes(out, q, k_cache, v_cache, batch, scale, extras)
    for sequence in plan.prefills:
        _attend_prefill(out, q, k_cache, v_cache, sequence, scale, extras)
    return out


def _attend_decodes(  # noqa: PLR0917 - the operands
    out: Tensor,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    batch: DecodeBatch,
    scale: float,
    extras: Extras,
) -> None:
    _, _, kv_heads, dim = k_cache.shape
    count = batch.rows.shape[0]
    keys = _gather(k_cache, batch.pages, count, batch.length)
    values = _gather(v_cache, batch.pages, count, batch.length)
    # With one query a sequence the heads of a group are just more queries on the same keys.
    grouped = q[batch.rows].view(count, kv_heads, -1, dim)
    if extras:
        mask = batch.mask
        if mask is None:
            mask = torch.ones(1, 1, 1, batch.length, dtype=torch.bool, device=q.device)
        result = attend_by_scores(
            grouped.unsqueeze(3), keys, values, mask.unsqueeze(3), scale, extras
        )
    else:
        result = scaled_dot_product_attention(
            grouped, keys, values, attn_mask=batch.mask, scale=scale
        )
    out[batch.rows] = result.reshape(count, -1, dim)


def _attend_prefill(  # noqa: PLR0917 - the operands
    out: Tensor,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    sequence: PrefillSequence,
    scale: float,
    extras: Extras,
) -> None:
    keys = _gather(k_cache, sequence.pages, 1, sequence.length)
    values = _gather(v_cache, sequence.pages, 1, sequence.length)
    queries = q[None, sequence.rows].transpose(1, 2)
    if extras:
        mask = sequence.mask
        if mask is None:
            mask = torch.ones(queries.shape[2], sequence.length, dtype=torch.bool, device=q.device)
            mask = mask.tril()
        grouped = queries.unflatten(1, (keys.shape[1], -1))
        result = attend_by_scores(grouped, keys, values, mask[None, None, None], scale, extras)
        result = result.flatten(1, 2)
    else:
        result = scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=sequence.mask,
            is_causal=sequence.mask is None,
            scale=scale,
            enable_gqa=True,
        )
    out[sequence.rows] = result[0].transpose(0, 1)


def _gather(cache: Tensor, pages: Tensor, count: int, length: int) -> Tensor:
    """Pages as [count, kv_heads, length, d]."""
    _, _, kv_heads, dim = cache.shape
    gathered = cache.index_select(0, pages).view(count, -1, kv_heads, dim)
    return gathered[:, :length].transpose(1, 2)
