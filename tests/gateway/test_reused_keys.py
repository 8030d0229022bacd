"""Another request under an Idempotency-Key that is taken: it is told so, the first is answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.asgi import parse_events
from tests.support.gateway_site import CHAT_PATH, TEXT_PATH, end, piece

if TYPE_CHECKING:
    from tests.support.asgi import Exchange
    from tests.support.gateway_site import Gateway, Worker

KEY = "order-81"
RESPONSES = "/v1/responses"
CHAT: dict[str, Any] = {"model": "aril", "messages": [{"role": "user", "content": "hi there"}]}
OTHER: dict[str, Any] = {"model": "aril", "messages": [{"role": "user", "content": "good bye"}]}


async def assert_refused(answer: Exchange) -> None:
    """Read the answer: 422 as OpenAI's clients know it, which none of them asks again."""
    error = (await answer.json())["error"]
    assert answer.status == 422
    assert answer.answer_headers["x-should-retry"] == "false"
    assert_told(error)


def assert_told(error: dict[str, Any]) -> None:
    """Look at the object."""
    assert (error["type"], error["param"]) == ("invalid_request_error", "idempotency-key")
    assert (error["code"], error["retryable"]) == ("idempotency_key_reused", False)
    assert KEY in error["message"]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("path", "other"),
    [
        (CHAT_PATH, OTHER),
        (CHAT_PATH, OTHER | {"stream": True}),
        (CHAT_PATH, CHAT | {"temperature": 0.5}),
        (CHAT_PATH, OTHER | {"n": 3}),
        (TEXT_PATH, {"model": "aril", "prompt": ["hi there", "good bye"]}),
        (RESPONSES, {"model": "aril", "input": "good bye"}),
        (RESPONSES, {"model": "aril", "input": "good bye", "stream": True}),
        (RESPONSES, {"model": "aril", "input": "x", "stream": True, "background": True}),
    ],
)
async def test_another_body(
    gateway: Gateway, worker: Worker, path: str, other: dict[str, Any], *, begun: bool
) -> None:
    """Whatever differs, at whichever endpoint, before the first token or behind it."""
    async with gateway.opened(CHAT | {"stream": True}, idempotency_key=KEY) as first:
        await worker.job()
        if begun:
            worker.tell(piece(KEY, 0, "one "))
            await first.begun()
        async with gateway.opened(other, path, idempotency_key=KEY) as second:
            while worker.sent.count(KEY) < 2:
                await worker.job()
            await assert_refused(second)
        worker.tell(*([] if begun else [piece(KEY, 0, "one ")]), piece(KEY, 1, "two"), end(KEY, 2))
        events = [each async for each in first.events()]
    assert events[-1].data == "[DONE]"
    assert not worker.cancelled


async def test_the_first_answer_is_not_told_to_the_second(gateway: Gateway, worker: Worker) -> None:
    """It may be there before the worker reads the second request: what is said then ends it."""
    async with gateway.opened(CHAT, idempotency_key=KEY) as first:
        await worker.job()
        async with gateway.opened(OTHER | {"stream": True}, idempotency_key=KEY) as second:
            while gateway.site.open != 2:  # noqa: ASYNC110 - a few turns of the loop
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            worker.tell(piece(KEY, 0, "one "))
            await second.begun()
            await worker.job()
            events = [each async for each in second.events()]
        worker.tell(end(KEY, 1))
        assert (await first.json())["choices"][0]["message"]["content"] == "one "
    assert events[-1].json["error"]["code"] == "idempotency_key_reused"


async def test_one_choice_more_is_the_same_request(gateway: Gateway, worker: Worker) -> None:
    """Of the choices that were asked for before nothing is answered anew."""
    async with gateway.opened(CHAT, idempotency_key=KEY) as first:
        await worker.job()
        worker.tell(piece(KEY, 0, "one"), end(KEY, 1))
        whole = await first.json()
    async with gateway.opened(CHAT | {"n": 2}, idempotency_key=KEY) as again:
        await worker.job()
        await worker.job()
        worker.tell(piece(f"{KEY}.1", 0, "two"), end(f"{KEY}.1", 1))
        both = await again.json()
    assert both["choices"][0]["message"] == whole["choices"][0]["message"]
    assert both["choices"][1]["message"]["content"] == "two"


async def test_in_the_background(gateway: Gateway, worker: Worker) -> None:
    """Who was given an id at once is told by that, at any gateway, by each way to read it."""
    async with gateway.opened(CHAT | {"stream": True}, idempotency_key=KEY) as first:
        await worker.job()
        worker.tell(piece(KEY, 0, "one "))
        await first.begun()
        body = {"model": "aril", "input": "good bye", "background": True}
        answer = await gateway.call("POST", RESPONSES, body, idempotency_key=KEY)
        name = (await answer.json())["id"]
        assert answer.status == 200
        await worker.job()
        for path in (
            f"{RESPONSES}/{name}",
            f"/v1/streams/{name}",
            f"/v1/streams/{name}?offset=-1&live=sse",
            f"/v1/streams/{name}?offset=-1&live=long-poll",
            f"{CHAT_PATH}/chatcmpl-{name.removeprefix('resp_')}",
        ):
            await assert_refused(await gateway.call("GET", path))
        stream = await gateway.call("GET", f"{RESPONSES}/{name}?stream=true")
        *_, last = parse_events(b"".join(stream.sent))
        assert_told(last.json["error"])
