"""The two endpoints: whole and streamed, what they refuse, and what an error looks like."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from aril.gateway.chat import MOST_STREAMED
from aril.schemas import Epoch, ErrorCode, decode_request
from tests.support.asgi import parse_events
from tests.support.gateway_site import CHAT_PATH, TEXT_PATH, Gateway, end, failed, piece

if TYPE_CHECKING:
    from aril.memory import MemoryBroker
    from tests.support.asgi import Exchange
    from tests.support.gateway_site import Worker

CHAT: dict[str, Any] = {"model": "aril", "messages": [{"role": "user", "content": "two words"}]}
TEXT: dict[str, Any] = {"model": "terse", "prompt": "two words"}


def chunks(exchange: Exchange) -> list[Any]:
    """Return what the events of a whole stream say, which ends as OpenAI's do."""
    events = parsed(exchange)
    assert events[-1].data == "[DONE]"
    return [each.json for each in events[:-1]]


def parsed(exchange: Exchange) -> list[Any]:
    """Return the events of a whole stream."""
    return [each for each in parse_events(b"".join(exchange.sent)) if not each.comment]


async def test_a_whole_chat(gateway: Gateway, serving: Worker) -> None:
    """The body is OpenAI's, its id says where the answer lies, a header which job it was."""
    answer = await gateway.call("POST", CHAT_PATH, CHAT)
    body = await answer.json()
    assert answer.status == 200
    choice = body["choices"][0]
    assert choice["message"]["content"] == "two words"
    assert choice["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    (job,) = serving.sent
    assert choice["aril"]["job"] == answer.answer_headers["x-request-id"] == job
    prefix, _, place = body["id"].partition("-")
    assert prefix == "chatcmpl"
    assert place.endswith(f".0.{job}")


async def test_a_whole_text_of_an_adapter(gateway: Gateway, serving: Worker) -> None:
    """The older endpoint, several prompts, answers to each; a prompt's tokens count once."""
    asked = TEXT | {"prompt": ["one", "two words"], "n": 2, "echo": True}
    answer = await gateway.call("POST", TEXT_PATH, asked)
    body = await answer.json()
    assert [each["text"] for each in body["choices"]] == ["oneone"] * 2 + ["two wordstwo words"] * 2
    assert {each["aril"]["adapter"] for each in body["choices"]} == {"terse"}
    assert body["usage"]["prompt_tokens"] == 10
    assert body["id"].startswith("cmpl-")
    assert body["id"].count(",") == 3
    first, *others = sorted(serving.sent)
    assert others == [f"{first}.{at}" for at in (1, 2, 3)]


async def test_a_stream(gateway: Gateway, serving: Worker) -> None:
    """A role, the words, an end with what is known of it, the cost, [DONE]; each has its id."""
    asked = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    answer = await gateway.call("POST", CHAT_PATH, asked)
    assert answer.status == 200
    assert answer.answer_headers["content-type"].startswith("text/event-stream")
    first, word, last, usage = chunks(answer)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert word["choices"][0]["delta"] == {"content": "two "}
    assert last["choices"][0]["delta"] == {"content": "words"}
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["choices"][0]["aril"]["base_digest"] == "cd" * 32
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 7
    assert len({each["id"] for each in (first, word, last, usage)}) == 1
    (job,) = serving.sent
    where = first["id"].removeprefix("chatcmpl-").removesuffix(f".{job}")
    assert [each.id for each in parsed(answer)] == [
        f"{where}.0.0.{job}",
        f"{where}.1.0.{job}",
        f"{where}.2.0.{job}~",
        f"{where}.2.0.{job}~~",
        None,
    ]


async def test_choices_come_as_they_come(gateway: Gateway, worker: Worker) -> None:
    """Of three answers each goes its own pace; ends are in any order, usage covers all."""
    asked = CHAT | {"n": 3, "stream": True, "stream_options": {"include_usage": True}}
    async with gateway.opened(asked) as exchange:
        jobs = sorted([(await worker.job()).id for _ in range(3)])
        worker.tell(piece(jobs[2], 0, "c"))
        events = exchange.events()
        opening, first = await anext(events), await anext(events)
        assert [each["index"] for each in opening.json["choices"]] == [0, 1, 2]
        assert first.json["choices"][0]["index"] == 2
        worker.tell(piece(jobs[0], 0, "a"))
        assert (await anext(events)).json["choices"][0]["delta"] == {"content": "a"}
        for job, tokens in ((jobs[2], 1), (jobs[0], 1), (jobs[1], 0)):
            worker.tell(end(job, tokens))
        rest = [each async for each in events]
    assert [each.json["choices"][0]["index"] for each in rest[:3]].count(1) == 1
    assert rest[3].json["usage"]["completion_tokens"] == 2
    assert rest[3].id is not None
    assert rest[3].id.count(",") == 2
    assert rest[4].data == "[DONE]"


async def test_what_is_sent_of_many_choices(gateway: Gateway, worker: Worker) -> None:
    """Each event tells places in all of them, in a few characters each; there is a bound."""
    body = {"model": "aril", "prompt": ["go"] * MOST_STREAMED, "stream": True}
    async with gateway.opened(body, TEXT_PATH) as exchange:
        jobs = [(await worker.job()).id for _ in range(MOST_STREAMED)]
        for job in jobs:
            worker.tell(piece(job, 0, "word"), end(job, 1))
        await exchange.whole()
    events = parsed(exchange)
    assert len(events) == 2 * MOST_STREAMED + 1
    assert max(len(each.data) + len(each.id or "") for each in events) < 25 * MOST_STREAMED
    more = body | {"prompt": ["go"] * (MOST_STREAMED + 1)}
    answer = await gateway.call("POST", TEXT_PATH, more)
    error = (await answer.json())["error"]
    assert (answer.status, error["param"], error["limit"]) == (400, "stream", MOST_STREAMED)
    assert worker.broker.jobs.empty()


async def test_logprobs(gateway: Gateway, serving: Worker) -> None:
    """Streamed and whole, in the form of each endpoint."""
    asked = CHAT | {"logprobs": True, "top_logprobs": 2}
    body = await (await gateway.call("POST", CHAT_PATH, asked)).json()
    content = body["choices"][0]["logprobs"]["content"]
    assert [len(each["top_logprobs"]) for each in content] == [2, 2]
    streamed = chunks(await gateway.call("POST", CHAT_PATH, asked | {"stream": True}))
    rows = [each["choices"][0]["logprobs"] for each in streamed if each["choices"][0]["logprobs"]]
    assert [row for each in rows for row in each["content"]] == content
    text = TEXT | {"logprobs": 1, "stream": True}
    streamed = chunks(await gateway.call("POST", TEXT_PATH, text))
    offsets = [each["choices"][0]["logprobs"]["text_offset"] for each in streamed[:-1]]
    assert offsets == [[0], [4]]
    del serving


async def test_what_a_job_is_asked_with(gateway: Gateway, worker: Worker) -> None:
    """Stops, tools, a form and a trace reach the worker."""
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    asked = CHAT | {
        "stop": ["END"],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        "stream": True,
    }
    async with gateway.opened(asked, traceparent=parent):
        job = await worker.job()
    assert job.sampling.stop == ("END",)
    assert job.tools is not None
    assert job.sampling.response_format is not None
    assert ("traceparent", parent.encode()) in worker.broker.headers[0]
    async with gateway.opened(CHAT | {"stream": True}, traceparent="nonsense"):
        await worker.take()  # the first was cancelled
        await worker.job()
    assert not worker.broker.headers[2]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_first_token(
    gateway: Gateway, worker: Worker, stream: bool
) -> None:
    """It has the status of its code, streamed or not, with limit, value and when to come again."""
    async with gateway.opened(CHAT | {"stream": stream}) as exchange:
        job = await worker.job()
        code = ErrorCode.OVERLOADED
        worker.tell(failed(job.id, code, limit=4, given=9, retry_after_ms=1_500))
        body = await exchange.json()
    assert exchange.status == 429
    assert exchange.answer_headers["x-request-id"] == job.id
    assert exchange.answer_headers["retry-after-ms"] == "1500"
    assert exchange.answer_headers["x-should-retry"] == "true"
    assert body["error"] == {
        "message": "told to fail",
        "type": "rate_limit_error",
        "param": None,
        "code": "overloaded",
        "retryable": True,
        "limit": 4.0,
        "given": 9,
        "retry_after_ms": 1_500,
    }


async def test_an_error_in_mid_stream(gateway: Gateway, worker: Worker) -> None:
    """What has come is sent, then an event that OpenAI's clients raise; nothing is behind it."""
    async with gateway.opened(CHAT | {"stream": True}) as exchange:
        job = await worker.job()
        worker.tell(piece(job.id, 0, "one"), failed(job.id, ErrorCode.INTERNAL, 1))
        events = [each async for each in exchange.events()]
    assert exchange.status == 200
    assert [each.json["choices"][0]["delta"].get("content") for each in events[:2]] == ["", "one"]
    assert events[2].json["error"]["code"] == "internal"
    assert len(events) == 3


async def test_an_answer_that_begins_anew(gateway: Gateway, worker: Worker) -> None:
    """A stream cannot take back what it has given, and says so; a whole answer is the new one."""
    for stream in (True, False):
        async with gateway.opened(CHAT | {"stream": stream}) as exchange:
            job = (await worker.job()).id
            worker.tell(piece(job, 0, "old"), piece(job, 1, "er"))
            if stream:
                await exchange.begun()
            second = Epoch(2, 1)
            worker.tell(piece(job, 0, "new", epoch=second), end(job, 1, epoch=second))
            body = await exchange.whole()
        if stream:
            assert parsed(exchange)[-1].json["error"]["code"] == "withdrawn"
        else:
            assert b'"content":"new"' in body


async def test_a_caller_that_leaves(gateway: Gateway, worker: Worker) -> None:
    """Its job is cancelled, whether it waited for the whole, for the first token or the next."""
    for stream, tokens in ((False, 0), (True, 0), (True, 1)):
        async with gateway.opened(CHAT | {"stream": stream}) as exchange:
            job = (await worker.job()).id
            if tokens:
                worker.tell(piece(job, 0, "one"))
                await exchange.begun()
        assert (await worker.take()).id == job
        assert job in worker.cancelled
    assert gateway.site.open == 0
    assert not gateway.site.readers


async def test_a_caller_with_a_key_leaves_its_job(gateway: Gateway, worker: Worker) -> None:
    """An Idempotency-Key says that it will come again: the job runs on, a retry gets the first."""
    asked = CHAT | {"stream": True}
    async with gateway.opened(asked, idempotency_key="order-81") as exchange:
        assert (await worker.job()).id == "order-81"
        worker.tell(piece("order-81", 0, "one "))
        await exchange.begun()
    worker.tell(piece("order-81", 1, "two"), end("order-81", 2))
    async with gateway.opened(asked, idempotency_key="order-81") as exchange:
        await worker.job()
        events = [each async for each in exchange.events()]
    assert not worker.cancelled
    texts = [each.json["choices"][0]["delta"].get("content", "") for each in events[:-1]]
    assert "".join(texts) == "one two"
    assert ".0." in str(events[0].id)  # where the first answer lies


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_caller_that_leaves_while_its_job_is_sent(
    gateway: Gateway, worker: Worker, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    """The job is sent all the same, so it is known what becomes of it: cancelled, or kept."""
    going, transport = asyncio.Event(), gateway.connection.transport
    send = transport.send

    async def slowly(*arguments: Any) -> None:
        await going.wait()
        await send(*arguments)

    monkeypatch.setattr(transport, "send", slowly)
    async with gateway.opened(CHAT, **({"idempotency_key": key} if key else {})):
        while not gateway.site.open:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    going.set()
    job = await worker.job()
    if key is None:
        assert (await worker.take()).id == job.id
        assert worker.cancelled == {job.id}
    else:
        worker.tell(piece(key, 0, "kept"), end(key, 1))
        async with gateway.opened(CHAT, idempotency_key=key) as exchange:
            await worker.job()  # which leads it to the first answer
            body = await exchange.json()
        assert body["choices"][0]["message"]["content"] == "kept"
        assert not worker.cancelled


async def test_a_retry_beside_the_first(gateway: Gateway, worker: Worker) -> None:
    """The same key while its answer is being read: both get all of it."""
    async with gateway.opened(CHAT, idempotency_key="k") as first:
        await worker.job()
        worker.tell(piece("k", 0, "one "))
        async with gateway.opened(CHAT, idempotency_key="k") as second:
            await worker.job()
            worker.tell(piece("k", 1, "two"), end("k", 2))
            bodies = [await first.json(), await second.json()]
    assert bodies[0]["id"] == bodies[1]["id"]
    assert {each["choices"][0]["message"]["content"] for each in bodies} == {"one two"}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (CHAT_PATH, CHAT | {"modalities": ["audio"]}, 400, "modalities"),
        (CHAT_PATH, CHAT | {"temperature": 9}, 400, "temperature"),
        (CHAT_PATH, CHAT | {"model": "No Such"}, 404, "model"),
        (CHAT_PATH, CHAT | {"n": 129}, 400, "n"),
        (TEXT_PATH, TEXT | {"suffix": "x"}, 400, "suffix"),
        (CHAT_PATH, [], 400, None),
        (CHAT_PATH, b"{", 400, None),
        (CHAT_PATH, b'{"a":NaN}', 400, None),
        (CHAT_PATH, b"\xff", 400, None),
        (CHAT_PATH, b"[" * 100_000, 400, None),
        (CHAT_PATH, b'{"a":' * 970 + b"1" + b"}" * 970, 400, None),
        (CHAT_PATH, rb'{"model": "\ud800"}', 400, None),
        (CHAT_PATH, rb'{"model": "aril", "\ud800": 1}', 400, None),
        ("/v1/responses", b'{"input": "x", "metadata": 1e999}', 400, None),
    ],
)
async def test_what_is_refused(
    gateway: Gateway, worker: Worker, path: str, body: object, status: int, param: str | None
) -> None:
    """By name, in OpenAI's form, before anything is sent to the queue."""
    answer = await gateway.call("POST", path, body)
    told = (await answer.json())["error"]
    assert (answer.status, told["param"]) == (status, param)
    assert told["code"]
    assert worker.broker.jobs.empty()


