"""Where a step's tokens go: rows one after the other, each with its places in the paged cache."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aril.worker.engine.attention import PagedAttention
from aril.worker.engine.one_copy import one_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from aril.worker.engine.config import Backend
    from aril.worker.engine.kv_cache import KVCache


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
    """A step's n rows of T tokens together, as numbers: see PackedRows and PagedAttention.

    As arrays on the host, then as tensors on a device.
    """

    input_ids: Any  # int64 [T]
    position_ids: Any  # int64 [T]
    logits_index: Any  # int64, places in T: of each row those told of, and those sampled from
    slot_mapping: Any  # int64 [T]
    lengths: Any  # int64 [T]: what each one's frequencies go by
    block_table: Any  # int32 [n, the widest, or as asked]
    cu_q: Any  # int32 [n + 1]
    kv_lens: Any  # int32 [n]


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """The tensors of one step: rows one after the other, T tokens together."""

    input_ids: Tensor  # [T] int64
    position_ids: Tensor  # [T] int64
    logits_index: Tensor  # [n] int64, places in T: those told of and sampled from, row by row
    attention: PagedAttention
    lengths: Tensor  # [T] int64: what each one's frequencies go by


def lay_out(rows: Sequence[PackedRow], block_size: int, *, width: int | None = None) -> HostRows:
    """Lay rows out one after the other, under a block table as wide as needed, or `width`.

    Returns arrays.
    """
    spans = [range(row.start, row.start + len(row.ids)) for row in rows]
    ends = list(accumulate(len(row.ids) for row in rows))
    if width is None:
        width = max(len(row.block_ids) for row in rows)
    table = np.empty((len(rows), width), np.int32)
    for place, row in enumerate(rows):
        table[place, : len(row.block_ids)] = row.block_ids
        # A short row's table goes on with a block of its own: nobody else's memory is read for it.
        table[place, len(row.block_ids) :] = row.block_ids[0]
    return HostRows(
        input_ids=_words(list(chain.from_iterable(row.ids for row in rows))),
        position_ids=_words(list(chain.from_iterable(spans))),
        logits_index=_words(
            [
                place
                for row, end in zip(rows, ends, strict=True)
                for place in (
                    *(end - len(row.ids) + at for at in row.told),
                    *range(end - row.sampled, end),
                )
            ]
        ),
        slot_mapping=_words(
            [
                row.block_ids[at // block_size] * block_size + at % block_size
                for row, span in zip(rows, spans, strict=True)
                for at in span
            ]
        ),
        lengths=_words(
            [max(row.length, at + 1) for row, span in zip(rows, spans, strict=True) for at in span]
        ),
        block_table=table,
        cu_q=np.array([0, *ends], np.int32),
        kv_lens=np.array([span.stop for span in spans], np.int32),
    )


class StepBlocks(NamedTuple):
    """Blocks that a step does something with besides storing, int64; as in `HostRows`."""

    fresh: Any  # into which no token of their sequence has gone yet
    filled: Any  # whose last token comes

    @classmethod
    def of(cls, rows: Sequence[PackedRow], block_size: int) -> StepBlocks:
        """List them, as arrays."""
        fresh: list[int] = []
        filled: list[int] = []
        for row in rows:
            fresh += row.block_ids[-(-row.start // block_size) :]
            stop = row.start + len(row.ids)
            filled += row.block_ids[row.start // block_size : stop // block_size]
        return cls(_words(fresh), _words(filled))


def pack(
    rows: Sequence[PackedRow],
    cache: KVCache,
    backend: Backend = "auto",
    *,
    invariant: bool = False,
) -> PackedRows:
    """Lay rows out for one forward pass over the cache; blocks that are new to them are cleared."""
    fresh = StepBlocks.of(rows, cache.block_size).fresh
    *there, fresh = one_copy([*lay_out(rows, cache.block_size), fresh], cache.device)
    cache.clear(fresh)
    return packed_rows(HostRows(*there), cache, backend, invariant=invariant)


def packed_rows(
    rows: HostRows, cache: KVCache, backend: Backend, *, invariant: bool = False
) -> PackedRows:
    """Return what a forward pass over the cache is given, of rows that are on its device."""
    return PackedRows(
        input_ids=rows.input_ids,
        position_ids=rows.position_ids,
        logits_index=rows.logits_index,
        attention=PagedAttention(
            k_cache=cache.k,
            v_cache=cache.v,
            slot_mapping=rows.slot_mapping,
            block_table=rows.block_table,
            cu_q=rows.cu_q,
            kv_lens=rows.kv_lens,
            backend=backend,
            invariant=invariant,
        ),
        lengths=rows.lengths,
    )


def _words(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, np.int64)
