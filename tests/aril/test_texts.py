"""An answer as plain strings: the last piece, and what is done about text that was withdrawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril import Client, DoneEvent, JobFailed, ResetEvent, TextWithdrawn, TokensEvent
from aril.memory import MemoryBroker, MemoryTransport
from aril.schemas import Epoch, Timings, Usage
from aril.texts import Shown, texts
from tests.support.fake_worker import FakeWorker, answer, tokens
from tests.support.served_memory import ServedTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aril.schemas import Event

SECOND = Epoch(2, 1)


def ending(text: str) -> DoneEvent:
    """Make the end of an answer."""
    return DoneEvent(
        index=0,
        text=text,
        finish_reason="stop",
        usage=Usage(1, 1),
        adapter=None,
        digest=None,
        base="b",
        seed=0,
        timings=Timings(0.0, 0.0, 0.0),
    )


async def collect(pieces: AsyncIterator[str], parts: list[str]) -> None:
    """Append what comes, one by one."""
    async for piece in pieces:
        parts += [piece]


async def test_pieces_joined_are_the_answer() -> None:
    """The last piece is in the terminal, and is given like the others; empty ones are not."""
    transport = ServedTransport()
    async with Client("", "acme", transport=transport) as client:
        pieces = [piece async for piece in texts(client.stream("one two three"))]
    assert pieces == ["one", " two", " three"]
    assert not transport.cancelled()


async def test_leaving_cancels() -> None:
    """A caller that closes the iterator in mid-answer cancels the job."""
    transport = ServedTransport()
    transport.worker.pause = 0.01
    async with Client("", "acme", transport=transport) as client:
        pieces = texts(client.stream("one two three four five", job_id="a"))
        assert await anext(pieces) == "one"
        await pieces.aclose()
    assert transport.cancelled() == {"a"}


async def test_what_a_stream_raises_is_raised() -> None:
    """A job that fails fails here, too."""
    async with Client("", "acme", transport=ServedTransport()) as client:
        with pytest.raises(JobFailed):
            await collect(texts(client.stream("fail, please")), [])


def withdrawn(broker: MemoryBroker, job: str, old: list[str], new: list[str]) -> None:
    """Append an answer that was begun, and the one that took its place."""
    for index, word in enumerate(old):
        FakeWorker.append_to_memory(broker, tokens(job, index, word))
    for record in answer(job, new, epoch=SECOND):
        FakeWorker.append_to_memory(broker, record)


async def test_the_same_again_is_not_shown_again() -> None:
    """An answer that repeats what was withdrawn, in other pieces, goes on where that had ended."""
    broker = MemoryBroker()
    async with Client("", "acme", transport=MemoryTransport(broker)) as client:
        stream = await client.stream("x", job_id="a").start()
        withdrawn(broker, "a", ["one ", "two "], ["one", " two th", "ree"])
        assert [piece async for piece in texts(stream)] == ["one ", "two ", "th", "ree"]


async def test_another_answer_is_raised() -> None:
    """Text that is no longer right is an error; the job goes on, its token gives all of the new."""
    broker = MemoryBroker()
    shown: list[str] = []
    async with Client("", "acme", transport=MemoryTransport(broker)) as client:
        stream = await client.stream("x", job_id="a").start()
        withdrawn(broker, "a", ["one ", "two "], ["one ", "three ", "four"])
        with pytest.raises(TextWithdrawn, match="job a was withdrawn") as caught:
            await collect(texts(stream), shown)
        again = [piece async for piece in texts(client.resume(caught.value.token))]
    assert shown == ["one ", "two "]
    assert again == ["one ", "three ", "four"]
    assert caught.value.job == "a"
    assert broker.jobs.qsize() == 1  # the job, and no cancel


async def test_another_answer_with_a_callback() -> None:
    """Who can begin again is told to, and gets the new answer from its beginning."""
    broker = MemoryBroker()
    parts: list[str] = []
    async with Client("", "acme", transport=MemoryTransport(broker)) as client:
        stream = await client.stream("x", job_id="a").start()
        withdrawn(broker, "a", ["one ", "two "], ["one ", "three ", "four"])
        await collect(texts(stream, on_reset=parts.clear), parts)
    assert parts == ["one three ", "four"]


async def test_resumed_text_that_was_withdrawn() -> None:
    """What was shown before the token is not known here: it counts as wrong."""
    broker = MemoryBroker()
    async with Client("", "acme", transport=MemoryTransport(broker)) as client:
        stream = await client.stream("x", job_id="a").start()
        FakeWorker.append_to_memory(broker, tokens("a", 0, "one "))
        async for _ in stream:
            token = stream.detach()
        for record in answer("a", ["one ", "two"], epoch=SECOND):
            FakeWorker.append_to_memory(broker, record)
        with pytest.raises(TextWithdrawn) as caught:
            await collect(texts(client.resume(token)), [])
        assert [piece async for piece in texts(client.resume(caught.value.token))] == [
            "one ",
            "two",
        ]


def test_a_shorter_answer_differs() -> None:
    """One that ends before it has said all that was shown is another answer."""
    shown = Shown(before=False)
    for event in (TokensEvent(0, (0,), "one two"), ResetEvent(1), TokensEvent(0, (0,), "one")):
        assert not shown.add(event).withdrawn
    assert shown.add(ending("")) == (True, "one")


words = st.lists(st.sampled_from(["a", "b", "ab", "", "ba"]), max_size=6)


@given(st.lists(words, min_size=1, max_size=4), st.sampled_from(["a", "", "b"]))
def test_a_reader_who_begins_again_when_told_has_the_answer(
    attempts: list[list[str]], tail: str
) -> None:
    """However often it begins again, what was given since the last word of that is the answer.

    And who is never told was given it once.
    """
    events: list[Event] = []
    for number, attempt in enumerate(attempts):
        events += [ResetEvent(1)] if number else []
        events += [TokensEvent(index, (0,), word) for index, word in enumerate(attempt)]
    shown, parts, told = Shown(before=False), [""], 0
    for event in (*events, ending(tail)):
        piece = shown.add(event)
        if piece.withdrawn:
            told += 1
            parts.clear()
        parts.append(piece.text)
    whole = "".join(attempts[-1]) + tail
    assert "".join(parts) == whole
    begun = ["".join(attempt) for attempt in attempts[:-1]]
    if all(whole.startswith(each) for each in begun):
        assert told == 0
    assert told < len(attempts)
