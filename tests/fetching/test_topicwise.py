"""Metadata topic by topic, on a real broker: what is asked for, and that appends find their way."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer, errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.metadata import MetadataRequest

from aril.fetching.leaders import Leaders
from aril.fetching.place import Place
from aril.fetching.topicwise import TopicMetadata

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.brokers import Kafka

TOPICS = 30


class Asked:
    """The topics of each question for metadata; None where all were asked for."""

    def __init__(self) -> None:
        self.topics: list[list[str] | None] = []

    @property
    def named(self) -> list[str]:
        """All topics that were named, in order."""
        return [topic for asked in self.topics for topic in asked or ()]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Note what is asked for."""
    found, send = Asked(), AIOKafkaConnection.send

    def noted(self: Any, request: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(request, MetadataRequest):
            found.topics.append(request._topics)
        return send(self, request, *rest, **more)

    monkeypatch.setattr(AIOKafkaConnection, "send", noted)
    return found


@pytest.fixture
async def topics(kafka: Kafka) -> AsyncIterator[list[str]]:
    """Make topics for one test."""
    names = [f"{uuid.uuid4().hex[:8]}-{number}" for number in range(TOPICS)]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1) for name in names])
    async with producing(kafka) as (producer, _):  # brokers lead a new topic after a moment
        await append(producer, names)
    yield names
    await admin.delete_topics(names)
    await admin.close()


@asynccontextmanager
async def producing(
    kafka: Kafka, **options: Any
) -> AsyncIterator[tuple[AIOKafkaProducer, TopicMetadata]]:
    """Run a producer."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, **options)
    metadata = TopicMetadata.of_producer(producer)
    await producer.start()
    try:
        yield producer, metadata
    finally:
        await producer.stop()


async def append(producer: AIOKafkaProducer, topics: list[str]) -> None:
    """Append a record to each, all at once."""
    await asyncio.wait_for(
        asyncio.gather(*(producer.send_and_wait(topic, b"x", partition=0) for topic in topics)), 30
    )


@pytest.mark.kafka
async def test_each_topic_is_asked_for_once(kafka: Kafka, topics: list[str], asked: Asked) -> None:
    """Those that are used first in the same moment in one request, and never all of the cluster."""
    async with producing(kafka) as (producer, _):
        for _ in range(3):
            await append(producer, topics)
    assert sorted(asked.named) == sorted(topics)
    assert None not in asked.topics
    assert max(map(len, filter(None, asked.topics))) == TOPICS


@pytest.mark.kafka
async def test_a_leader_that_is_gone_is_looked_up_for_what_is_in_flight(
    kafka: Kafka, topics: list[str], asked: Asked
) -> None:
    """The append finds its way, and the other topics are left alone."""
    async with producing(kafka) as (producer, metadata):
        await append(producer, topics)
        asked.topics.clear()
        moved = topics[7]
        partitions = producer.client.cluster._partitions[moved]
        partitions[0] = partitions[0]._replace(leader=999)
        metadata.leaders._known[moved][0] = 999
        await append(producer, [moved])
        assert set(asked.named) == {moved}


@pytest.mark.kafka
async def test_what_is_old_is_forgotten(
    kafka: Kafka, topics: list[str], asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And asked for again by whoever uses it; an update names no topic then."""
    monkeypatch.setattr("aril.fetching.topicwise.FORGOTTEN_SECONDS", 0.0)
    async with producing(kafka) as (producer, _):
        await append(producer, topics)
        asked.topics.clear()
        assert await producer.client.force_metadata_update()
        assert asked.topics == [[]]
        assert not producer.client.cluster.topics()
        await append(producer, topics[:2])
        assert sorted(asked.named) == sorted(topics[:2])


@pytest.mark.kafka
async def test_a_client_without_topics_asks_for_none(kafka: Kafka, asked: Asked) -> None:
    """As it is aiokafka asks for all then."""
    client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
    TopicMetadata(client)
    await client.bootstrap()
    try:
        assert await client.force_metadata_update()
    finally:
        await client.close()
    assert asked.topics == [[], []]


@pytest.mark.kafka
async def test_a_topic_that_does_not_exist_is_not_made(kafka: Kafka) -> None:
    """Its append fails after the time of a request."""
    name = uuid.uuid4().hex
    async with producing(kafka, request_timeout_ms=500) as (producer, metadata):
        with pytest.raises(errors.UnknownTopicOrPartitionError):
            await producer.send(name, b"x")
        with pytest.raises(errors.UnknownTopicOrPartitionError):
            await metadata.leaders.learn(name)


@pytest.mark.kafka
async def test_a_partition_that_was_added_is_found(kafka: Kafka, topics: list[str]) -> None:
    """Whoever has heard of it can append to it; one that there is not is an error of Kafka's."""
    topic = topics[0]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    async with producing(kafka) as (producer, metadata):
        await append(producer, [topic])
        await admin.create_partitions({topic: NewPartitions(3)})
        await metadata.expect(Place(topic, 2))
        record = await asyncio.wait_for(producer.send_and_wait(topic, b"x", partition=2), 30)
        assert record.partition == 2
        with pytest.raises(errors.UnknownTopicOrPartitionError):
            await metadata.expect(Place(topic, 3))
    await admin.close()


async def test_a_partition_that_nobody_leads_counts() -> None:
    """A tenant's answers are found by the number of partitions: it never depends on who is up."""

    class Client:
        cluster = type("Cluster", (), {"brokers": lambda _: [type("B", (), {"nodeId": 1})]})()

        async def send(self, _node: int, _request: Any) -> Any:
            partitions: list[Any] = [
                (0, number, leader, [], []) for number, leader in ((0, 1), (1, -1))
            ]
            return type("Answer", (), {"topics": [(0, "replies.acme", False, partitions)]})

    client: Any = Client()
    leaders = Leaders(client)
    assert await leaders.count("replies.acme") == 2
    assert [leaders.of(Place("replies.acme", number)) for number in (0, 1, 2)] == [1, None, None]
