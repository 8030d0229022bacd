"""Attention of a sequence with many new tokens, on a CPU: matrix products, a block at a time.

Half the time of torch's scaled dot product attention for 512 tokens, in bfloat16 as in float32
(decision 068).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from kernels.native import gather_pages, place_heads, softmax_
from kernels.products import multiply

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.attention.scores import Extras
    from kernels.attention.sight import Sight

# Queries that are multiplied at once, all heads of a group together: what lies before a block's
# last query is all that its products have to see. Fewer where the scores would leave the cache;
# whole multiples of the second number, so that few shapes of products are met.
QUERIES, WHOLE = 128, 16
SCORES = 1 << 20

# Keys are filled up to whole multiples of this, so that few shapes of products are met.
KEYS = 64


class LongPrompt(NamedTuple):
    """One sequence with many queries, the last of its tokens."""

    start: int  # of its queries in T
    queries: int
    length: int  # of its keys, its queries' own included
    pages: Tensor  # int32 [pages]
    firsts: Tensor  # int32 [queries]: the first position that a query sees
    ends: Tensor  # int32 [queries]: the position behind the last one


def plan_long_prompt(
    pages: Tensor, start: int, queries: int, length: int, sight: Sight
) -> LongPrompt:
    """Plan a sequence whose `queries` begin at row `start`; pages int32 [pages]."""
    ends = torch.arange(length - queries + 1, length + 1, dtype=torch.int32)
    firsts = sight.first(ends - 1).clamp_(min=0) if sight else torch.zeros_like(ends)
    return LongPrompt(start, queries, length, pages.contiguous(), firsts.to(torch.int32), ends)


def attend_long_prompt(  # noqa: PLR0917 - the operands
    out: Tensor,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    prompt: LongPrompt,
    scale: float,
    extras: Extras,
) -> None:
    """Write the sequence's rows of out [T, heads, d], contiguous; sums in float32."""
    heads, dim = q.shape[1:]
    kv_heads = k_cache.shape[2]
    group = heads // kv_heads
    padded = _filled(prompt.length)
    keys, values = gather_pages(k_cache, v_cache, prompt.pages, prompt.length, padded)
    own = q[prompt.start : prompt.start + prompt.queries].transpose(0, 1).float() * scale
    sinks = None if extras.sinks is None else extras.sinks.float().contiguous()
    most = max(WHOLE, min(QUERIES, SCORES // (group * padded) // WHOLE * WHOLE))
    at_once = min(most, -(-prompt.queries // WHOLE) * WHOLE)
    for first in range(0, prompt.queries, at_once):
        count = min(at_once, prompt.queries - first)
        seen = _filled(int(prompt.length - prompt.queries + first + count))
        block = own.new_zeros(heads, at_once, dim)
        block[:, :count] = own[:, first : first + count]
        firsts, ends = (each[first : first + count] for each in (prompt.firsts, prompt.ends))
        if count < at_once:  # the block's shape is one of few: its spare queries see one key
            firsts = torch.cat([firsts, firsts.new_zeros(at_once - count)])
            ends = torch.cat([ends, ends.new_ones(at_once - count)])
        for head in range(kv_heads):
            mine = slice(head * group, (head + 1) * group)
            scores = multiply(block[mine].view(-1, dim), keys[head, :seen])
            scores = scores.view(group, at_once, seen)
            softmax_(scores, firsts, ends, extras.softcap, None if sinks is None else sinks[mine])
            sums = multiply(scores.view(-1, seen), values[head, :seen].T).view(group, -1, dim)
            place_heads(out, sums, count, prompt.start + first, head * group)


def _filled(keys: int) -> int:
    return -(-keys // KEYS) * KEYS
