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
    """Two tensors [blocks, block_size, kv_heads, head_dim] a layer.

    Which block belongs to whom is the scheduler's business. Blocks are not cleared on reuse: a row
    reads only the places that its own sequence has written.
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
        for layout in layouts:
            shape = (blocks, block_size, layout.kv_heads, layout.head_dim)
            self.k[layout.layer] = torch.zeros(shape, dtype=dtype, device=device)
            self.v[layout.layer] = torch.zeros(shape, dtype=dtype, device=device)

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
        return sum(tensor.nbytes for tensor in (*self.k.values(), *self.v.values()))


@dataclass(frozen=True, slots=True)
class PackedRow:
    """New tokens of one sequence: `ids` stand at `start` and behind, stored in `block_ids`."""

    ids: Sequence[int]
    start: int
    block_ids: Sequence[int]  # of the whole sequence, its new tokens included


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """The tensors of one step: rows one after the other, T tokens together."""

    input_ids: Tensor  # [T] int64
    position_ids: Tensor  # [T] int64
    last: Tensor  # [rows] int64: place in T of each row's last token
    attention: PagedAttention


def pack(rows: Sequence[PackedRow], cache: KVCache, backend: Backend = "auto") -> PackedRows:
    """Lay rows out for one forward pass over the cache."""
    size = cache.block_size
    positions: list[int] = []
    places: list[int] = []
    for row in rows:
        span = range(row.start, row.start + len(row.ids))
        positions.extend(span)
        places.extend(row.block_ids[at // size] * size + at % size for at in span)
    ends = list(accumulate(len(row.ids) for row in rows))
    width = max(len(row.block_ids) for row in rows)

    def tensor(values: Sequence[object], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype).to(cache.device, non_blocking=True)

    return PackedRows(
        input_ids=tensor(list(chain.from_iterable(row.ids for row in rows)), torch.int64),
        position_ids=tensor(positions, torch.int64),
        last=tensor([end - 1 for end in ends], torch.int64),
        attention=PagedAttention(
            k_cache=cache.k,
            v_cache=cache.v,
            slot_mapping=tensor(places, torch.int64),
            block_table=tensor(
                [[*row.block_ids, *(0,) * (width - len(row.block_ids))] for row in rows],
                torch.int32,
            ),
            cu_q=tensor([0, *ends], torch.int32),
            kv_lens=tensor([row.start + len(row.ids) for row in rows], torch.int32),
            backend=backend,
        ),
    )
