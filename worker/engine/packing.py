"""Where a step's tokens go: rows one after the other, each with its places in the paged cache."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING, NamedTuple

import torch

from worker.engine.attention import PagedAttention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from worker.engine.config import Backend
    from worker.engine.kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class PackedRow:
    """New tokens of one sequence: `ids` stand at `start` and behind, stored in `block_ids`."""

    ids: Sequence[int]
    start: int
    block_ids: list[int]  # of the whole sequence, its new tokens included
    sampled: int = 1  # of how many of its last tokens the logits are wanted, to sample from
    told: range = range(0)  # places in `ids` whose logits are wanted, before these
    length: int = 0  # that its tokens' frequencies go by, where it is more than up to a token


class HostRows(NamedTuple):
    """A step's n rows of T tokens together, as numbers: see PackedRows and PagedAttention."""

    input_ids: list[int]  # T
    position_ids: list[int]  # T
    logits_index: list[int]  # places in T: of each row those told of, and those sampled from
    slot_mapping: list[int]  # T
    block_table: list[list[int]]  # n, each as wide as the widest, or as asked
    cu_q: list[int]  # n + 1
    kv_lens: list[int]  # n
    lengths: list[int]  # T: what each one's frequencies go by


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """The tensors of one step: rows one after the other, T tokens together."""

    input_ids: Tensor  # [T] int64
    position_ids: Tensor  # [T] int64
    logits_index: Tensor  # [n] int64, places in T: those told of and sampled from, row by row
    attention: PagedAttention
    lengths: Tensor  # [T] int64: what each one's frequencies go by


def lay_out(rows: Sequence[PackedRow], block_size: int, *, width: int | None = None) -> HostRows:
    """Lay rows out one after the other, under a block table as wide as needed, or `width`."""
    spans = [range(row.start, row.start + len(row.ids)) for row in rows]
    ends = list(accumulate(len(row.ids) for row in rows))
    if width is None:
        width = max(len(row.block_ids) for row in rows)
    return HostRows(
        input_ids=list(chain.from_iterable(row.ids for row in rows)),
        position_ids=list(chain.from_iterable(spans)),
        logits_index=[
            place
            for row, end in zip(rows, ends, strict=True)
            for place in (
                *(end - len(row.ids) + at for at in row.told),
                *range(end - row.sampled, end),
            )
        ],
        slot_mapping=[
            row.block_ids[at // block_size] * block_size + at % block_size
            for row, span in zip(rows, spans, strict=True)
            for at in span
        ],
        # A short row's table goes on with a block of its own: nobody else's memory is read for it.
        block_table=[
            [*row.block_ids, *row.block_ids[:1] * (width - len(row.block_ids))] for row in rows
        ],
        cu_q=[0, *ends],
        kv_lens=[span.stop for span in spans],
        lengths=[
            max(row.length, at + 1) for row, span in zip(rows, spans, strict=True) for at in span
        ],
    )


def clear_fresh(rows: Sequence[PackedRow], cache: KVCache) -> None:
    """Clear the blocks into which no token of their sequence has gone yet."""
    size = cache.block_size
    fresh = [block for row in rows for block in row.block_ids[-(-row.start // size) :]]
    if fresh:
        cache.clear(fresh)


def pack(
    rows: Sequence[PackedRow],
    cache: KVCache,
    backend: Backend = "auto",
    *,
    invariant: bool = False,
) -> PackedRows:
    """Lay rows out for one forward pass over the cache; blocks that are new to them are cleared."""
    clear_fresh(rows, cache)
    host = lay_out(rows, cache.block_size)

    def tensor(values: Sequence[object], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype).to(cache.device, non_blocking=True)

    return PackedRows(
        input_ids=tensor(host.input_ids, torch.int64),
        position_ids=tensor(host.position_ids, torch.int64),
        logits_index=tensor(host.logits_index, torch.int64),
        attention=PagedAttention(
            k_cache=cache.k,
            v_cache=cache.v,
            slot_mapping=tensor(host.slot_mapping, torch.int64),
            block_table=tensor(host.block_table, torch.int32),
            cu_q=tensor(host.cu_q, torch.int32),
            kv_lens=tensor(host.kv_lens, torch.int32),
            backend=backend,
            invariant=invariant,
        ),
        lengths=tensor(host.lengths, torch.int64),
    )
