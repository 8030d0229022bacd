"""Where a log begins and ends, on brokers that tell the end and on one that does not."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer, errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from aril.broker import EmbeddedBroker
from aril.fetching.bounds import log_bounds
from aril.fetching.leaders import Leaders
from aril.fetching.offsets import LATEST, Offsets
from aril.fetching.place import Place
from aril.fetching.watermark import high_watermark
from tests.support.brokers import Kafka

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.kafka

HOUR_MS = 3_600_000
PARTITIONS = 3


@pytest.fixture(scope="module", params=["shared", "embedded"])
def broker(request: pytest.FixtureRequest) -> Iterator[Kafka]:
    """Give the broker of all tests, then the embedded one, whichever that is."""
    if request.param == "shared":
        yield request.getfixturevalue("kafka")
    else:
        with EmbeddedBroker() as embedded:
            yield Kafka(embedded.bootstrap, "embedded")


@asynccontextmanager
async def writing(broker: Kafka) -> AsyncIterator[tuple[AIOKafkaProducer, str]]:
    """Make a topic; give who writes to it."""
    name = f"bounds-{uuid.uuid4().hex[:6]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        yield producer, name


async def write(producer: AIOKafkaProducer, place: Place, count: int) -> None:
    """Write one batch of so many records."""
    batch = producer.create_batch()
    for _ in range(count):
        assert batch.append(key=None, value=b"x", timestamp=None) is not None
    sent: Any = await producer.send_batch(batch, place.topic, partition=place.partition)
    await sent


async def test_a_log_ends_behind_its_last_record(broker: Kafka) -> None:
    """Whatever was written: nothing, one record, batches of several."""
    async with writing(broker) as (producer, topic):
        empty, one, many = (Place(topic, each) for each in range(PARTITIONS))
        await write(producer, one, 1)
        for count in (1, 4, 7):
            await write(producer, many, count)
        bounds = await log_bounds(producer.client, [empty, one, many])
        assert bounds == {empty: range(0), one: range(1), many: range(12)}
        await write(producer, many, 2)
        assert await log_bounds(producer.client, [many]) == {many: range(14)}


async def test_nothing_is_as_young_as_a_time_to_come(broker: Kafka) -> None:
    """And what has been written is all younger than an hour ago."""
    async with writing(broker) as (producer, topic):
        place = Place(topic, 0)
        await write(producer, place, 3)
        leaders = Leaders(producer.client)
        offsets = Offsets(producer.client, leaders)
        now_ms = int(time.time() * 1_000)
        assert await offsets.find(place, now_ms + HOUR_MS) == -1
        assert await offsets.find(place, now_ms - HOUR_MS) == 0
        await offsets.close()
        await leaders.close()


async def test_bounds_of_a_topic_that_is_not_there(
    broker: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka's error, as `Leaders` tells it; the others are not answered for."""
    monkeypatch.setattr("aril.fetching.offsets.PATIENCE_SECONDS", 0.2)
    async with writing(broker) as (producer, topic):
        with pytest.raises(errors.UnknownTopicOrPartitionError):
            await log_bounds(producer.client, [Place(topic, 0), Place(f"{topic}-missing", 0)])


async def test_a_watermark_that_is_not_told_is_asked_for_again() -> None:
    """A broker that leaves the partition out is given longer, and not for ever."""
    waited = []

    class Client:
        """Leaves the partition out of the first answers."""

        async def send(self, node: int, request: Any) -> Any:
            """Answer."""
            assert node == 4
            waited.append(request._max_wait_ms)
            told = [("t", [(0, 0, 12, 12, b"")])] if len(waited) > answers else []
            return type("Response", (), {"topics": told})

    client: Any = Client()
    answers = 3
    assert await high_watermark(client, 4, Place("t", 0), 6) == 12
    assert waited == [1, 2, 4, 8]
    answers, waited[:] = 99, []
    with pytest.raises(errors.KafkaTimeoutError):
        await high_watermark(client, 4, Place("t", 0), 6)
    assert waited[-1] == 1_024


async def test_where_one_partition_fails_the_others_are_asked_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else they would ask again for seconds, of a client that may be closed by then."""
    asked: list[Place] = []

    async def find(_: Offsets, place: Place) -> int:
        asked.append(place)
        if place.partition:
            raise errors.UnknownError
        raise errors.NodeNotReadyError

    client: Any = None
    offsets = Offsets(client, Leaders(client))
    monkeypatch.setattr(Offsets, "_find", lambda self, place, _: find(self, place))
    before = asyncio.all_tasks()
    with pytest.raises(errors.UnknownError):
        await offsets.find_all([Place("a", 0), Place("a", 1)], LATEST)
    await asyncio.sleep(0)
    assert len(asked) == 2
    assert asyncio.all_tasks() == before
