"""A consumer that has fallen silent: it is replaced, and then the process ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer

from aril.worker.queue.watchdog import ConsumerSilentError, watch
from tests.support.group_protocols import by_either_protocol
from tests.support.members import send, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.brokers import Kafka
    from tests.support.members import Member

pytestmark = pytest.mark.kafka


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let silence count at once."""
    monkeypatch.setattr("aril.worker.queue.watchdog.WATCH_SECONDS", 0.2)
    monkeypatch.setattr("aril.worker.queue.watchdog.SILENT_SECONDS", 1.0)


async def nothing(*_: Any, **__: Any) -> dict[Any, Any]:
    """Do as a consumer does that has fallen silent."""
    await asyncio.sleep(0.05)
    return {}


@by_either_protocol
@pytest.mark.usefixtures("impatient")
async def test_a_consumer_that_fell_silent_is_replaced(
    kafka: Kafka, topic: str, joins: Callable[[], Member]
) -> None:
    """It stays in the group and brings nothing: a new one takes its place and brings all."""
    async with joins() as member:
        await until(lambda: member.seen.assigned)
        member.consumer._consumer.getmany = nothing
        await asyncio.sleep(0.5)  # the poll that was under way
        watching = asyncio.create_task(watch(member.consumer.progress, member.consumer.replace))
        await send(kafka, topic, 8)
        await until(lambda: len(member.seen.records) >= 8, seconds=60)
        assert sorted(int(each.value or b"") for each in member.seen.records) == list(range(8))
        assert not watching.done()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@by_either_protocol
@pytest.mark.usefixtures("impatient")
async def test_a_silence_that_a_new_consumer_does_not_cure_is_raised(
    kafka: Kafka, topic: str, joins: Callable[[], Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process cannot help itself: it has to end, so that another can be started."""
    monkeypatch.setattr(AIOKafkaConsumer, "getmany", nothing)
    async with joins() as member:
        await until(lambda: member.seen.assigned)
        await send(kafka, topic, 8)
        with pytest.raises(ConsumerSilentError):
            await asyncio.wait_for(watch(member.consumer.progress, member.consumer.replace), 60)
