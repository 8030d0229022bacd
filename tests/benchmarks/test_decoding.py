"""What counts as a decode step: one that gives every row a token, and does nothing else."""

from __future__ import annotations

import pytest
import torch

from aril.schemas import ErrorCode, JobError
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from benchmarks.decoding import decode
from benchmarks.gpu.engine import TINY, random_adapter, random_backbone


@pytest.fixture(scope="module")
def engine() -> Engine:
    """Make a tiny one, whose prompts of three rows need more than one step."""
    config = EngineConfig(
        max_rows=3, max_step_tokens=7, slots=2, max_rank=4, kv_tokens=256, backend="torch"
    )
    return Engine(random_backbone(TINY, "cpu", torch.float32), config)


@pytest.mark.parametrize("rows", [1, 3])
def test_steps_with_prompts_are_told_apart(engine: Engine, rows: int) -> None:
    """The first token of each row comes with a prompt; the whole is the sum of both, and more."""
    adapter = random_adapter(engine.backbone, 4, 1)
    found = decode(engine, [adapter, None, adapter][:rows], [(1, 2, 3, 4, 5)] * rows, 6)
    assert 0 < len(found.steps) <= 5
    assert found.prefill > 0
    assert min(found.steps) > 0
    assert found.whole >= found.prefill + sum(found.steps)


def test_a_row_that_fails_ends_the_benchmark(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than that its steps are timed."""
    step = engine.step

    def fails() -> list[object]:
        (output,) = step()
        return [type(output)(output.key, error=JobError(ErrorCode.INVALID_JOB, "no room"))]

    monkeypatch.setattr(engine, "step", fails)
    with pytest.raises(RuntimeError, match=r"row 0 failed: .*no room"):
        decode(engine, [None], [(1, 2, 3)], 2)
