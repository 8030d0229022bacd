"""Limits that no step could be planned under are refused at once."""

from dataclasses import replace
from typing import Any

import pytest

from aril.worker.engine.config import EngineConfig

CONFIG = EngineConfig(max_rows=4, max_step_tokens=64, slots=2, max_rank=16, kv_tokens=100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_rows": 0}, "max_rows must be at least 1, got 0"),
        ({"slots": -1}, "slots must be at least 1, got -1"),
        ({"step_stretch": 0.5}, "step_stretch must be at least 1, got 0.5"),
        ({"max_step_tokens": 3}, r"max_step_tokens \(3\) must be at least max_rows \(4\)"),
        ({"speculation": -1}, "speculation must not be negative, got -1"),
        (
            {"graphs": "on", "device": "cuda", "speculation": 7},
            "graphs replay steps of one token a row",
        ),
        ({"kv_tokens": 15}, r"kv_tokens \(15\) must hold at least one block of 16"),
    ],
)
def test_impossible_limits_are_refused(change: dict[str, Any], message: str) -> None:
    """The message names the limit and the value."""
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)


def test_the_cache_is_whole_blocks() -> None:
    """Tokens that fill no block are not counted."""
    assert CONFIG.kv_blocks == 6