async def test_a_body_that_is_too_large(broker: MemoryBroker) -> None:
    """It is refused by its length, or once that much of it has come; the rest is not read."""
    async with Gateway(broker, gateway_body_bytes=1_000).running() as gateway:
        answer = await gateway.call("POST", CHAT_PATH, b"x" * 2_000, content_length="2000")
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["limit"]) == (413, "body_too_large", 1_000)
        assert answer.received == 0
        exchange = gateway.opened({"x": "y" * 5_000})
        exchange.chunk = 600
        async with exchange:
            await exchange.whole()
        assert (exchange.status, exchange.received) == (413, 1_200)
        assert exchange.answer_headers["connection"] == "close"


async def test_other_types_are_refused(gateway: Gateway) -> None:
    """What a page of somebody else's may send without asking first is not taken."""
    answer = await gateway.call("POST", CHAT_PATH, b"{}", content_type="text/plain")
    assert answer.status == 415


@pytest.mark.parametrize(
    "headers",
    [
        {"idempotency_key": "a b"},
        {"idempotency_key": ""},
        {"idempotency_key": "x" * 65},
        {"last_event_id": "nonsense"},
        {"last_event_id": "0.0.0.0.a,0.0.0.0.b"},
        {"last_event_id": ",".join(["0.0.0.0.a"] * 2_000)},
    ],
)
async def test_bad_headers(gateway: Gateway, worker: Worker, headers: dict[str, str]) -> None:
    """They are refused by name; a key that is no job's id would be another job."""
    answer = await gateway.call("POST", CHAT_PATH, CHAT, **headers)
    assert answer.status == 400
    assert (await answer.json())["error"]["param"] == next(iter(headers)).replace("_", "-")
    assert worker.broker.jobs.empty()


