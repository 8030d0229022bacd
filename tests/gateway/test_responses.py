"""`/v1/responses`: jobs in the background, told of by the log alone, with numbers that hold."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from aril.schemas import (
    Cancel,
    ClaimRecord,
    Epoch,
    ErrorCode,
    ErrorRecord,
    Job,
    decode_request,
    encode_redirect,
    reply_partition,
)
from tests.support.fake_worker import FIRST, WORKER, FakeWorker, answer, done, tokens
from tests.support.gateway_streams import PARTITIONS, Caller, gateway, new_broker, place, put
from tests.support.reply_logs import Move, moves, written

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aril.memory import MemoryBroker
    from tests.support.gateway_streams import Answer

URL = "/v1/responses"
HELLO = {"model": "aril", "input": "one two three"}


@pytest.fixture
def broker() -> MemoryBroker:
    """Return a broker with two tenants' topics."""
    return new_broker()


@pytest.fixture
async def caller(broker: MemoryBroker) -> AsyncIterator[Caller]:
    """Run a gateway of tenant acme."""
    async with gateway(broker) as caller:
        yield caller


@pytest.fixture
async def worker(broker: MemoryBroker) -> AsyncIterator[FakeWorker]:
    """Answer each job with its own words."""
    async with FakeWorker.on_memory(broker) as worker:
        yield worker


async def taken(broker: MemoryBroker) -> Job | Cancel:
    """Return the next request that a worker would see."""
    async with asyncio.timeout(10):
        _, value = await broker.jobs.get()
    request = decode_request(value)
    assert isinstance(request, Job | Cancel)
    return request


def error(job: str, index: int, code: ErrorCode, *, epoch: Epoch = FIRST) -> ErrorRecord:
    """Make a terminal that is an error."""
    return ErrorRecord(
        job=job,
        epoch=epoch,
        worker=WORKER,
        index=index,
        code=code,
        message="by a test",
        retryable=code.retryable,
    )


