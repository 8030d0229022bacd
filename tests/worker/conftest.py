"""What the tests of the worker's parts share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.harness import Harness
from tests.support.members import new_topic
from tests.support.older_jobs import OLD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.brokers import Kafka


@pytest.fixture
async def harness(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Harness]:
    """Run a worker that has won a partition whose first jobs are not fresh."""
    monkeypatch.setattr("aril.worker.effects.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("aril.worker.takeover.claims.FIRST_DELAY_SECONDS", 0.0)
    monkeypatch.setattr("aril.worker.replies.reply_logs.FIRST_DELAY_SECONDS", 0.0)
    async with Harness() as made:
        made.assign(generation=3, end_offset=OLD)
        yield made


@pytest.fixture
async def topic(kafka: Kafka) -> AsyncIterator[str]:
    """Make a jobs topic of its own for each test."""
    async with new_topic(kafka) as name:
        yield name
