"""The reader of many partitions, on a real broker."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer, errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.client import AIOKafkaClient
from aiokafka.structs import TopicPartition

from aril.fetching import follower as module
from aril.fetching.follower import Follower, PlaceError
from aril.fetching.leaders import Leaders
from aril.fetching.offsets import EARLIEST, LATEST, Offsets
from aril.fetching.place import Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aril.fetching.place import Fetched
    from tests.support.brokers import Kafka

pytestmark = pytest.mark.kafka

TOPICS = 12
PARTITIONS = 4


@asynccontextmanager
async def reading(kafka: Kafka) -> AsyncIterator[Follower]:
    """Run a follower, with a client of its own."""
    client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
    await client.bootstrap()
    leaders = Leaders(client)
    follower = Follower(client, leaders, wait_ms=50)
    try:
        yield follower
    finally:
        await follower.close()
        await leaders.close()
        await client.close()


@asynccontextmanager
async def topics(kafka: Kafka, stem: str) -> AsyncIterator[list[str]]:
    """Make topics for one test."""
    names = [f"{stem}-{number}" for number in range(TOPICS)]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
        yield names
        await admin.delete_topics(names)
    finally:
        await admin.close()


async def write(kafka: Kafka, places: list[Place], values: list[bytes]) -> None:
    """Append these values to each partition."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    for value in values:
        sent = [
            await producer.send(place.topic, value, partition=place.partition) for place in places
        ]
        await asyncio.gather(*sent)
    await producer.stop()


async def read(follower: Follower, count: int) -> list[Fetched]:
    """Poll until so many records have come."""
    found: list[Fetched] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            found += await follower.poll(1.0)
    return found


async def test_many_partitions_each_from_its_offset(kafka: Kafka, topic: str) -> None:
    """Each is read in order from where it is followed, more are added in the midst of it."""
    async with topics(kafka, topic) as names, reading(kafka) as follower:
        places = [Place(name, number) for name in names for number in range(PARTITIONS)]
        await write(kafka, places, [b"0", b"1", b"2"])
        early, late = places[: len(places) // 2], places[len(places) // 2 :]
        for index, place in enumerate(early):
            follower.follow(place, index % 3)
        found = await read(follower, sum(3 - index % 3 for index in range(len(early))))
        for place in late:
            follower.follow(place, 3)
        await write(kafka, places, [b"3"])
        found += await read(follower, len(places))
        for index, place in enumerate(places):
            first = index % 3 if place in early else 3
            wanted = [(offset, str(offset).encode()) for offset in range(first, 4)]
            assert [(each.offset, each.value) for each in found if each.place == place] == wanted
        assert await follower.poll(0.2) == []


async def test_going_back_voids_what_was_read(kafka: Kafka, topic: str) -> None:
    """What was fetched of the old place and not polled is not given; nothing is left out."""
    place = Place(topic, 0)
    await write(kafka, [place], [b"0", b"1", b"2", b"3"])
    async with reading(kafka) as follower:
        follower.follow(place, 2)
        await follower._news.wait()
        follower.follow(place, 0)
        assert [each.offset for each in await read(follower, 4)] == [0, 1, 2, 3]
        follower.unfollow(place)
        await write(kafka, [place], [b"4"])
        assert await follower.poll(0.3) == []


async def test_an_offset_that_is_not_there_ends_one_partition(kafka: Kafka, topic: str) -> None:
    """It is told, followed no more, and the others are read on."""
    gone, kept = Place(topic, 0), Place(topic, 1)
    await write(kafka, [gone, kept], [b"0", b"1"])
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(*gone): RecordsToDelete(before_offset=1)})
    await admin.close()
    async with reading(kafka) as follower:
        for place in (gone, kept):
            follower.follow(place, 0)
        found, told = list[bytes | None](), list[PlaceError]()
        async with asyncio.timeout(30):
            while len(found) < 2 or not told:
                try:
                    found += [each.value for each in await follower.poll(1.0)]
                except PlaceError as error:
                    told.append(error)
        assert found == [b"0", b"1"]
        assert [(each.place, type(each.error)) for each in told] == [
            (gone, errors.OffsetOutOfRangeError)
        ]
        offsets = Offsets(follower._client, follower._leaders)
        assert await offsets.find(gone, EARLIEST) == 1
        assert await offsets.find(gone, LATEST) == 2
        await offsets.close()
        follower.follow(gone, 1)
        assert [each.offset for each in await read(follower, 1)] == [1]


async def test_a_topic_that_does_not_exist(
    kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as gone after a while, is not made by being asked for, and nobody else waits."""
    monkeypatch.setattr(module, "MISSING_SECONDS", 0.5)
    missing, there = Place(f"{topic}-missing", 0), Place(topic, 0)
    await write(kafka, [there], [b"0"])
    async with reading(kafka) as follower:
        follower.follow(missing, 0)
        follower.follow(there, 0)
        assert [each.value for each in await read(follower, 1)] == [b"0"]
        with pytest.raises(PlaceError, match="missing"):
            await read(follower, 1)
        with pytest.raises(errors.UnknownTopicOrPartitionError):
            await follower._leaders.count(missing.topic)


async def test_what_is_not_polled_is_bounded(
    kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers are asked for no more than that until it is."""
    monkeypatch.setattr(module, "HELD_BYTES", 20_000)
    monkeypatch.setattr(module, "PLACE_BYTES", 10_000)
    place = Place(topic, 0)
    await write(kafka, [place], [bytes([number]) * 9_000 for number in range(20)])
    async with reading(kafka) as follower:
        follower.follow(place, 0)
        while follower._room.is_set():  # noqa: ASYNC110 - there is no event of the other way
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert len(follower._read) == 2
        assert [each.offset for each in await read(follower, 20)] == [*range(20)]