def numbered(found: Answer) -> list[dict[str, Any]]:
    """Return the events of a stream, whose kind is their type."""
    assert all(kind == data["type"] for kind, data in found.events())
    return [data for _, data in found.events()]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Return their types, in short."""
    return [each["type"].removeprefix("response.") for each in events]


async def test_whole(caller: Caller, worker: FakeWorker) -> None:
    """Without more it is asked and waited for; what was asked is told with it."""
    body = {**HELLO, "instructions": "Be brief.", "temperature": 0.5, "metadata": {"a": "b"}}
    found = await caller.ask("POST", URL, body=body)
    told = found.json()
    assert found.status == 200, told
    assert (told["object"], told["status"], told["model"]) == ("response", "completed", "aril")
    (item,) = told["output"]
    assert item["content"] == [
        {"type": "output_text", "text": "one two three", "annotations": [], "logprobs": []}
    ]
    assert (item["role"], item["status"]) == ("assistant", "completed")
    assert (told["instructions"], told["temperature"]) == ("Be brief.", 0.5)
    assert told["usage"]["total_tokens"] == 4
    assert told["created_at"] > 1_700_000_000
    again = (await caller.get(f"{URL}/{told['id']}")).json()
    assert again["output"] == told["output"]
    assert again["created_at"] == told["created_at"]
    assert worker.served == 1


async def test_the_trace_goes_with_the_job(broker: MemoryBroker, caller: Caller) -> None:
    """As with a chat."""
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    body = {**HELLO, "background": True}
    await caller.ask("POST", URL, body=body, headers={"traceparent": parent})
    assert ("traceparent", parent.encode()) in broker.headers[0]


async def test_background(broker: MemoryBroker, caller: Caller) -> None:
    """At once an id, with nobody reading; its state at any gateway is what the log says."""
    body = {**HELLO, "background": True}
    begun = (await caller.ask("POST", URL, body=body)).json()
    assert (begun["status"], begun["output"], begun["background"]) == ("queued", [], True)
    request = await taken(broker)
    assert isinstance(request, Job)
    assert request.prompt is None
    job = request.id

    async def state() -> dict[str, Any]:
        async with gateway(broker) as other:
            found: dict[str, Any] = (await other.get(f"{URL}/{begun['id']}")).json()
            return found

    assert (await state())["status"] == "queued"
    put(broker, ClaimRecord(job=job, epoch=FIRST, worker=WORKER))
    assert (await state())["status"] == "in_progress"
    put(broker, tokens(job, 0, "Hel"))
    told = await state()
    assert told["status"] == "in_progress"
    assert told["output"][0]["content"][0]["text"] == "Hel"
    put(broker, done(job, 1))
    told = await state()
    assert (told["status"], told["model"]) == ("completed", "fake")
    assert broker.jobs.empty()  # nobody has cancelled it


@pytest.mark.parametrize(
    ("code", "status"),
    [(ErrorCode.CANCELLED, "cancelled"), (ErrorCode.INTERNAL, "failed")],
)
async def test_how_it_ends(
    broker: MemoryBroker, caller: Caller, code: ErrorCode, status: str
) -> None:
    """An error of the job is the state of the response, with what had been written."""
    name = place(broker, "a")
    put(broker, tokens("a", 0, "Hel"), error("a", 1, code))
    told = (await caller.get(f"{URL}/resp_{name}")).json()
    assert (told["status"], told["output"][0]["status"]) == (status, "incomplete")
    assert (told["error"] or {}).get("code") == (None if status == "cancelled" else code.value)
    stream = numbered(await caller.get(f"{URL}/resp_{name}?stream=true"))
    assert kinds(stream)[-2:] == ["output_text.delta", "failed"]
    assert stream[-1]["response"]["status"] == status


async def test_a_job_that_fails_is_an_error_to_who_waits(
    caller: Caller, worker: FakeWorker
) -> None:
    """As for a chat: a status by which clients know whether to ask again."""
    del worker
    found = await caller.ask("POST", URL, body={**HELLO, "input": "fail"})
    assert (found.status, found.json()["error"]["code"]) == (429, "overloaded")


async def test_cut_at_its_length(caller: Caller, broker: MemoryBroker) -> None:
    """An answer that was cut is incomplete, in the interface's words."""
    name = place(broker, "a")
    cut = done("a", 1)
    object.__setattr__(cut, "finish_reason", "length")
    put(broker, tokens("a", 0, "Hel"), cut)
    told = (await caller.get(f"{URL}/resp_{name}")).json()
    assert told["status"] == "incomplete"
    assert told["incomplete_details"] == {"reason": "max_output_tokens"}
    stream = numbered(await caller.get(f"{URL}/resp_{name}?stream=true"))
    assert kinds(stream)[-1] == "incomplete"


async def test_events(caller: Caller, worker: FakeWorker) -> None:
    """Typed events in the interface's order, numbered without a gap, a delta a record."""
    del worker
    found = await caller.ask("POST", URL, body={**HELLO, "stream": True})
    events = numbered(found)
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [each["sequence_number"] for each in events] == [*range(len(events))]
    assert "".join(each.get("delta", "") for each in events) == "one two three"
    assert events[-4]["text"] == "one two three"
    ids = {each["response"]["id"] for each in events if "response" in each}
    (name,) = ids
    assert f"id: {len(events) - 1}\n".encode() in found.body
    again = numbered(await caller.get(f"{URL}/{name}?stream=true"))
    assert kinds(again) == kinds(events)
    assert again[2:-1] == events[2:-1]  # of what was asked, only who asks is told


