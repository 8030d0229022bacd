"""Going on behind an event, at any gateway: exactly the rest, wherever the reader stood."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from aril.schemas import Epoch, ErrorCode, reply_partition
from tests.support.asgi import SentEvent, parse_events
from tests.support.gateway_site import (
    CHAT_PATH,
    PARTITIONS,
    TEXT_PATH,
    Gateway,
    end,
    failed,
    piece,
)

if TYPE_CHECKING:
    from aril.memory import MemoryBroker
    from aril.schemas import Job, ReplyRecord
    from tests.support.gateway_site import Worker

CHAT: dict[str, Any] = {
    "model": "aril",
    "messages": [{"role": "user", "content": "go"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}


def without_time(events: list[SentEvent]) -> list[SentEvent]:
    """Return events without when they were made, which is all that differs."""
    return [
        SentEvent(re.sub(r'"created":\d+', '"created":0', each.data), each.id)
        for each in events
        if not each.comment
    ]


async def events_of(gateway: Gateway, body: dict[str, Any], path: str, **headers: str) -> Any:
    """Return all events of a stream."""
    answer = await gateway.call("POST", path, body, **headers)
    assert answer.status == 200, answer.sent
    return without_time(parse_events(b"".join(answer.sent)))


def told(job: Job) -> list[ReplyRecord]:
    """Make an answer with all that can be in one: several tokens, held-back text, logprobs."""
    top = job.sampling.logprobs
    return [
        piece(job.id, 0, "The ", logprobs=top),
        piece(job.id, 1, "", ids=2, logprobs=top),
        piece(job.id, 3, "quick fox ", ids=3, logprobs=top),
        piece(job.id, 6, "", logprobs=top),
        end(job.id, 7, "jumps"),
    ]


FORMS = {
    "chat": (CHAT_PATH, CHAT),
    "without usage": (CHAT_PATH, CHAT | {"stream_options": None}),
    "logprobs": (CHAT_PATH, CHAT | {"logprobs": True, "top_logprobs": 2}),
    "three": (CHAT_PATH, CHAT | {"n": 3}),
    "text": (
        TEXT_PATH,
        {"prompt": ["go", "went"], "stream": True, "logprobs": 1, "n": 2, "model": "aril"},
    ),
    "echo": (TEXT_PATH, {"prompt": ["go", "went"], "stream": True, "echo": True, "model": "aril"}),
}


@pytest.mark.parametrize("form", FORMS)
async def test_the_rest_behind_every_event(broker: MemoryBroker, worker: Worker, form: str) -> None:
    """At another gateway, with the id of any event: what was not given, nothing twice."""
    path, body = FORMS[form]
    async with Gateway(broker).running() as first, Gateway(broker).running() as other:
        async with first.opened(body, path) as exchange:
            count = body.get("n", 1) * (len(body.get("prompt", ["go"])))
            jobs = [await worker.job() for _ in range(count)]
            answers = [told(job) for job in jobs]
            for step in range(5):  # interleaved
                for answer in answers:
                    worker.tell(answer[step])
                    await asyncio.sleep(0)
            await exchange.whole()
        given = without_time(parse_events(b"".join(exchange.sent)))
        assert given[-1].data == "[DONE]"
        assert len(given) >= 2 + 2 * count
        for at, each in enumerate(given[:-1]):
            assert each.id is not None
            rest = await events_of(other, body, path, last_event_id=each.id)
            expected = given[at + 1 :]
            if count == 1:
                assert rest == expected
            else:  # choices may come in another order; each in its own
                assert by_choice(rest) == by_choice(expected)
    assert worker.broker.jobs.empty()  # nothing was sent again


def by_choice(events: list[SentEvent]) -> dict[Any, list[str]]:
    """Return what each choice was given, and what belongs to all."""
    found: dict[Any, list[str]] = {}
    for each in events:
        key: Any = "end"
        if each.data != "[DONE]":
            key = tuple(choice["index"] for choice in each.json["choices"])
        found.setdefault(key, []).append(each.data)
    return found


async def test_in_the_middle_of_an_answer(broker: MemoryBroker, worker: Worker) -> None:
    """A reader that was lost goes on while the answer is being written; its job runs on."""
    async with Gateway(broker).running() as first, Gateway(broker).running() as other:
        async with first.opened(CHAT, idempotency_key="k") as exchange:
            await worker.job()
            worker.tell(piece("k", 0, "one "), piece("k", 1, "two "))
            events = exchange.events()
            seen = [await anext(events) for _ in range(3)]
        last = seen[1].id
        assert last is not None
        async with other.opened(CHAT, last_event_id=last) as again:
            events = again.events()
            assert await anext(events) == SentEvent(seen[2].data, seen[2].id)
            worker.tell(piece("k", 2, "three"))
            assert (await anext(events)).json["choices"][0]["delta"] == {"content": "three"}
        async with other.opened(CHAT, last_event_id=last) as again:
            worker.tell(end("k", 3))
            assert len([each async for each in again.events()]) == 5
    assert worker.broker.jobs.empty()


async def test_an_error_is_told_again(gateway: Gateway, worker: Worker) -> None:
    """Behind the last token there is the error, for whoever asks."""
    async with gateway.opened(CHAT) as exchange:
        job = (await worker.job()).id
        worker.tell(piece(job, 0, "one"), failed(job, ErrorCode.INTERNAL, 1))
        await exchange.whole()
    *_, word, error = parse_events(b"".join(exchange.sent))
    assert word.id is not None
    answer = await gateway.call("POST", CHAT_PATH, CHAT, last_event_id=word.id)
    assert answer.status == 500
    first, again = error.json["error"], (await answer.json())["error"]
    assert again["code"] == first["code"]
    assert again["message"].startswith(first["message"])


@pytest.mark.parametrize("path", [CHAT_PATH, TEXT_PATH])
@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_that_an_answer_has_not(
    gateway: Gateway, worker: Worker, path: str, stream: bool
) -> None:
    """Who goes on asks in another form: what is not in the log is null."""
    worker.tell(piece("k", 0, "one "), end("k", 1, "two"))
    asked = {"messages": CHAT["messages"]} if path == CHAT_PATH else {"prompt": "go"}
    body = {"model": "aril", "logprobs": path == CHAT_PATH or 1, "stream": stream} | asked
    last = f"{reply_partition('k', PARTITIONS)}.0.0.0.k"
    answer = await gateway.call("POST", path, body, last_event_id=last)
    assert answer.status == 200
    found = (
        [each.json for each in parse_events(b"".join(answer.sent))[:-1]]
        if stream
        else [await answer.json()]
    )
    assert {each["choices"][0]["logprobs"] for each in found} == {None}


async def test_a_withdrawn_answer_stays_withdrawn(gateway: Gateway, worker: Worker) -> None:
    """Who was given some of it is told so again; who reads it whole by its id gets the new one."""
    async with gateway.opened(CHAT) as exchange:
        job = (await worker.job()).id
        worker.tell(piece(job, 0, "old"))
        await exchange.begun()
        second = Epoch(2, 1)
        worker.tell(piece(job, 0, "new", epoch=second), end(job, 1, epoch=second))
        await exchange.whole()
    _, word, error = parse_events(b"".join(exchange.sent))
    assert error.json["error"]["code"] == "withdrawn"
    answer = await gateway.call("POST", CHAT_PATH, CHAT, last_event_id=str(word.id))
    assert (await answer.json())["error"]["code"] == "withdrawn"
    whole = await gateway.call("GET", f"{CHAT_PATH}/{word.json['id']}")
    assert (await whole.json())["choices"][0]["message"]["content"] == "new"


@pytest.mark.parametrize("standing", ["1.0.{job}", "2.0.{job}~", "9.0.{job}", "4.0.{job}~"])
async def test_an_id_that_fits_no_place(gateway: Gateway, worker: Worker, standing: str) -> None:
    """An id inside of an event or past the end is refused, never guessed at."""
    async with gateway.opened(CHAT) as exchange:
        job = (await worker.job()).id
        worker.tell(piece(job, 0, "two", ids=2), piece(job, 2, "more"), end(job, 3))
        await exchange.whole()
    first = str(parse_events(b"".join(exchange.sent))[0].id)
    where = first.removesuffix(f"0.0.{job}")
    last = where + standing.format(job=job)
    answer = await gateway.call("POST", CHAT_PATH, CHAT, last_event_id=last)
    assert answer.status == 400
    assert (await answer.json())["error"]["param"] == "last-event-id"


async def test_what_is_not_kept_any_more(
    gateway: Gateway, serving: Worker, broker: MemoryBroker
) -> None:
    """Expired, or never there: 404 stream_lost, for who goes on and for who reads by id."""
    answer = await gateway.call("POST", CHAT_PATH, CHAT)
    events = parse_events(b"".join(answer.sent))
    for partition, log in enumerate(broker.replies):
        broker.expire(partition, log.end)
    for reply in (
        await gateway.call("POST", CHAT_PATH, CHAT, last_event_id=str(events[0].id)),
        await gateway.call("GET", f"{CHAT_PATH}/{events[0].json['id']}"),
        await gateway.call("GET", f"{CHAT_PATH}/chatcmpl-0.99.x"),
        await gateway.call("GET", f"{CHAT_PATH}/chatcmpl-99.0.x"),
        await gateway.call("GET", f"{CHAT_PATH}/cmpl-0.0.x"),
        await gateway.call("GET", f"{CHAT_PATH}/nonsense"),
        await gateway.call("GET", f"{CHAT_PATH}/chatcmpl-" + ",".join(["0.0.x"] * 1_025)),
    ):
        assert reply.status == 404
        error = (await reply.json())["error"]
        assert (error["code"], error["retryable"]) == ("stream_lost", False)
    del serving


async def test_read_again_by_id(gateway: Gateway, serving: Worker) -> None:
    """The whole answer from the log, as it was, with its adapter's name; or as a stream of it."""
    asked = CHAT | {"stream": False, "model": "terse", "logprobs": True, "n": 2}
    first = await (await gateway.call("POST", CHAT_PATH, asked)).json()
    path = f"{CHAT_PATH}/{first['id']}"
    again = await (await gateway.call("GET", path)).json()
    assert again | {"created": 0} == first | {"created": 0}
    streamed = await gateway.call("GET", f"{path}?stream=true&include_usage=true&logprobs=true")
    events = without_time(parse_events(b"".join(streamed.sent)))
    assert events[-2].json["usage"] == first["usage"]
    rest = await gateway.call(
        "GET",
        f"{path}?stream=true&include_usage=true&logprobs=true",
        last_event_id=str(events[2].id),
    )
    assert by_choice(without_time(parse_events(b"".join(rest.sent)))) == by_choice(events[3:])
    other = await gateway.call("GET", f"{path}?stream=true", last_event_id="0.0.0.0.x,0.0.0.0.y")
    assert other.status == 400
    assert len(serving.sent) == 2
