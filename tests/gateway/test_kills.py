"""kill -9 of gateways and workers in mid-stream: readers go on elsewhere, exactly."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.gateway_kills import READERS, kill_and_read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.brokers import Kafka

KILLS = int(os.environ.get("GATEWAY_KILLS", "4"))


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.timeout(900)
async def test_nothing_is_lost_or_doubled(kafka: Kafka, tmp_path: Path) -> None:
    """Two gateways and two workers, killed in turn under open streams."""
    outcome = await kill_and_read(kafka, tmp_path, kills=KILLS)
    print(outcome)
    assert outcome.wrong == []
    assert outcome.kills == KILLS
    assert outcome.answers >= READERS
    assert outcome.resumed