async def test_a_key_has_room_for_its_choices(gateway: Gateway, worker: Worker) -> None:
    """The longest key of several answers is shorter by their numbers."""
    answer = await gateway.call("POST", CHAT_PATH, CHAT | {"n": 2}, idempotency_key="x" * 60)
    assert answer.status == 400
    async with gateway.opened(CHAT | {"n": 2}, idempotency_key="x" * 59):
        assert {(await worker.job()).id, (await worker.job()).id} == {
            "x" * 59,
            "x" * 59 + ".1",
        }


async def test_nothing_comes(broker: MemoryBroker) -> None:
    """A whole answer, or a stream's next event, is waited for so long; its job is cancelled."""
    settings: dict[str, Any] = {"gateway_wait_seconds": 0.2, "gateway_keepalive_seconds": 0.05}
    async with Gateway(broker, **settings).running() as gateway:
        answer = await gateway.call("POST", CHAT_PATH, CHAT)
        assert answer.status == 504
        assert (await answer.json())["error"]["code"] == "timeout"
        answer = await gateway.call("POST", CHAT_PATH, CHAT | {"stream": True})
        assert parsed(answer)[-1].json["error"]["code"] == "timeout"
        assert b": still there\n\n" in answer.sent
    kinds = [type(gateway_request(broker)).__name__ for _ in range(4)]
    assert kinds == ["Job", "Cancel"] * 2


