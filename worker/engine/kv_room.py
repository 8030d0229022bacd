"""How many tokens the KV cache holds: as many as were asked for, or as memory is there for.

Weights and adapter slots come first: this is asked when they are in their place. On a CPU the cache
takes a share of what is left, since the rest of the process grows too, and no more than a worker's
rows have use for; pages of it that no job has touched cost nothing yet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from aril.worker.engine.cgroups import free_memory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aril.worker.engine.config import EngineConfig
    from aril.worker.engine.forward_pass import AttentionLayout
    from aril.worker.engine.model import Backbone

CPU_SHARE: Final = 0.25
CPU_MOST: Final = 32_768  # tokens
GPU_SHARE: Final = (
    0.85  # a step's own tensors, recordings and what few adapters bring have the rest
)
# Whole contexts that the rows of a step could fill, and as many more for beginnings to be found.
CONTEXTS_A_ROW: Final = 2
LEAST: Final = 1_024  # tokens, or the backbone's context: with fewer most jobs would be refused


class KvRoomError(ValueError):
    """There is no memory for the cache; the message is one line and names the setting."""


class Room(NamedTuple):
    """What there is for keys and values."""

    free: int | None  # bytes; None: nothing tells
    token: int  # bytes that one token takes, in all layers
    share: float  # of the free bytes
    most: int  # tokens that are of use

    def tokens(self, asked: int, *, least: int) -> int:
        """Return how many tokens the cache is to hold; `asked` is 0 for as many as fit.

        Raises KvRoomError where what was asked for, or the least that is of use, does not fit.
        """
        if asked:
            if self.free is not None and asked * self.token > self.free:
                raise KvRoomError(
                    f"ARIL_KV_TOKENS={asked}: keys and values of so many tokens take"
                    f" {_gib(asked * self.token)}, {_gib(self.free)} of memory is free"
                )
            return asked
        if self.free is None:
            return self.most
        fitting = int(self.free * self.share) // self.token
        if fitting < least:
            raise KvRoomError(
                f"ARIL_KV_TOKENS=auto: keys and values of {least} tokens take"
                f" {_gib(least * self.token)}, {_gib(int(self.free * self.share))} is there for"
                f" them ({self.share:.0%} of the memory that is free)"
            )
        return min(fitting, self.most)


def with_kv_tokens(config: EngineConfig, backbone: Backbone) -> EngineConfig:
    """Put the number of tokens into a configuration. Raises KvRoomError."""
    on_gpu = backbone.device.type == "cuda"
    positions = backbone.max_positions
    most = CPU_MOST
    if on_gpu and positions is not None:
        most = CONTEXTS_A_ROW * config.max_rows * positions
    elif on_gpu:
        most = 1 << 31
    room = Room(
        torch.cuda.mem_get_info(backbone.device)[0] if on_gpu else free_memory(),
        token_bytes(backbone.layouts, backbone.dtype),
        GPU_SHARE if on_gpu else CPU_SHARE,
        most,
    )
    tokens = room.tokens(config.kv_tokens, least=min(LEAST, positions or LEAST))
    return replace(config, kv_tokens=max(tokens, config.kv_block))


def token_bytes(layouts: Iterable[AttentionLayout], dtype: torch.dtype) -> int:
    """Return what keys and values of one token take, as `KVCache` lays them out."""
    return sum(2 * each.kv_heads * each.head_dim for each in layouts) * dtype.itemsize


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.2f} GiB"
