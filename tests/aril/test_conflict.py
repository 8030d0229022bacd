"""A job whose id another job has: its sender is told, and nobody else is disturbed."""

from __future__ import annotations

import asyncio

import pytest

from aril import Client, JobConflict
from aril.memory import MemoryBroker, MemoryTransport
from aril.schemas import Conflict, encode_conflict, encode_redirect, hash_of_record
from tests.support.fake_worker import FakeWorker, done, tokens


@pytest.fixture
def broker() -> MemoryBroker:
    """Return a broker with one reply topic."""
    return MemoryBroker()


def connect(broker: MemoryBroker) -> Client:
    """Return a client of tenant acme."""
    return Client("", "acme", transport=MemoryTransport(broker))


async def refuse(broker: MemoryBroker, *, place: int | None = None) -> None:
    """Say of the next job what a worker says of one whose id is known."""
    key, value = await broker.jobs.get()
    told = Conflict(hash_of_record(value), place)
    broker.append(0, key, encode_conflict(key.decode(), told))


async def test_its_sender_is_told_and_the_first_goes_on(broker: MemoryBroker) -> None:
    """Two in one client: the one who has the id, and the one who has not. No job is cancelled."""
    async with connect(broker) as client:
        first = await client.stream("a", job_id="j").start()
        await broker.jobs.get()
        second = asyncio.create_task(client.complete("b", job_id="j"))
        await refuse(broker)
        with pytest.raises(JobConflict, match="another job of this tenant has the id j") as told:
            await second
        assert told.value.job == "j"
        FakeWorker.append_to_memory(broker, tokens("j", 0, "one"))
        FakeWorker.append_to_memory(broker, done("j", 1))
        assert (await first.result()).text == "one"
        assert broker.jobs.empty()


@pytest.mark.parametrize("leaves", ["stream", "client"])
async def test_who_leaves_before_it_is_told_ends_nobody(broker: MemoryBroker, leaves: str) -> None:
    """The conflict is there, behind events that were not taken: the id is the other one's."""
    async with connect(broker) as client:
        stream = await client.stream("b", job_id="j").start()
        FakeWorker.append_to_memory(broker, tokens("j", 0, "not "))
        FakeWorker.append_to_memory(broker, tokens("j", 1, "mine"))
        await refuse(broker)
        while client.link.router.following:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)
        if leaves == "stream":
            await stream.aclose()
    assert broker.jobs.empty()


async def test_of_two_that_read_from_one_place(broker: MemoryBroker) -> None:
    """Each knows its own record, so only one is told, though both begin at the same offset."""
    async with connect(broker) as one, connect(broker) as other:
        first = await one.stream("a", job_id="j").start()
        await broker.jobs.get()
        second = await other.stream("b", job_id="j").start()
        assert first.token == second.token
        await refuse(broker, place=first.token.reply_from)
        with pytest.raises(JobConflict):
            await second.result()
        FakeWorker.append_to_memory(broker, done("j", 0))
        assert (await first.result()).text == ""


async def test_who_was_restarted_is_told_by_the_place(broker: MemoryBroker) -> None:
    """A token of nothing resumed is the sender's; one that counts tokens is another one's."""
    async with connect(broker) as client:
        for word in ("x", "y"):
            FakeWorker.append_to_memory(broker, tokens(word, 0, word))
        token = (await client.stream("b", job_id="j").start()).detach()
        await refuse(broker, place=token.reply_from)
        with pytest.raises(JobConflict):
            await client.resume(token).result()


async def test_a_place_further_on_says_nothing(broker: MemoryBroker) -> None:
    """Who reads the first one's answer passes over what is said of others."""
    async with connect(broker) as client:
        stream = await client.stream("a", job_id="j").start()
        token = stream.detach()
        await broker.jobs.get()
        await client.stream("b", job_id="j").start()
        await refuse(broker, place=token.reply_from + 1)
        broker.append(0, b"j", encode_redirect("j", token.reply_from))
        FakeWorker.append_to_memory(broker, tokens("j", 0, "one"))
        broker.append(0, b"j", encode_conflict("j", Conflict("0" * 64, token.reply_from)))
        FakeWorker.append_to_memory(broker, done("j", 1))
        assert (await client.resume(token).result()).text == "one"
