"""A request that fails is freed at once: it leaves no cycle for the garbage collector.

That looks seldom (`aril.garbage`), and each of these may hold a body of megabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from aril import BrokerUnavailable, ResumeToken
from aril.gateway.sse import EventStream, unless_left
from aril.schemas import ErrorCode, Job
from aril.tail import Tail
from tests.support.cycles import left_to_the_collector, ours
from tests.support.gateway_site import CHAT_PATH, Gateway, failed, piece

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import Message

    from aril.memory import MemoryBroker
    from tests.support.gateway_site import Worker

COUNT = 5
CHAT: dict[str, Any] = {"model": "aril", "messages": [{"role": "user", "content": "two words"}]}
STREAMED = CHAT | {"stream": True}

BAD: dict[str, object] = {
    "no json object": [],
    "an unknown field": CHAT | {"nonsense": 1},
    "an empty prompt": CHAT | {"messages": []},
    "too many answers": CHAT | {"n": 10_000},
    "a wrong type": CHAT | {"temperature": "hot"},
}


@pytest.mark.parametrize("name", BAD)
async def test_a_request_that_is_refused_leaves_no_cycle(gateway: Gateway, name: str) -> None:
    """Before any job is sent."""
    await gateway.call("POST", CHAT_PATH, BAD[name])
    with left_to_the_collector() as left:
        for _ in range(COUNT):
            answer = await gateway.call("POST", CHAT_PATH, BAD[name])
            assert answer.status >= 400
        del answer
    assert ours(left) == []


@pytest.mark.parametrize("asked", [CHAT, STREAMED], ids=["whole", "streamed"])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_job_that_fails_leaves_no_cycle(
    gateway: Gateway, worker: Worker, asked: dict[str, Any], begun: bool
) -> None:
    """Before its first token, and in the middle of its answer."""

    async def fail() -> None:
        asking = asyncio.create_task(gateway.call("POST", CHAT_PATH, asked))
        job = await worker.job()
        if begun:
            worker.tell(piece(job.id, 0, "one"))
        worker.tell(failed(job.id, ErrorCode.INTERNAL, int(begun)))
        await asking

    await fail()
    with left_to_the_collector() as left:
        for _ in range(COUNT):
            await fail()
    assert ours(left) == []


@pytest.mark.parametrize("asked", [CHAT, STREAMED], ids=["whole", "streamed"])
async def test_a_job_that_cannot_be_sent_leaves_no_cycle(
    gateway: Gateway, broker: MemoryBroker, asked: dict[str, Any]
) -> None:
    """The brokers are away."""
    broker.failing = True
    await gateway.call("POST", CHAT_PATH, asked)
    with left_to_the_collector() as left:
        for _ in range(COUNT):
            answer = await gateway.call("POST", CHAT_PATH, asked)
            assert answer.status >= 500
        del answer
    broker.failing = False
    assert ours(left) == []


@pytest.mark.parametrize("asked", [CHAT, STREAMED], ids=["whole", "streamed"])
async def test_a_caller_that_leaves_leaves_no_cycle(
    gateway: Gateway, worker: Worker, asked: dict[str, Any]
) -> None:
    """While its answer comes."""

    async def leave() -> None:
        async with gateway.opened(asked):
            await worker.job()
        await worker.take()  # its cancel

    await leave()
    with left_to_the_collector() as left:
        for _ in range(COUNT):
            await leave()
    assert ours(left) == []


def stop(gateway: Gateway) -> None:
    """End all answers, as a gateway does that stops."""
    gateway.site.end()


def lose(gateway: Gateway) -> None:
    """End all answers, as where the brokers are gone."""
    gateway.connection.router.fail_all(lambda: BrokerUnavailable("gone"))


@pytest.mark.parametrize("ending", [stop, lose])
@pytest.mark.parametrize("asked", [CHAT, STREAMED], ids=["whole", "streamed"])
async def test_what_is_ended_from_without_leaves_no_cycle(
    gateway: Gateway, worker: Worker, asked: dict[str, Any], ending: Callable[[Gateway], None]
) -> None:
    """In the middle of its answer."""

    async def end() -> None:
        asking = asyncio.create_task(gateway.call("POST", CHAT_PATH, asked))
        while not isinstance(job := await worker.take(), Job):  # a cancel of the one before
            pass
        worker.tell(piece(job.id, 0, "one"))
        for _ in range(100):
            await asyncio.sleep(0)
        ending(gateway)
        await asking

    await end()
    with left_to_the_collector() as left:
        for _ in range(COUNT):
            await end()
    assert ours(left) == []


async def test_a_tail_that_is_ended_from_without_leaves_no_cycle(gateway: Gateway) -> None:
    """As a durable stream is read, behind whatever has come."""
    token = ResumeToken("a", 0, 0)
    with left_to_the_collector() as left:
        for _ in range(COUNT):
            with contextlib.suppress(BrokerUnavailable):
                async with Tail(gateway.connection, "replies.acme", token) as tail:
                    tail.fail(BrokerUnavailable("gone"))
                    await tail.more()
            del tail
    assert ours(left) == []


async def stay() -> Message:
    """Receive what a caller sends that stays: nothing more."""
    await asyncio.Event().wait()
    raise AssertionError


async def fail(held: Job) -> NoReturn:
    """Fail with a job at hand."""
    await asyncio.sleep(0)
    raise ValueError(held.id)


async def pieces(held: Job) -> AsyncIterator[bytes]:
    """Fail before the first piece."""
    await fail(held)
    yield b""


async def respond(held: Job) -> None:
    """Send an answer that fails before it has begun."""

    async def send(_: Message) -> None:
        await asyncio.sleep(0)

    stream = EventStream(pieces(held), keepalive=30, longest=30, hold=True)
    await stream({"type": "http", "method": "GET"}, stay, send)


@pytest.mark.parametrize("work", [lambda held: unless_left(stay, fail(held)), respond])
async def test_work_beside_a_caller_leaves_no_cycle(work: Callable[[Job], Awaitable[None]]) -> None:
    """It fails in a task of its own."""
    with left_to_the_collector() as left:
        for number in range(COUNT):
            with contextlib.suppress(ValueError):
                await work(Job(id=f"j{number}", tenant="acme", prompt="?"))
    assert ours(left) == []
