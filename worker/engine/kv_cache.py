"""The paged cache: keys and values in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from worker.engine.config import EngineConfig
    from worker.engine.forward_pass import AttentionLayout
    from worker.engine.model import Backbone


class KVCache:
    """Two tensors [blocks, block_size, kv_heads, head_dim] a layer, `k[layer]` and `v[layer]`.

    Which block belongs to whom is the scheduler's business. A sequence's new blocks are cleared
    before its first token goes in (`clear`): attention multiplies what lies behind a sequence's end
    by zero, and a NaN left there by an adapter gone wrong would pass into another tenant's answer.
    So are the places of drafts that did not come (`clear_places`): they lie behind the end, too.
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

    def clear(self, block_ids: Sequence[int]) -> None:
        """Fill blocks with zeros in every layer."""
        index = torch.tensor(block_ids, dtype=torch.int64).to(self.device, non_blocking=True)
        for stack in self._stacks:
            stack.index_fill_(1, index, 0)

    def finite(self, block_ids: Sequence[int]) -> bool:
        """Whether these blocks' numbers are finite in every layer; a device is waited for."""
        index = torch.tensor(block_ids, dtype=torch.int64).to(self.device, non_blocking=True)
        bounds = [bound for each in self._stacks for bound in each.index_select(1, index).aminmax()]
        return bool(torch.stack(bounds).isfinite().all())  # NaN is the bound where there is one

    def clear_places(self, places: Sequence[int]) -> None:
        """Fill the places of tokens (block * block size + offset) with zeros in every layer."""
        index = torch.tensor(places, dtype=torch.int64).to(self.device, non_blocking=True)
        for stack in self._stacks:
            stack.flatten(1, 2).index_fill_(1, index, 0)
