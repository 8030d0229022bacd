"""The paged cache: keys and values in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from aril.worker.engine.one_copy import one_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from aril.worker.engine.config import EngineConfig
    from aril.worker.engine.forward_pass import AttentionLayout
    from aril.worker.engine.model import Backbone

# The type of a number's bits, and the exponent that only infinities and NaN have. Looked at as
# integers, bfloat16 takes a sixth of the time on a CPU.
_EXPONENTS: Final = {
    torch.bfloat16: (torch.int16, 0x7F80),
    torch.float16: (torch.int16, 0x7C00),
    torch.float32: (torch.int32, 0x7F800000),
    torch.float64: (torch.int64, 0x7FF0000000000000),
}


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

    def clear(self, blocks: Tensor) -> None:
        """Fill blocks, int64 [n] on the cache's device, with zeros in every layer."""
        if len(blocks):
            for stack in self._stacks:
                stack.index_fill_(1, blocks, 0)

    def finite(self, blocks: Tensor) -> Tensor:
        """Whether each block's numbers are finite in every layer, bool [n]; nobody waits for it."""
        found = torch.ones(len(blocks), dtype=torch.bool, device=self.device)
        for stack in self._stacks:
            words, exponent = _EXPONENTS[stack.dtype]
            bits = stack.view(words).index_select(1, blocks) & exponent
            found &= bits.amax((0, 2, 3, 4)) != exponent
        return found

    def clear_places(self, places: Sequence[int]) -> None:
        """Fill the places of tokens (block * block size + offset) with zeros in every layer."""
        (index,) = one_copy([np.array(places, np.int64)], self.device)
        for stack in self._stacks:
            stack.flatten(1, 2).index_fill_(1, index, 0)
