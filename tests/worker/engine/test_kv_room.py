"""How many tokens the KV cache gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from aril.worker.engine import kv_room
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.kv_cache import KVCache
from aril.worker.engine.kv_room import KvRoomError, Room, token_bytes
from aril.worker.engine.model import load_backbone
from tests.support.tiny import make_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from aril.worker.engine.model import Backbone

GIB = 1 << 30


@pytest.mark.parametrize(
    ("free", "asked", "tokens"),
    [
        (4 * GIB, 0, GIB >> 15),  # a quarter, at 32 KiB a token
        (400 * GIB, 0, 40_000),
        (None, 0, 40_000),
        (4 * GIB, 131_072, 131_072),  # all of it, as was asked
        (None, 1 << 20, 1 << 20),
    ],
)
def test_a_share_of_what_is_free(free: int | None, asked: int, tokens: int) -> None:
    """No more than is of use, and as many as were asked for where they fit."""
    assert Room(free, 1 << 15, 0.25, 40_000).tokens(asked, least=1_024) == tokens


@pytest.mark.parametrize(
    ("free", "asked", "line"),
    [
        (GIB, 40_000, r"ARIL_KV_TOKENS=40000: .* take 1\.22 GiB, 1\.00 GiB of memory is free"),
        (GIB >> 4, 0, r"=auto: .* 1024 tokens take 0\.03 GiB, 0\.02 GiB is there .*\(25% of"),
    ],
)
def test_what_does_not_fit_is_one_line(free: int, asked: int, line: str) -> None:
    """It names the setting, what it would take and what there is."""
    with pytest.raises(KvRoomError, match=line) as caught:
        Room(free, 1 << 15, 0.25, 40_000).tokens(asked, least=1_024)
    assert "\n" not in str(caught.value)


def test_a_token_takes_what_the_cache_lays_out(backbone: Backbone, cache: KVCache) -> None:
    """Of the real layouts, and of layers of other shapes."""
    config = EngineConfig(max_rows=1, max_step_tokens=8, slots=1, max_rank=1, kv_tokens=160)
    own = KVCache.of(backbone, config)
    held = sum(stack.nbytes for stack in own._stacks)
    assert held == 160 * token_bytes(backbone.layouts, backbone.dtype)
    mixed = sum(stack.nbytes for stack in cache._stacks) // (6 * 4)
    assert mixed == 2 * (2 + 1 + 2) * 8 * 4


@pytest.mark.parametrize(("free", "tokens"), [(1 << 26, None), (1 << 23, None), (1 << 17, 0)])
def test_an_engine_measures_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, tokens: int | None
) -> None:
    """It takes a quarter of what is free when its weights are there, or says that it cannot."""
    monkeypatch.setattr(kv_room, "free_memory", lambda: free)
    config = EngineConfig(max_rows=1, max_step_tokens=8, slots=1, max_rank=1, kv_tokens=0)
    backbone = load_backbone(make_tiny_model(tmp_path), "cpu", torch.float32)
    if tokens == 0:
        with pytest.raises(KvRoomError, match="ARIL_KV_TOKENS=auto"):
            Engine(backbone, config)
        return
    engine = Engine(backbone, config)
    expected = min(32_768, free // 4 // token_bytes(backbone.layouts, torch.float32))
    assert engine.config.kv_tokens == expected
    assert engine.stats().kv_blocks == expected // 16
