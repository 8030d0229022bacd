"""kill -9 of gateways, workers and clients under batches: each line is answered exactly once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.batch_kills import kill_and_answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.brokers import Kafka

LINES = int(os.environ.get("BATCH_LINES", "600"))


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.timeout(900)
async def test_each_line_is_answered_once(kafka: Kafka, tmp_path: Path) -> None:
    """Two gateways over one folder, two workers and two `aril batch run`, killed in turn."""
    outcome = await kill_and_answer(kafka, tmp_path, lines=LINES)
    print(outcome)
    assert outcome.wrong == []
    assert (outcome.answered, outcome.lost, outcome.twice) == (LINES, 0, 0)
    assert outcome.asked_again == 0
    assert outcome.killed["gateways"]
    assert outcome.killed["workers"]