def gateway_request(broker: MemoryBroker) -> object:
    """Return the next request that was sent."""
    return decode_request(broker.jobs.get_nowait()[1])


async def test_silence_is_kept_alive(broker: MemoryBroker) -> None:
    """A comment now and then while nothing comes; the head of the answer with the first of them."""
    async with Gateway(broker, gateway_keepalive_seconds=0.05).running() as gateway:
        async with gateway.opened(CHAT | {"stream": True}) as exchange:
            await exchange.begun()
            while b"".join(exchange.sent).count(b": still there") < 3:
                await exchange.until()
        assert exchange.status == 200


async def test_brokers_that_are_away(gateway: Gateway, broker: MemoryBroker) -> None:
    """A request that cannot be sent is told so, to be tried again."""
    broker.failing = True
    answer = await gateway.call("POST", CHAT_PATH, CHAT | {"stream": True})
    assert answer.status == 503
    assert answer.answer_headers["x-should-retry"] == "true"
    assert gateway.site.open == 0


async def test_cancel(gateway: Gateway, worker: Worker) -> None:
    """By an answer's id, also by somebody else of the tenant; its reader is told by the worker."""
    async with gateway.opened(CHAT | {"stream": True, "n": 2}) as exchange:
        jobs = {(await worker.job()).id for _ in range(2)}
        worker.tell(piece(min(jobs), 0, "one"))
        first = await anext(exchange.events())
        answer = await gateway.call("POST", f"{CHAT_PATH}/{first.json['id']}/cancel")
        assert (answer.status, (await answer.json())["status"]) == (202, "cancelling")
        assert {(await worker.take()).id for _ in range(2)} == jobs == worker.cancelled
        worker.tell(failed(min(jobs), ErrorCode.CANCELLED, 1))
        await exchange.whole()
    assert parsed(exchange)[-1].json["error"]["code"] == "cancelled"
    await asyncio.sleep(0)
    assert (await gateway.call("POST", f"{CHAT_PATH}/nonsense/cancel")).status == 404