@given(drawn=moves())
@settings(max_examples=60)
async def test_a_number_means_the_same_everywhere(drawn: list[Move]) -> None:
    """Whatever the log is, whichever gateway, whenever: behind number N come the same events.

    One reader begins before anything is written, and each time that it is cut off goes on behind
    the last number that it has seen, at the other gateway.
    """
    broker = new_broker()
    path = f"{URL}/resp_{place(broker, 'a')}?stream=true"
    records = written("a", drawn)
    async with gateway(broker) as one, gateway(broker, inbox=2) as other:
        seen: list[dict[str, Any]] = []
        for record, caller in zip(records, itertools.cycle((one, other)), strict=False):
            put(broker, record)
            after = f"&starting_after={seen[-1]['sequence_number']}" if seen else ""
            async with caller.open("GET", path + after) as call:
                await call.until("response.created") if not seen else await asyncio.sleep(0.01)
            seen += numbered(call.answer)
        put(broker, error("a", 0, ErrorCode.INTERNAL, epoch=Epoch(9, 1)))  # an end, in any case
        readings = []
        for caller in (one, other):
            whole: list[dict[str, Any]] = []
            while not whole or whole[-1]["type"] == "error":
                after = f"&starting_after={whole[-1]['sequence_number']}" if whole else ""
                whole += numbered(await caller.get(path + after))
            readings.append(whole)
        first, second = readings
        assert first == second
        assert [each["sequence_number"] for each in first] == [*range(len(first))]
        assert seen == first[: len(seen)]
        for cut in {0, len(first) // 2, len(first) - 1}:
            rest = numbered(await one.get(f"{path}&starting_after={cut}"))
            until = next(
                (at for at, each in enumerate(first) if each["type"] == "error" and at > cut),
                len(first),
            )
            assert rest == first[cut + 1 : until + 1]


async def test_what_is_withdrawn(broker: MemoryBroker, caller: Caller) -> None:
    """It is told, and ends the stream: nobody takes two texts for one. Behind it comes more."""
    path = f"{URL}/resp_{place(broker, 'a')}"
    put(
        broker,
        *written(
            "a",
            [("tokens", 0, 1, 0), ("tokens", 1, 2, -99), ("tokens", 1, 2, 0), ("done", 1, 2, 0)],
        ),
    )
    first = numbered(await caller.get(f"{path}?stream=true"))
    assert (first[-1]["type"], first[-1]["code"]) == ("error", "withdrawn")
    number = first[-1]["sequence_number"]
    rest = numbered(await caller.get(f"{path}?stream=true&starting_after={number}"))
    assert kinds(rest)[:2] == ["output_item.added", "content_part.added"]
    assert rest[0]["item"]["id"] != first[2]["item"]["id"]
    whole = (await caller.get(path)).json()
    text = whole["output"][0]["content"][0]["text"]
    assert "".join(each.get("delta", "") for each in rest) == text == " 1 2"


async def test_cancel(broker: MemoryBroker, caller: Caller) -> None:
    """A cancel is sent; the answer is how it stands once the worker has ended it."""
    begun = (await caller.ask("POST", URL, body={**HELLO, "background": True})).json()
    job = (await taken(broker)).id
    asked = asyncio.create_task(caller.ask("POST", f"{URL}/{begun['id']}/cancel"))
    assert isinstance(await taken(broker), Cancel)
    put(broker, error(job, 0, ErrorCode.CANCELLED))
    assert (await asked).json()["status"] == "cancelled"
    again = await caller.ask("POST", f"{URL}/{begun['id']}/cancel")
    assert (again.json()["status"], broker.jobs.empty()) == ("cancelled", True)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("told", "headers", "runs_on"),
    [
        ({}, {}, False),
        ({}, {"idempotency-key": "mine"}, True),
        ({"background": True}, {}, True),
    ],
)
async def test_who_leaves(
    broker: MemoryBroker,
    caller: Caller,
    *,
    stream: bool,
    told: dict[str, Any],
    headers: dict[str, str],
    runs_on: bool,
) -> None:
    """A caller that leaves ends its job, unless it said that it comes again."""
    body = {**HELLO, "stream": stream, **told}
    async with caller.open("POST", URL, headers=headers, body=body) as call:
        job = await taken(broker)
        await asyncio.sleep(0.05)
        put(broker, tokens(job.id, 0, "Hel"))
        await asyncio.sleep(0.05)
    assert call.answer.status
    assert caller.site.open == 0
    assert not caller.site.connection.router.following
    if runs_on:
        assert broker.jobs.empty()
    else:
        assert await taken(broker) == Cancel(id=job.id, tenant="acme")


