"""Who can run tests of weights in eight bits."""

from __future__ import annotations

import pytest

from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.int8_weight import refuse_where_no_int8


def why_not() -> str | None:
    """Return why this machine multiplies no bytes, None if it does."""
    try:
        refuse_where_no_int8(
            EngineConfig(max_rows=1, max_step_tokens=1, slots=1, max_rank=1, kv_tokens=16)
        )
    except UnsupportedModelError as error:
        return str(error)
    return None


needs_int8 = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
