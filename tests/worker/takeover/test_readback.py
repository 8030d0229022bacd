"""Reading a log back on a real broker: exactly the span that was asked for, or an error."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from aril.broker import free_port
from aril.worker.job import Partition
from aril.worker.settings import load_settings
from aril.worker.takeover.readback import KafkaLogReader, LogRecord, ReadError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.brokers import Kafka

pytestmark = pytest.mark.kafka


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    """Fill two partitions with numbered records."""
    name = f"replies.{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    config = {"message.timestamp.type": "LogAppendTime"}
    await admin.create_topics([NewTopic(name, 2, 1, topic_configs=config)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
    await producer.start()
    for number in range(40):
        await producer.send_and_wait(name, b"%d" % number, key=b"k", partition=number % 2)
    await producer.stop()
    return name


@pytest.fixture
async def reader(kafka: Kafka) -> AsyncIterator[KafkaLogReader]:
    """Make a reader."""
    made = KafkaLogReader(load_settings(flags={"bootstrap": kafka.bootstrap}).settings, "test")
    yield made
    await made.stop()


async def read(reader: KafkaLogReader, source: Partition, start: int, last: int) -> list[int]:
    """Read a span; return the numbers in it."""
    found: list[LogRecord] = []
    await reader.read(source, start, last, found.append)
    assert [each.offset for each in found] == list(range(start, last + 1))
    return [int(each.value or b"") for each in found]


async def test_a_span_is_read_whole_and_nothing_more(reader: KafkaLogReader, topic: str) -> None:
    """First and last record included, of the one partition; twice over the same connection."""
    assert await read(reader, Partition(topic, 1), 3, 7) == [7, 9, 11, 13, 15]
    assert await read(reader, Partition(topic, 0), 19, 19) == [38]
    assert await read(reader, Partition(topic, 0), 0, 19) == list(range(0, 40, 2))


async def test_many_partitions_are_read_at_once(reader: KafkaLogReader, topic: str) -> None:
    """More readings than connections: each gets its own records."""
    wanted = [Partition(topic, number % 2) for number in range(12)]
    found = await asyncio.gather(*(read(reader, each, 0, 19) for each in wanted))
    assert found == [list(range(each.partition, 40, 2)) for each in wanted]


async def test_a_moment_is_turned_into_an_offset(reader: KafkaLogReader, topic: str) -> None:
    """Long ago is the start; a moment in the future, as clocks may say, is the start as well."""
    source = Partition(topic, 0)
    assert await reader.start_of(source) == 0
    assert await reader.offset_at(source, -5) == 0
    assert await reader.offset_at(source, int(time.time() * 1_000) - 60_000) == 0
    assert await reader.offset_at(source, int(time.time() * 1_000) + 60_000) == 0


async def test_a_log_that_cannot_be_read_is_an_error() -> None:
    """No broker: nothing is known, and the caller is told so."""
    flags = {"bootstrap": f"127.0.0.1:{free_port()}"}
    reader = KafkaLogReader(load_settings(flags=flags).settings, "test")
    with pytest.raises(ReadError):
        await reader.start_of(Partition("replies.acme", 0))
    await reader.stop()


async def test_a_span_that_the_log_has_lost_is_an_error(
    reader: KafkaLogReader, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that never come are waited for, but not for ever."""
    monkeypatch.setattr("aril.worker.takeover.readback.SILENT_SECONDS", 1.0)
    with pytest.raises(ReadError):
        await reader.read(Partition(topic, 0), 0, 25, lambda _: None)