async def test_asked_twice(broker: MemoryBroker, caller: Caller) -> None:
    """A repeat with its key is given the first answer, with that one's id and numbers."""
    headers, body = {"idempotency-key": "mine"}, {**HELLO, "stream": True}
    first = asyncio.create_task(caller.ask("POST", URL, headers=headers, body=body))
    assert (await taken(broker)).id == "mine"
    start = broker.topics["replies.acme"][reply_partition("mine", PARTITIONS)].end
    put(broker, *answer("mine", ["one", " two"]))
    second = asyncio.create_task(caller.ask("POST", URL, headers=headers, body=body))
    await taken(broker)
    partition = reply_partition("mine", PARTITIONS)
    broker.append(partition, b"mine", encode_redirect("mine", start), topic="replies.acme")
    assert numbered(await first) == numbered(await second)


async def test_the_queue_sees_a_chat(broker: MemoryBroker, caller: Caller) -> None:
    """Instructions and items are messages; form, tools and sampling are the contract's."""
    body = {
        "model": "terse",
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "4"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
        "max_output_tokens": 7,
        "background": True,
    }
    found = await caller.ask("POST", URL, body=body)
    assert found.status == 200, found.json()
    job = await taken(broker)
    assert isinstance(job, Job)
    assert job.messages is not None
    assert [each.role for each in job.messages] == ["system", "user", "assistant", "tool"]
    assert (job.adapter, job.sampling.max_tokens) == ("terse", 7)
    assert job.sampling.response_format is not None
    assert job.tools is not None
    assert job.tools[0]["function"]["name"] == "f"


async def test_only_a_tenants_own(broker: MemoryBroker, tmp_path: Path) -> None:
    """Another tenant's response is not there, and cannot be ended."""
    async with gateway(broker, keys=tmp_path) as caller:
        body = {**HELLO, "background": True}
        begun = (await caller.ask("POST", URL, tenant="zeta", body=body)).json()
        await taken(broker)
        path = f"{URL}/{begun['id']}"
        for method, end in (("GET", ""), ("GET", "?stream=true"), ("POST", "/cancel")):
            found = await caller.ask(method, path + end, tenant="acme")
            assert (found.status, found.json()["error"]["code"]) == (404, "stream_lost")
            assert (await caller.ask(method, path + end)).status == 401
        assert (await caller.get(path, tenant="zeta")).json()["status"] == "queued"
    assert broker.jobs.empty()


async def test_what_is_not_there(broker: MemoryBroker, caller: Caller) -> None:
    """What is no id, or whose replies retention took, is 404 with a code that says so."""
    name = place(broker, "a")
    put(broker, *answer("a", ["x"]))
    broker.expire(int(name.partition(".")[0]), 1, topic="replies.acme")
    for path in (f"resp_{name}", "resp_0.99.a", "nonsense", f"resp_{name}?stream=true"):
        found = await caller.get(f"{URL}/{path}")
        assert (found.status, found.json()["error"]["code"]) == (404, "stream_lost")


