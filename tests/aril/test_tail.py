"""Tails: what is there and then what comes, the same steps for every reader, whatever its pace."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aril import BrokerUnavailable, Connection, ResumeToken, StreamLost
from aril.memory import MemoryBroker, MemoryTransport
from aril.position import START, Position
from aril.schemas import ResetEvent, TokensEvent, encode_redirect, encode_reply
from aril.tail import Beyond, Step, Tail
from tests.support.fake_worker import answer, done, tokens
from tests.support.reply_logs import Move, moves, written

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aril.schemas import ReplyRecord

TOPIC = "replies.acme"
TOKEN = ResumeToken("a", 0, 0)


def put(broker: MemoryBroker, records: Sequence[ReplyRecord]) -> None:
    """Append to the one partition."""
    for record in records:
        broker.append(0, record.job.encode(), encode_reply(record), topic=TOPIC)


@contextlib.asynccontextmanager
async def connected(
    broker: MemoryBroker, *, inbox: int = 512, inbox_bytes: int = 1 << 20, poll: int = 500
) -> AsyncIterator[Connection]:
    """Connect to a broker."""
    transport = MemoryTransport(broker, poll_records=poll)
    async with Connection(
        "", transport=transport, inbox_events=inbox, inbox_bytes=inbox_bytes
    ) as connection:
        yield connection


def fresh() -> MemoryBroker:
    """Return a broker with one topic of one partition."""
    return MemoryBroker(topics=[TOPIC])


async def read(connection: Connection, position: Position = START) -> list[Step]:
    """Return what is there."""
    steps: list[Step] = []
    async with Tail(connection, TOPIC, TOKEN, position) as tail:
        while found := await tail.more():
            steps += found
        assert tail.caught_up or tail.ended
    return steps


@given(
    drawn=moves(),
    beside=st.integers(0, 3),
    cuts=st.lists(st.integers(0, 25), max_size=5),
    inbox=st.integers(1, 4),
    inbox_bytes=st.sampled_from([1, 100, 1 << 20]),
    poll=st.integers(1, 5),
)
@settings(max_examples=60)
async def test_steps_are_those_of_the_log(
    drawn: list[Move], beside: int, cuts: list[int], inbox: int, inbox_bytes: int, poll: int
) -> None:
    """Whoever reads when, how far at a time, in how many pieces: steps and positions are the same.

    The log is written in pieces, between which one reader reads on by position, and again from
    each position at the end; another one reads it whole, over a connection of its own.
    """
    broker = fresh()
    records = written("a", drawn)
    bounds = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
    pieces: list[Step] = []
    position = START
    sizes = {"inbox": inbox, "inbox_bytes": inbox_bytes, "poll": poll}
    async with connected(broker, **sizes) as slow, connected(broker) as quick:
        for first, behind in itertools.pairwise(bounds):
            for record in records[first:behind]:
                put(broker, [*answer("b", ["x"] * beside), record])
            found = await read(slow, Position.parse(str(position)))
            pieces += found
            position = found[-1].position if found else position
        whole = await read(quick)
        again = [await read(slow, each.position) for each in whole]
    assert pieces == whole
    assert again == [whole[at + 1 :] for at in range(len(whole))]
    offsets = [step.position.offset for step in whole]
    assert offsets == sorted(set(offsets))


async def test_what_is_there_and_then_what_comes() -> None:
    """Without a wait all that is there, at once; with one what comes, and the end ends it."""
    broker = fresh()
    put(broker, [tokens("a", 0, "one"), tokens("a", 1, "two")])
    async with connected(broker) as connection, Tail(connection, TOPIC, TOKEN) as tail:
        assert [step.position.tokens for step in await tail.more()] == [1, 2]
        assert await tail.more() == []
        assert tail.caught_up
        assert await tail.more(0.01) == []
        coming = asyncio.create_task(tail.more(60))
        await asyncio.sleep(0.01)
        put(broker, [tokens("a", 2, "three")])
        (step,) = await coming
        assert step.events == (TokensEvent(2, (2,), "three"),)
        put(broker, [done("a", 3)])
        await tail.more(60)
        assert tail.ended
        assert await tail.more(60) == []


async def test_several_read_the_same() -> None:
    """Readers of one job on one connection do not disturb each other."""
    broker = fresh()
    async with connected(broker, inbox=2) as connection, contextlib.AsyncExitStack() as stack:
        tails = [await stack.enter_async_context(Tail(connection, TOPIC, TOKEN)) for _ in range(3)]
        waiting = [asyncio.create_task(tail.more(60)) for tail in tails]
        await asyncio.sleep(0.01)
        put(broker, answer("a", ["x"] * 9))
        all_steps = [await each for each in waiting]
        for at, tail in enumerate(tails):
            while not tail.ended:
                all_steps[at] += await tail.more(60)
        assert all_steps[0] == all_steps[1] == all_steps[2]
        assert len(all_steps[0]) == 10


async def test_a_claim_is_no_step_and_begins() -> None:
    """A worker that has the job and has written no token: nothing is given, but it has begun."""
    broker = fresh()
    async with connected(broker) as connection:
        async with Tail(connection, TOPIC, TOKEN) as tail:
            assert await tail.more() == []
            assert not tail.begun
        records = written("a", [("claim", 0, 1, 0)])
        put(broker, records)
        async with Tail(connection, TOPIC, TOKEN) as tail:
            assert await tail.more() == []
            assert tail.begun


async def test_a_reset_and_what_replaces_it_are_one_step() -> None:
    """Nobody can stand between them: no piece of a reading ends there."""
    broker = fresh()
    put(broker, written("a", [("tokens", 0, 1, 0), ("tokens", 1, 2, -99)]))
    async with connected(broker) as connection:
        _, second = await read(connection)
    reset, first = second.events
    assert reset == ResetEvent(1)
    assert isinstance(first, TokensEvent)


async def test_a_job_that_was_sent_again_leads_to_its_first_answer() -> None:
    """Whoever stands at the beginning goes where a redirect says; positions are the first one's."""
    broker = fresh()
    put(broker, [*answer("b", ["x", "y"]), *answer("a", ["one", "two"])])
    start = broker.topics[TOPIC][0].end
    again = ResumeToken("a", 0, start)
    async with connected(broker) as connection:
        async with Tail(connection, TOPIC, again) as tail:
            assert await tail.more() == []
            assert tail.position == START
        broker.append(0, b"a", encode_redirect("a", 3), topic=TOPIC)
        async with Tail(connection, TOPIC, again) as tail:
            steps = await tail.more()
            while not tail.ended:
                steps += await tail.more()
            assert tail.reply_from == 3
        assert steps == await read(connection)


