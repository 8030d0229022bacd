"""One connection, many tenants: none sees another's records or failures."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from aril import BrokerUnavailable, ClientClosed, Connection, TopicMissing
from aril.memory import MemoryBroker, MemoryTransport
from aril.schemas import Cancel, Job, decode_request, reply_partition, reply_topic
from tests.support.fake_worker import FakeWorker, answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aril.transport import Place

TENANTS = ("acme", "zeta", "sol")


@pytest.fixture
def broker() -> MemoryBroker:
    """Return a broker with a reply topic for each tenant."""
    topics = [reply_topic("replies.", tenant) for tenant in TENANTS]
    return MemoryBroker(reply_partitions=2, topics=topics)


@pytest.fixture
async def connection(broker: MemoryBroker) -> AsyncIterator[Connection]:
    """Open a connection to it."""
    async with Connection("", transport=MemoryTransport(broker), inbox_events=4) as connection:
        yield connection


async def test_tenants_share_a_reader(broker: MemoryBroker, connection: Connection) -> None:
    """Each gets its own answers, also where two of them chose the same id."""
    async with FakeWorker.on_memory(broker):
        asked = [
            connection.client(tenant).complete(f"{tenant} {number}", job_id=f"j{number}")
            for number in range(8)
            for tenant in TENANTS
        ]
        texts = [answer.text for answer in await asyncio.gather(*asked)]
    assert texts == [f"{tenant} {number}" for number in range(8) for tenant in TENANTS]
    assert not connection.router.following


async def test_a_jobs_topic_that_grows(broker: MemoryBroker) -> None:
    """New partitions get jobs without a new connection; what is known holds while brokers rest."""

    class Growing(MemoryTransport):
        count = 1
        sent: ClassVar[list[int]] = []

        async def partitions(self, topic: str) -> int:
            replies = await super().partitions(topic)  # raises while the broker is down
            return self.count if topic == "jobs" else replies

        async def send(self, place: Place, *_: Any) -> None:
            self.sent.append(place.partition)

    transport = Growing(broker)
    async with Connection("", transport=transport) as connection:
        client = connection.client("acme")
        ids = [f"job-{at}" for at in range(20)]
        for transport.count in (1, 7):
            transport.sent.clear()
            for each in ids:
                await client.cancel(each)
            assert transport.sent == [reply_partition(each, transport.count) for each in ids]
        broker.failing = True
        assert await connection.partitions("jobs") == 7
        with pytest.raises(BrokerUnavailable):
            await connection.partitions("jobs-of-nobody")
        broker.failing = False


async def test_a_client_closes_its_own_jobs_only(
    broker: MemoryBroker, connection: Connection
) -> None:
    """They are cancelled, and the connection goes on for the others."""
    acme, zeta = connection.client("acme"), connection.client("zeta")
    left = await acme.stream("x", job_id="left").start()
    kept = await zeta.stream("x", job_id="kept").start()
    await acme.close()
    with pytest.raises(ClientClosed):
        await left.result()
    sent = [decode_request(broker.jobs.get_nowait()[1]) for _ in range(3)]
    assert [(type(each), each.id) for each in sent] == [
        (Job, "left"),
        (Job, "kept"),
        (Cancel, "left"),
    ]
    for record in answer("kept", ["fine"]):
        FakeWorker.append_to_memory(broker, record, "zeta")
    assert (await kept.result()).text == "fine"
    with pytest.raises(ClientClosed):
        await acme.complete("again")


async def test_a_tenant_without_a_topic_fails_alone(
    broker: MemoryBroker, connection: Connection
) -> None:
    """At its first job, and again until the topic is there."""
    stranger = connection.client("stranger")
    for _ in range(2):
        with pytest.raises(TopicMissing, match="stranger"):
            await stranger.complete("x")
    async with FakeWorker.on_memory(broker):
        assert (await connection.client("acme").complete("fine")).text == "fine"


async def test_a_topic_that_goes_fails_its_own_streams(
    broker: MemoryBroker, connection: Connection
) -> None:
    """And no other's; the topic is looked up anew for the next job."""
    acme, zeta = connection.client("acme"), connection.client("zeta")
    lost = await acme.stream("x", job_id="lost").start()
    kept = await zeta.stream("x", job_id="kept").start()
    connection._fail(lost._started().place, "gone")
    with pytest.raises(BrokerUnavailable, match="gone"):
        await lost.result()
    for record in answer("kept", ["fine"]):
        FakeWorker.append_to_memory(broker, record, "zeta")
    assert (await kept.result()).text == "fine"
    del broker.topics[acme.replies_topic]
    with pytest.raises(TopicMissing):
        await acme.complete("x")


async def test_a_slow_caller_holds_nobody_up(broker: MemoryBroker, connection: Connection) -> None:
    """Of the same tenant or another; what it left is read when it goes on."""
    acme, zeta = connection.client("acme"), connection.client("zeta")
    slow = await acme.stream("x", job_id="slow").start()
    for record in answer("slow", [f"{number} " for number in range(40)]):
        FakeWorker.append_to_memory(broker, record, "acme")
    broker.jobs.get_nowait()
    async with FakeWorker.on_memory(broker):
        assert (await acme.complete("quick")).text == "quick"
        assert (await zeta.complete("quick")).text == "quick"
    assert slow._started().waiting <= 4
    assert (await slow.result()).text == "".join(f"{number} " for number in range(40))