async def test_what_is_refused(broker: MemoryBroker, caller: Caller) -> None:
    """Nothing is deleted, keys are ids of jobs, numbers are numbers, bodies have a bound."""
    name = place(broker, "a")
    found = await caller.ask("DELETE", f"{URL}/resp_{name}")
    assert (found.status, "nothing here can delete" in found.json()["error"]["message"]) == (
        405,
        True,
    )
    headers = {"idempotency-key": "no blanks"}
    found = await caller.ask("POST", URL, headers=headers, body=HELLO)
    assert (found.status, found.json()["error"]["param"]) == (400, "idempotency-key")
    headers = {"idempotency-key": "a", "last-event-id": "6"}  # a number is one of which answer?
    found = await caller.ask("POST", URL, headers=headers, body={**HELLO, "stream": True})
    assert (found.status, found.json()["error"]["param"]) == (400, "last-event-id")
    assert "starting_after=6" in found.json()["error"]["message"]
    found = await caller.get(f"{URL}/resp_{name}?stream=true&starting_after=x")
    assert found.json()["error"]["param"] == "starting_after"
    async with gateway(broker, gateway_body_bytes=1_000) as small:
        found = await small.ask("POST", URL, body={**HELLO, "input": "x" * 1_000})
    assert (found.status, found.json()["error"]["code"]) == (413, "body_too_large")
    assert broker.jobs.empty()


async def test_an_answer_that_does_not_come(broker: MemoryBroker) -> None:
    """It is waited for so long and no longer; its job is ended."""
    async with gateway(broker, gateway_wait_seconds=0.1) as caller:
        found = await caller.ask("POST", URL, body=HELLO)
    assert (found.status, found.json()["error"]["code"]) == (504, "timeout")
    job = await taken(broker)
    assert await taken(broker) == Cancel(id=job.id, tenant="acme")


@pytest.mark.parametrize("told", [{"background": True}, {}])
async def test_a_stream_that_does_not_come(broker: MemoryBroker, told: dict[str, Any]) -> None:
    """Its reader is ended, too; a job that is kept runs on."""
    headers = {"idempotency-key": "mine"}
    async with gateway(broker, gateway_wait_seconds=0.1) as caller:
        body = {**HELLO, "stream": True, **told}
        found = await caller.ask("POST", URL, headers=headers, body=body)
        assert (found.status, found.json()["error"]["code"]) == (504, "timeout")
        assert (await taken(broker)).id == "mine"
        again = await caller.get(f"{URL}/resp_{place(broker, 'never')}?stream=true")
        assert again.events()[-1][1]["error"]["code"] == "timeout"
        assert caller.site.open == 0
    assert broker.jobs.empty()


async def test_a_gateway_that_is_stopped(broker: MemoryBroker) -> None:
    """A reader is told, its job runs on, and another gateway goes on behind the last number."""
    async with gateway(broker) as one, gateway(broker) as other:
        async with one.open("POST", URL, body={**HELLO, "stream": True}) as call:
            job = (await taken(broker)).id
            put(broker, tokens(job, 0, "Hel"))
            await call.until('"Hel"')
            one.site.draining.set()
            one.site.end()
            found = await call.ended()
        *events, (_, last) = found.events()
        assert last["error"]["code"] == "unavailable"
        put(broker, tokens(job, 1, "lo"), done(job, 2))
        name = events[0][1]["response"]["id"]
        number = events[-1][1]["sequence_number"]
        rest = numbered(await other.get(f"{URL}/{name}?stream=true", last_event_id=str(number)))
        assert rest[0]["delta"] == "lo"
        assert rest[0]["sequence_number"] == number + 1
        assert rest[-1]["type"] == "response.completed"
    assert broker.jobs.empty()


async def test_metrics(caller: Caller, worker: FakeWorker) -> None:
    """An answer is counted as a chat's is: how it began and ended, and its tokens."""
    del worker
    await caller.ask("POST", URL, body={**HELLO, "stream": True})
    page, _ = caller.site.metrics.page("text/plain")
    assert b'aril_gateway_answers_total{begun="new",ended="done"} 1.0' in page
    assert b"aril_gateway_tokens_total 3.0" in page
    assert b"aril_gateway_first_token_seconds_count 1.0" in page
