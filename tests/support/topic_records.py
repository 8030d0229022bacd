"""What stands in a topic, read as it is."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition


async def read_topic(bootstrap: str, topic: str, partitions: int) -> list[Any]:
    """Return all records of a topic, those of each partition in order."""
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await reader.start()
    try:
        where = [TopicPartition(topic, number) for number in range(partitions)]
        reader.assign(where)
        await reader.seek_to_beginning(*where)
        ends = await reader.end_offsets(where)
        found: list[Any] = []
        for each in where:
            while await reader.position(each) < ends[each]:
                found += (await reader.getmany(each, timeout_ms=500)).get(each, [])
        return found
    finally:
        await reader.stop()
