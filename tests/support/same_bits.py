"""Engines over a tiny backbone whose answers are compared to the last bit."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import adopt_backbone

if TYPE_CHECKING:
    from aril.worker.engine.model import Backbone
    from aril.worker.engine.request import Output

CONFIG: Final = EngineConfig(
    max_rows=3,
    max_step_tokens=14,
    slots=2,
    max_rank=4,
    kv_tokens=64,
    kv_block=4,
    invariant=True,  # so that equality means all bits
)


def make_engine(backbone: Backbone, **limits: Any) -> Engine:
    """Make an engine over a copy of the backbone."""
    own = adopt_backbone(copy.deepcopy(backbone.model), backbone.tokenizer, "cpu", name="tiny")
    return Engine(own, replace(CONFIG, **limits))


def tokens_of(told: dict[int, list[Output]]) -> dict[int, list[int]]:
    """Return all that came, by key."""
    return {key: [token for output in own for token in output.ids] for key, own in told.items()}
