"""What the tests of the worker's parts share."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.support.harness import Harness
from tests.support.members import PARTITIONS
from tests.support.older_jobs import OLD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.brokers import Kafka


@pytest.fixture
async def harness(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Harness]:
    """Run a worker that has won a partition whose first jobs are not fresh."""
    monkeypatch.setattr("worker.lifecycle.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("worker.takeover.claims.FIRST_DELAY_SECONDS", 0.0)
    monkeypatch.setattr("worker.replies.reply_logs.FIRST_DELAY_SECONDS", 0.0)
    async with Harness() as made:
        made.assign(generation=3, end_offset=OLD)
        yield made


@pytest.fixture
async def topic(kafka: Kafka) -> AsyncIterator[str]:
    """Make a jobs topic of its own for each test."""
    name = f"jobs-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    yield name
    await admin.close()
