"""The paged cache: keys and values in blocks, and where a step's tokens go in it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING

import torch

from worker.engine.attention import PagedAttention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from worker.engine.attention import AttentionLayout
    from worker.engine.config import Backend, EngineConfig
    from worker.engine.model import Backbone


class KVCache:
    """Two tensors [blocks, block_size, kv_heads, head_dim] a layer, `k[layer]` and `v[layer]`.

    Which block belongs to whom is the scheduler's business. A sequence's new blocks are cleared
    before its first token goes in (`clear`): attention multiplies what lies behind a sequence's end
    by zero, and a NaN left there by an adapter gone wrong would pass into another tenant's answer.
    """

    def __init__(
        self,
        layouts: Sequence[AttentionLayout],
        *,
        blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.block_size = block_size
        self.device = device
        self.k: dict[int, Tensor] = {}
        self.v: dict[int, Tensor] = {}
        self._stacks: list[Tensor] = []  # layers of one shape lie in one tensor: cleared at once
        by_shape: dict[tuple[int, int], list[int]] = {}
        for layout in layouts:
            by_shape.setdefault((layout.kv_heads, layout.head_dim), []).append(layout.layer)
        for shape, layers in by_shape.items():
            stack = torch.zeros(
                (2 * len(layers), blocks, block_size, *shape), dtype=dtype, device=device
            )
            self._stacks.append(stack)
            self.k.update(zip(layers, stack[: len(layers)], strict=True))
            self.v.update(zip(layers, stack[len(layers) :], strict=True))

    @classmethod
    def of(cls, backbone: Backbone, config: EngineConfig) -> KVCache:
        """Make the cache that an engine's limits ask for."""
        return cls(
            backbone.layouts,
            blocks=config.kv_blocks,
            block_size=config.kv_block,
            dtype=backbone.dtype,
            device=backbone.device,
        )

    @property
    def nbytes(self) -> int:
        """Memory of the whole cache."""
        return sum(stack.nbytes for stack in self._stacks)

    def clear(self, block_ids: Sequence[int]) -> None:
        """Fill blocks with zeros in every layer."""
        index = torch.tensor(block_ids, dtype=torch.int64).to(self.device, non_blocking=True)
        for stack in self._stacks:
            stack.index_fill_(1, index, 0)


@dataclass(frozen=True, slots=True)
class PackedRow:
    """New tokens of one sequence: `ids` stand at `start` and behind, stored in `block_ids`."""

    ids: Sequence[int]
    start: int
    block_ids: list[int]  # of the whole sequence, its new tokens included
    sampled: bool = True  # whether the logits of its last token are wanted


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """The tensors of one step: rows one after the other, T tokens together."""

    input_ids: Tensor  # [T] int64
    position_ids: Tensor  # [T] int64
    logits_index: Tensor  # [n] int64: place in T of the last token of each row that is sampled
    attention: PagedAttention


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
    size = cache.block_size
    positions: list[int] = []
    places: list[int] = []
    for row in rows:
        span = range(row.start, row.start + len(row.ids))
        positions.extend(span)
        places.extend(row.block_ids[at // size] * size + at % size for at in span)
    clear_fresh(rows, cache)
    ends = list(accumulate(len(row.ids) for row in rows))
    width = max(len(row.block_ids) for row in rows)

    def tensor(values: Sequence[object], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype).to(cache.device, non_blocking=True)

    # A short row's table goes on with a block of its own: nobody else's memory is ever read for it.
    table = [[*row.block_ids, *row.block_ids[:1] * (width - len(row.block_ids))] for row in rows]
    return PackedRows(
        input_ids=tensor(list(chain.from_iterable(row.ids for row in rows)), torch.int64),
        position_ids=tensor(positions, torch.int64),
        logits_index=tensor(
            [end - 1 for row, end in zip(rows, ends, strict=True) if row.sampled], torch.int64
        ),
        attention=PagedAttention(
            k_cache=cache.k,
            v_cache=cache.v,
            slot_mapping=tensor(places, torch.int64),
            block_table=tensor(table, torch.int32),
            cu_q=tensor([0, *ends], torch.int32),
            kv_lens=tensor([row.start + len(row.ids) for row in rows], torch.int32),
            backend=backend,
            invariant=invariant,
        ),
    )
