"""What stands in a topic, read as it is."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from aril.fetching.bounds import log_bounds
from aril.fetching.leaders import Leaders
from aril.fetching.place import Place


async def read_topic(bootstrap: str, topic: str) -> list[Any]:
    """Return all records of a topic, those of each partition in order."""
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await reader.start()
    try:
        count = await Leaders(reader._client).count(topic)
        places = [Place(topic, number) for number in range(count)]
        logs = await log_bounds(reader._client, places)
        where = [TopicPartition(*place) for place in places]
        reader.assign(where)
        await reader.seek_to_beginning(*where)
        found: list[Any] = []
        for place, each in zip(places, where, strict=True):
            while await reader.position(each) < logs[place].stop:
                found += (await reader.getmany(each, timeout_ms=500)).get(each, [])
        return found
    finally:
        await reader.stop()