async def test_a_place_that_is_not_kept() -> None:
    """What retention took is lost, and said to be; what stands behind it is read by position."""
    broker = fresh()
    put(broker, answer("a", ["one", "two", "three"]))
    async with connected(broker) as connection:
        steps = await read(connection)
        broker.expire(0, 2, topic=TOPIC)
        with pytest.raises(StreamLost):
            await read(connection)
        assert await read(connection, steps[1].position) == steps[2:]
        with pytest.raises(Beyond):
            await read(connection, steps[1].position._replace(offset=99))
        for token in (ResumeToken("a", 0, 99), ResumeToken("a", 1, 0)):
            with pytest.raises(Beyond):
                async with Tail(connection, TOPIC, token):
                    pass


async def test_the_end_is_known_without_the_log() -> None:
    """A reader that stands at the end is told so, also when nothing is kept of the answer."""
    broker = fresh()
    put(broker, answer("a", ["one"]))
    async with connected(broker) as connection:
        last = (await read(connection))[-1].position
        broker.expire(0, 2, topic=TOPIC)
        async with Tail(connection, TOPIC, TOKEN, last) as tail:
            assert tail.ended
            assert await tail.more(60) == []


async def test_brokers_that_fail_end_the_waiting() -> None:
    """Whoever waits is told; from its position it goes on later."""
    broker = fresh()
    put(broker, [tokens("a", 0, "one")])
    async with connected(broker) as connection:
        async with Tail(connection, TOPIC, TOKEN) as tail:
            await tail.more()
            broker.failing = True
            with pytest.raises(BrokerUnavailable):
                await tail.more(60)
            position = tail.position
        broker.failing = False
        put(broker, [done("a", 1)])
        assert [step.position.ended for step in await read(connection, position)] == [True]
