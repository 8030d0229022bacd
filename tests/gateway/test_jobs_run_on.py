"""Whose jobs run on: only a caller that leaves, a time-out or a job's own end takes one with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from aril.errors import BrokerUnavailable
from aril.schemas import Epoch
from tests.support.asgi import parse_events
from tests.support.gateway_site import CHAT_PATH, TEXT_PATH, Gateway, end, piece

if TYPE_CHECKING:
    from aril.memory import MemoryBroker
    from tests.support.gateway_site import Worker

CHAT: dict[str, Any] = {
    "model": "aril",
    "messages": [{"role": "user", "content": "go"}],
    "stream": True,
}
RESPONSE: dict[str, Any] = {"model": "aril", "input": "go", "stream": True}
RESPONSES_PATH = "/v1/responses"
SECOND = Epoch(2, 1)
MORE_THAN_A_WRITE = "x" * 70_000


async def nothing_more_is_sent(broker: MemoryBroker) -> bool:
    """Whether no cancel follows, once all that was to be sent is."""
    for _ in range(20):
        await asyncio.sleep(0.001)
    return broker.jobs.empty()


async def test_what_is_withdrawn_can_be_read_whole(gateway: Gateway, worker: Worker) -> None:
    """Its stream cannot take anything back; its job is well, and its answer is at its id."""
    async with gateway.opened(CHAT) as exchange:
        job = (await worker.job()).id
        worker.tell(piece(job, 0, "Hello"))
        await exchange.begun()
        worker.tell(piece(job, 0, "Good", epoch=SECOND))
        await exchange.whole()
    events = parse_events(b"".join(exchange.sent))
    assert events[-1].json["error"]["code"] == "withdrawn"
    assert await nothing_more_is_sent(worker.broker)
    worker.tell(end(job, 1, " day", epoch=SECOND))
    whole = await gateway.call("GET", f"{CHAT_PATH}/{events[0].json['id']}")
    assert (await whole.json())["choices"][0]["message"]["content"] == "Good day"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT_PATH, CHAT),
        (TEXT_PATH, {"model": "aril", "prompt": "go", "stream": True}),
        (RESPONSES_PATH, RESPONSE),
    ],
)
async def test_a_drain_leaves_readers_of_long_events(
    gateway: Gateway, worker: Worker, path: str, body: dict[str, Any]
) -> None:
    """An event that fills a write by itself tells its reader its place as a short one does."""
    async with gateway.opened(body, path) as exchange:
        job = (await worker.job()).id
        worker.tell(piece(job, 0, MORE_THAN_A_WRITE))
        while MORE_THAN_A_WRITE.encode() not in b"".join(exchange.sent):
            await exchange.until()
        gateway.site.draining.set()
        gateway.site.end()
        await exchange.whole()
    assert parse_events(b"".join(exchange.sent))[-1].json["error"]["code"] == "unavailable"
    assert await nothing_more_is_sent(worker.broker)


@pytest.mark.parametrize(
    ("path", "body", "jobs"),
    [
        (CHAT_PATH, CHAT, 1),
        (CHAT_PATH, CHAT | {"n": 2}, 2),
        (CHAT_PATH, CHAT | {"n": 2, "stream": False}, 2),
        (RESPONSES_PATH, RESPONSE, 1),
        (RESPONSES_PATH, RESPONSE | {"stream": False}, 1),
    ],
)
async def test_brokers_that_fail_once(
    gateway: Gateway,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
    jobs: int,
) -> None:
    """Readers are told to come again; to their jobs nothing has happened."""
    transport = gateway.connection.transport
    poll, faults = transport.poll, [BrokerUnavailable("a request timed out")]
    async with gateway.opened(body, path) as exchange:
        sent = [(await worker.job()).id for _ in range(jobs)]
        for job in sent:
            worker.tell(piece(job, 0, "Hello"))
        if body["stream"]:
            await exchange.begun()

        async def once() -> Any:
            if faults:
                raise faults.pop()
            return await poll()

        monkeypatch.setattr(transport, "poll", once)
        for job in sent:
            worker.tell(piece(job, 1, " you"))
        assert b'"code":"unavailable"' in await exchange.whole()
    assert await nothing_more_is_sent(worker.broker)
