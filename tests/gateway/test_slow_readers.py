"""A caller that does not take what it is sent holds up nobody and fills no memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aril.schemas import reply_partition
from tests.support.asgi import parse_events
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
