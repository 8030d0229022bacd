"""Attention on a CPU: few queries along their pages, long prompts by tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from aril.kernels.attention.shared import find_shared
from aril.kernels.attention.sight import FAR, Sight
from aril.kernels.native import Prompt, Queries, attend_prompt, attend_queries

if TYPE_CHECKING:
    from torch import Tensor

    from aril.kernels.attention.scores import Extras

# Up to this many new tokens a sequence's are taken one by one, each along its pages; more of them
# are faster by tiles, which lay their keys out first.
FEW = 3


@dataclass(frozen=True, slots=True)
class NativePlan:
    """What a step's attention needs to know, the same for every layer of one sight."""

    queries: Queries  # of sequences with few new tokens; of all where bits must not depend on it
    prompts: tuple[Prompt, ...]
    shared: tuple[Prompt, ...]  # beginnings that several of the queries have in common
    blocks: range  # those that are read: machine code asks nobody whether the cache has them
    tokens: int  # rows of q
    invariant: bool


def make_native_plan(
    block_table: Tensor,
    cu_q: Tensor,
    kv_lens: Tensor,
    *,
    block_size: int,
    sight: Sight = FAR,
    invariant: bool = False,
) -> NativePlan:
    """Sort a step's sequences by how many new tokens they have; shapes as in `paged_attention`.

    Raises `ValueError` for lengths that machine code would read beyond its memory by.
    """
    starts: list[int] = cu_q.tolist()
    lengths: list[int] = kv_lens.tolist()
    needed = -(-kv_lens // block_size)
    places = torch.arange(block_table.shape[1], dtype=torch.int32)
    used = block_table[places < needed[:, None]]
    if int(needed.sum()) != len(used):
        raise ValueError(f"{max(lengths)} tokens in a table of {block_table.shape[1]} blocks")
    low, high = (int(each) for each in used.aminmax()) if len(used) else (0, -1)
    rows: list[int] = []
    seqs: list[int] = []
    ends: list[int] = []
    prompts = []
    for seq, length in enumerate(lengths):
        start, stop = starts[seq], starts[seq + 1]
        if not 0 <= stop - start <= length:
            raise ValueError(f"{stop - start} queries of a sequence of {length} tokens")
        if invariant or stop - start <= FEW:
            rows += range(start, stop)
            seqs += [seq] * (stop - start)
            ends += range(length - (stop - start) + 1, length + 1)
        else:
            own = block_table[seq, : -(-length // block_size)]
            end = torch.arange(length - (stop - start) + 1, length + 1, dtype=torch.int32)
            first = _firsts(end, sight)
            own_rows = torch.arange(start, stop, dtype=torch.int32)
            prompts.append(Prompt(length, own.contiguous(), own_rows, first, end))
    row, seq_of, end = (torch.tensor(each, dtype=torch.int32) for each in (rows, seqs, ends))
    first, begun = _firsts(end, sight), torch.zeros_like(end)
    shared = []
    if not invariant and not sight:  # other sums; and who looks back a window sees no beginning
        for common in find_shared(block_table, seqs, ends, block_size):
            own = row[common.places]
            seen = torch.zeros_like(own), torch.full_like(own, common.tokens)
            places = common.places.to(torch.int32)
            shared.append(Prompt(common.tokens, common.pages, own, *seen, places))
            first[common.places], begun[common.places] = common.tokens, 1
    table = block_table.contiguous()
    queries = Queries(row, seq_of, first, end, table, begun if shared else None)
    blocks = range(low, high + 1)
    return NativePlan(queries, tuple(prompts), tuple(shared), blocks, starts[-1], invariant)


def attend_native(  # noqa: PLR0917 - the operands
    out: Tensor,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: NativePlan,
    scale: float,
    extras: Extras,
) -> None:
    """Write the attention of a step's rows q [T, heads, d] over the cached keys and values.

    Out is of q's shape and type, contiguous. Raises `ValueError` for blocks that the cache does not
    have, and for a plan of other rows.
    """
    if len(q) != plan.tokens:
        raise ValueError(f"{len(q)} rows under a plan of {plan.tokens}")
    if plan.blocks and not 0 <= plan.blocks.start < plan.blocks.stop <= len(k_cache):
        raise ValueError(f"blocks {plan.blocks} of a cache of {len(k_cache)}")
    sinks = None if extras.sinks is None else extras.sinks.float().contiguous()
    q = q if q.stride(2) == 1 else q.contiguous()
    cap = extras.softcap
    if plan.shared:
        states = plan.queries.states(*q.shape[1:])
        for each in plan.shared:
            attend_prompt(out, q, k_cache, v_cache, each, scale=scale, softcap=cap, states=states)
    if plan.queries.count:
        attend_queries(
            out, q, k_cache, v_cache, plan.queries, scale=scale, softcap=cap, sinks=sinks
        )
    for prompt in plan.prompts:
        attend_prompt(out, q, k_cache, v_cache, prompt, scale=scale, softcap=cap, sinks=sinks)


def _firsts(ends: Tensor, sight: Sight) -> Tensor:
    """Return the first position that each query sees, int32, of those behind their last ones."""
    if not sight:
        return torch.zeros_like(ends)
    return sight.first(ends - 1).clamp_(min=0).to(torch.int32)
