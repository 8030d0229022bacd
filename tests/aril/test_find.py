"""Finding an answer by its job's id alone: its beginning, exactly, or a plain no."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aril import BadToken, Client, StreamLost
from aril.memory import MemoryBroker, MemoryTransport
from aril.schemas import (
    ClaimRecord,
    Epoch,
    ReleaseRecord,
    encode_redirect,
    encode_reply,
    reply_partition,
)
from tests.support.fake_worker import FakeWorker, answer, done, tokens

if TYPE_CHECKING:
    from aril.schemas import ReplyRecord

PARTITIONS = 3
HOUR = 3_600
NOW = 1_700_000_000


def put(broker: MemoryBroker, *records: ReplyRecord, at: float = NOW) -> None:
    """Append replies as of a time in seconds."""
    for record in records:
        partition = reply_partition(record.job, PARTITIONS)
        broker.append(partition, record.job.encode(), encode_reply(record), time_ms=int(at * 1_000))


@pytest.fixture
def broker() -> MemoryBroker:
    """Return a broker with one reply topic."""
    return MemoryBroker(reply_partitions=PARTITIONS)


def connect(broker: MemoryBroker) -> Client:
    """Return a client of tenant acme."""
    return Client("", "acme", transport=MemoryTransport(broker))


async def text_of(client: Client, job: str, *, since: float | None = None) -> str:
    """Find an answer and read it whole."""
    return (await client.resume(await client.find(job, since=since)).result()).text


async def test_by_id_alone(broker: MemoryBroker) -> None:
    """Any of many answers is found from the log's start, and read as it was."""
    async with FakeWorker.on_memory(broker), connect(broker) as client:
        for number in range(20):
            await client.complete(f"answer {number}", job_id=f"job-{number}")
        assert await text_of(client, "job-7") == "answer 7"
        with pytest.raises(StreamLost, match="no answer to job job-99"):
            await client.find("job-99")


async def test_since_a_time(broker: MemoryBroker) -> None:
    """From a time on only what came since is looked at; a job from before is not there."""
    put(broker, *answer("a", ["old"]), at=NOW - HOUR)
    put(broker, *answer("b", ["new"]))
    async with connect(broker) as client:
        assert await text_of(client, "b", since=NOW - 1) == "new"
        assert await text_of(client, "a", since=NOW - HOUR) == "old"
        for since in (NOW - 1, NOW + HOUR):
            with pytest.raises(StreamLost):
                await client.find("a", since=since)


async def test_in_the_middle_is_not_the_beginning(broker: MemoryBroker) -> None:
    """An answer that began before the time, is not taken for a whole one."""
    put(broker, tokens("a", 0, "one"), tokens("a", 1, " two"), at=NOW - HOUR)
    put(broker, ClaimRecord(job="a", epoch=Epoch(2, 1), worker="fake"))
    put(broker, tokens("a", 2, " three", epoch=Epoch(2, 1)), done("a", 3, epoch=Epoch(2, 1)))
    async with connect(broker) as client:
        assert await text_of(client, "a") == "one two three"
        with pytest.raises(StreamLost, match="begins before"):
            await client.find("a", since=NOW - 1)


async def test_an_owner_that_began_with_a_claim(broker: MemoryBroker) -> None:
    """The claim is the beginning; records of earlier owners that land behind it do not count."""
    second = Epoch(2, 1)
    put(broker, *answer("x", ["beside"]))
    put(broker, ReleaseRecord(job="a", epoch=Epoch(1, 1), worker="fake"))
    put(broker, ClaimRecord(job="a", epoch=second, worker="fake"))
    put(broker, tokens("a", 0, "late"), *answer("a", ["one", " two"], epoch=second))
    async with connect(broker) as client:
        assert await text_of(client, "a") == "one two"


async def test_a_claim_alone_is_no_beginning(broker: MemoryBroker) -> None:
    """Where it goes on is not known yet: the caller may ask again."""
    put(broker, ClaimRecord(job="a", epoch=Epoch(2, 1), worker="fake"))
    async with connect(broker) as client:
        with pytest.raises(StreamLost):
            await client.find("a")


async def test_a_redirect_leads_to_the_beginning(broker: MemoryBroker) -> None:
    """A job that was sent again is found by what its sender was told."""
    partition = reply_partition("a", PARTITIONS)
    put(broker, *answer("a", ["one"]), at=NOW - HOUR)
    broker.append(partition, b"a", encode_redirect("a", 0), time_ms=NOW * 1_000)
    async with connect(broker) as client:
        assert await text_of(client, "a", since=NOW - 1) == "one"


async def test_on_the_partition_that_it_named(broker: MemoryBroker) -> None:
    """A job may have asked for another partition than its id's: whoever knows which, says so."""
    hashed = reply_partition("a", PARTITIONS)
    own = (hashed + 1) % PARTITIONS
    for record in answer("a", ["one"]):
        broker.append(own, b"a", encode_reply(record))
    async with connect(broker) as client:
        token = await client.find("a", reply_partition=own)
        assert (token.partition, token.reply_from) == (own, 0)
        assert (await client.resume(token).result()).text == "one"
        with pytest.raises(
            StreamLost, match=f"partition {hashed} of replies.acme.*reply_partition"
        ):
            await client.find("a")
        for none in (PARTITIONS, -1):
            with pytest.raises(BadToken, match=f"has no partition {none}"):
                await client.find("a", reply_partition=none)


async def test_streams_beside_are_not_disturbed(broker: MemoryBroker) -> None:
    """A stream on the same partition goes on where it was."""
    put(broker, *answer("a", ["one"]))
    async with connect(broker) as client:
        stream = await client.stream("x", job_id="b").start()
        await client.find("a")
        put(broker, *answer("b", ["fine"]))
        assert (await stream.result()).text == "fine"
