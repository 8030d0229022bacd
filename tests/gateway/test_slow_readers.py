"""A caller that does not take what it is sent holds up nobody and fills no memory."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from aril.gateway.serve import _listen
from aril.schemas import reply_partition
from tests.support.asgi import Exchange, parse_events
from tests.support.gateway_site import CHAT_PATH, PARTITIONS, Gateway, end, piece

if TYPE_CHECKING:
    from aril.memory import MemoryBroker
    from tests.support.gateway_site import Worker

CHAT: dict[str, Any] = {
    "model": "aril",
    "messages": [{"role": "user", "content": "go"}],
    "stream": True,
}
TOKENS = 2_000
MOST_BYTES = 67_000  # of one write


async def test_nothing_is_taken_while_it_waits(broker: MemoryBroker, worker: Worker) -> None:
    """Its inbox fills up and stays; the log is the buffer. All comes when it goes on, once."""
    async with Gateway(broker, inbox_events=16).running() as gateway:
        exchange = gateway.opened(CHAT)
        exchange.takes.clear()
        async with exchange:
            job = (await worker.job()).id
            worker.tell(*(piece(job, at, f"{at} ") for at in range(TOKENS)), end(job, TOKENS))
            (reader,) = gateway.site.readers
            stream = reader.streams[0]  # type: ignore[attr-defined]
            for _ in range(200):
                await asyncio.sleep(0.001)
            taken, sends = stream.token.count, exchange.sends
            assert taken < TOKENS / 2
            assert stream._started().waiting <= 16
            other = gateway.opened(CHAT)
            async with other:
                beside = (await worker.job()).id
                worker.tell(piece(beside, 0, "quick"), end(beside, 1))
                await other.whole()
            assert (stream.token.count, exchange.sends) == (taken, sends)
            exchange.takes.set()
            await exchange.whole()
    events = parse_events(b"".join(exchange.sent))
    texts = [each.json["choices"][0]["delta"].get("content", "") for each in events[1:-1]]
    assert "".join(texts) == "".join(f"{at} " for at in range(TOKENS))
    assert max(map(len, exchange.sent)) < MOST_BYTES


async def test_what_waits_goes_out_together(broker: MemoryBroker, worker: Worker) -> None:
    """An answer that lies there is sent in few writes of bounded size, not in one a token."""
    async with Gateway(broker, inbox_events=512).running() as gateway:
        text = "x" * 500  # an inbox of them is more than one write may have
        worker.tell(*(piece("k", at, text) for at in range(TOKENS)), end("k", TOKENS))
        last = f"{reply_partition('k', PARTITIONS)}.0.0.0.k"
        answer = await gateway.call("POST", CHAT_PATH, CHAT, last_event_id=last)
    assert len(parse_events(b"".join(answer.sent))) == TOKENS + 2
    assert answer.sends < TOKENS / 20
    assert max(map(len, answer.sent)) < MOST_BYTES


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT_PATH, CHAT), ("/v1/responses", {"model": "aril", "input": "go", "stream": True})],
)
async def test_who_takes_nothing_has_left(
    broker: MemoryBroker, worker: Worker, path: str, body: dict[str, Any]
) -> None:
    """Its answer has ended and it takes none of it: its place is free after the longest wait."""
    settings: dict[str, Any] = {"gateway_wait_seconds": 0.2, "gateway_keepalive_seconds": 0.05}
    async with Gateway(broker, **settings).running() as gateway:
        async with gateway.opened(body, path) as exchange:
            job = (await worker.job()).id
            worker.tell(piece(job, 0, "go"))
            await exchange.begun()
            exchange.takes.clear()
            worker.tell(piece(job, 1, "never"), end(job, 2))
            await asyncio.wait_for(gateway.site.idle.wait(), 30)
            assert exchange._task is not None
            await asyncio.wait({exchange._task}, timeout=30)
            assert exchange.ended
        assert b"never" not in b"".join(exchange.sent)


async def test_a_comment_that_is_not_taken(broker: MemoryBroker, worker: Worker) -> None:
    """As with an event: nothing else could be seen of a caller while its job waits."""
    settings: dict[str, Any] = {"gateway_wait_seconds": 0.2, "gateway_keepalive_seconds": 0.05}
    async with Gateway(broker, **settings).running() as gateway:
        exchange = gateway.opened(CHAT, idempotency_key="k")
        exchange.takes.clear()
        async with exchange:
            await worker.job()
            (reader,) = gateway.site.readers
            reader.fail = Mock()  # type: ignore[method-assign] # it is not timed
            await asyncio.wait_for(gateway.site.idle.wait(), 30)


@pytest.mark.parametrize("path", ["/v1/responses/resp_{}", CHAT_PATH + "/chatcmpl-{}"])
async def test_the_head_of_a_stream(gateway: Gateway, path: str) -> None:
    """HEAD reads nothing, so it holds no place."""
    asked = path.format("0.0.never") + "?stream=true"
    async with Exchange(gateway.app, "HEAD", asked) as exchange:
        assert await exchange.whole() == b""
        assert (exchange.status, gateway.site.open) == (200, 0)
    assert exchange.answer_headers["content-type"].startswith("text/event-stream")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
def test_the_kernel_gives_up_as_well() -> None:
    """What was written and is not taken goes with its connection, which inherits the bound."""
    with (
        _listen("127.0.0.1", 0, untaken_seconds=1.5) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as taken,
    ):
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1_500
