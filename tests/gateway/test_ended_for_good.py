"""A job ends once: who names one, by key or id, is not sent to ask for it again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from aril.schemas import Epoch, ErrorCode
from tests.support.asgi import Exchange, parse_events
from tests.support.gateway_site import CHAT_PATH, Gateway, failed, piece

if TYPE_CHECKING:
    from tests.support.gateway_site import Worker

CHAT: dict[str, Any] = {"model": "aril", "messages": [{"role": "user", "content": "go"}]}
RESPONSE: dict[str, Any] = {"model": "aril", "input": "go"}
RESPONSES_PATH = "/v1/responses"


async def is_final(exchange: Exchange) -> None:
    """Prove that an answer sends nobody to ask for the same."""
    assert exchange.answer_headers["x-should-retry"] == "false"
    assert not {"retry-after", "retry-after-ms"} & exchange.answer_headers.keys()
    error = (await exchange.json())["error"]
    assert "another Idempotency-Key" in error["message"]
    assert not error["retryable"]
    assert "retry_after_ms" not in error


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT_PATH, CHAT),
        (CHAT_PATH, CHAT | {"stream": True}),
        (RESPONSES_PATH, RESPONSE),
    ],
)
async def test_under_a_key(
    gateway: Gateway, worker: Worker, path: str, body: dict[str, Any]
) -> None:
    """Refused by the queue: a repeat is led to that refusal, and each says that it would be."""
    for attempt in range(2):
        asking = asyncio.create_task(gateway.call("POST", path, body, idempotency_key="mine"))
        await worker.job()
        if not attempt:
            worker.tell(failed("mine", ErrorCode.OVERLOADED, retry_after_ms=10))
        answer = await asking
        assert answer.status == 429
        await is_final(answer)


async def test_by_its_id(gateway: Gateway, worker: Worker) -> None:
    """Who asked may ask anew, and is given another job; who reads that one reads its end."""
    asking = asyncio.create_task(gateway.call("POST", CHAT_PATH, CHAT))
    job = (await worker.job()).id
    worker.tell(piece(job, 0, "go"), failed(job, ErrorCode.INTERNAL, 1))
    answer = await asking
    assert answer.answer_headers["x-should-retry"] == "true"
    async with gateway.opened(CHAT | {"stream": True}) as exchange:
        job = (await worker.job()).id
        worker.tell(piece(job, 0, "go"), failed(job, ErrorCode.INTERNAL, 1))
        await exchange.whole()
    _, word, error = parse_events(b"".join(exchange.sent))
    assert error.json["error"]["retryable"]
    await is_final(await gateway.call("GET", f"{CHAT_PATH}/{word.json['id']}"))
    await is_final(await gateway.call("POST", CHAT_PATH, CHAT, last_event_id=str(word.id)))


async def test_in_mid_stream(gateway: Gateway, worker: Worker) -> None:
    """An event says it as a status does; a stream that is withdrawn under a key stays it, too."""
    async with gateway.opened(CHAT | {"stream": True}, idempotency_key="mine") as exchange:
        await worker.job()
        worker.tell(piece("mine", 0, "Hello"))
        await exchange.begun()
        worker.tell(piece("mine", 0, "Good", epoch=Epoch(2, 1)))
        await exchange.whole()
    error = parse_events(b"".join(exchange.sent))[-1].json["error"]
    assert (error["code"], error["retryable"]) == ("withdrawn", False)
