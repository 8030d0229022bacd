"""Partitions that come and go one by one, through a real consumer of aiokafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from aril.worker.queue.membership.reading import Reading
from tests.support.members import send

if TYPE_CHECKING:
    from tests.support.brokers import Kafka

pytestmark = pytest.mark.kafka


async def offsets(consumer: AIOKafkaConsumer, count: int) -> dict[int, list[int]]:
    """Poll two at a time until so many records came."""
    found: dict[int, list[int]] = {}
    while sum(map(len, found.values())) < count:
        for place, records in (await consumer.getmany(timeout_ms=200, max_records=2)).items():
            found.setdefault(place.partition, []).extend(each.offset for each in records)
    return found


async def test_what_stays_is_read_on_where_it_was(kafka: Kafka, topic: str) -> None:
    """No record twice and none left out, though more had been fetched than was handed out."""
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await send(kafka, topic, 40)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        reading = Reading(consumer)
        reading.begin({zero: 1})
        assert await offsets(consumer, 4) == {0: [1, 2, 3, 4]}
        reading.begin({one: 7})
        assert await offsets(consumer, 8) == {0: [5, 6, 7, 8, 9], 1: [7, 8, 9]}
        await send(kafka, topic, 4, start=40)
        reading.end([one])
        assert await offsets(consumer, 1) == {0: [10]}
        assert consumer.assignment() == {zero}
        reading.end([one, zero])
        assert consumer.assignment() == set()
    finally:
        await consumer.stop()
