"""`/v1/streams/{id}`: an answer as a durable stream, the same bytes for whoever reads where."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aril.gateway.places import made_at, new_job, place_of
from aril.schemas import encode_redirect
from tests.support.fake_worker import answer, done, tokens
from tests.support.gateway_streams import Caller, gateway, new_broker, place, put, texts
from tests.support.reply_logs import Move, moves, written

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aril.memory import MemoryBroker
    from tests.support.gateway_streams import Answer

NEXT = "stream-next-offset"


@pytest.fixture
def broker() -> MemoryBroker:
    """Return a broker with two tenants' topics."""
    return new_broker()


@pytest.fixture
async def caller(broker: MemoryBroker) -> AsyncIterator[Caller]:
    """Run a gateway of tenant acme."""
    async with gateway(broker) as caller:
        yield caller


def live_messages(found: Answer) -> list[Any]:
    """Return the messages that a live response brought."""
    return [each for kind, data in found.events() if kind == "data" for each in data]


async def read_all(caller: Caller, stream: str) -> tuple[list[Any], list[str]]:
    """Read from offset to offset; return messages, and each offset that was given."""
    messages, offsets, offset = [], [], "-1"
    while True:
        found = await caller.get(f"{stream}?offset={offset}")
        assert found.status == 200, found
        messages += found.json()
        offset = found.headers[NEXT]
        offsets.append(offset)
        if "stream-up-to-date" in found.headers:
            return messages, offsets


@given(drawn=moves(), cuts=st.lists(st.integers(0, 25), max_size=5), inbox=st.integers(1, 4))
@settings(max_examples=60)
async def test_the_same_bytes_for_the_same_offset(
    drawn: list[Move], cuts: list[int], inbox: int
) -> None:
    """Whichever gateway, whenever, whatever was read before: bytes go from offset to offset.

    One reader polls two gateways in turn while the log is written in pieces; what it was given for
    an offset is afterwards the beginning of what anybody is given for it.
    """
    broker = new_broker()
    stream = f"/v1/streams/{place(broker, 'a')}"
    records = written("a", drawn)
    bounds = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
    async with gateway(broker, inbox=inbox) as one, gateway(broker) as other:
        offset, given_for = "-1", {}
        for (first, behind), caller in zip(
            itertools.pairwise(bounds), itertools.cycle((one, other)), strict=False
        ):
            put(broker, *answer("b", ["beside"]), *records[first:behind])
            found = await caller.get(f"{stream}?offset={offset}")
            given_for[offset] = found.body
            assert found.headers[NEXT] >= offset or offset == "-1"
            offset = found.headers[NEXT]
        whole = await one.get(stream)
        parts = [each for body in given_for.values() for each in json.loads(body)]
        assert parts == whole.json()
        assert offset == whole.headers[NEXT]
        for start, body in given_for.items():
            later = [await each.get(f"{stream}?offset={start}") for each in (one, other)]
            assert later[0].body == later[1].body
            assert later[0].headers["etag"] == later[1].headers["etag"]
            assert later[0].body.startswith(body.removesuffix(b"]"))
        ended = any(each["kind"] in {"done", "error"} for each in whole.json())
        assert ("stream-closed" in whole.headers) is ended


async def test_messages(broker: MemoryBroker, caller: Caller) -> None:
    """A record of tokens is a message; the end is one, and closes the stream."""
    stream = f"/v1/streams/{place(broker, 'a')}"
    put(broker, *answer("a", ["Hello", " ✓"]))
    found = await caller.get(stream)
    first, second, end = found.json()
    assert first == {"kind": "tokens", "index": 0, "ids": [0], "text": "Hello"}
    assert (second["text"], end["kind"], end["finish_reason"]) == (" ✓", "done", "stop")
    assert found.headers["content-type"] == "application/json"
    assert found.headers["stream-closed"] == found.headers["stream-up-to-date"] == "true"
    behind = await caller.get(f"{stream}?offset={found.headers[NEXT]}")
    assert (behind.json(), behind.headers["stream-closed"]) == ([], "true")
    assert behind.headers[NEXT] == found.headers[NEXT]
    for prefix in ("resp_", "chatcmpl-", "cmpl-"):
        same = await caller.get(stream.replace("streams/", f"streams/{prefix}"))
        assert same.body == found.body


async def test_a_reset_is_a_message(broker: MemoryBroker, caller: Caller) -> None:
    """The stream only grows: who has read what is withdrawn reads on, and is told."""
    stream = f"/v1/streams/{place(broker, 'a')}"
    first, *rest = written("a", [("tokens", 0, 1, 0), ("tokens", 1, 2, -99), ("done", 1, 2, 0)])
    put(broker, first)
    before = await caller.get(stream)
    put(broker, *rest)
    after = await caller.get(f"{stream}?offset={before.headers[NEXT]}")
    assert [each["kind"] for each in after.json()] == ["reset", "tokens", "done"]
    assert (await caller.get(stream)).json() == before.json() + after.json()


async def test_a_job_that_nobody_has_begun(broker: MemoryBroker, caller: Caller) -> None:
    """It is there, open and empty; its offset is the beginning, wherever a redirect leads."""
    put(broker, *answer("a", ["one"]))
    again = place(broker, "a")
    stream = f"/v1/streams/{again}"
    found = await caller.get(stream)
    assert (found.status, found.json(), found.headers[NEXT]) == (200, [], "0" * 19)
    assert "stream-closed" not in found.headers
    assert found.headers["cache-control"] == "private, no-cache"
    partition = int(again.partition(".")[0])
    broker.append(partition, b"a", encode_redirect("a", 0), topic="replies.acme")
    led = await caller.get(f"{stream}?offset={found.headers[NEXT]}")
    assert texts(led.json()) == "one"
    assert led.headers[NEXT] > found.headers[NEXT]


async def test_head(broker: MemoryBroker, caller: Caller) -> None:
    """The end of the stream, and whether it is closed, without a body and for no cache."""
    stream = f"/v1/streams/{place(broker, 'a')}"
    put(broker, tokens("a", 0, "x"))
    head = await caller.ask("HEAD", stream)
    assert (head.status, head.body, head.headers["cache-control"]) == (200, b"", "no-store")
    assert head.headers[NEXT] == (await caller.get(stream)).headers[NEXT]
    assert "stream-closed" not in head.headers
    put(broker, done("a", 1))
    assert (await caller.ask("HEAD", stream)).headers["stream-closed"] == "true"


async def test_now(broker: MemoryBroker, caller: Caller) -> None:
    """`now` gives nothing of what there is, and the place behind it."""
    stream = f"/v1/streams/{place(broker, 'a')}"
    put(broker, tokens("a", 0, "x"))
    found = await caller.get(f"{stream}?offset=now")
    assert (found.json(), found.headers["cache-control"]) == ([], "no-store")
    assert "etag" not in found.headers
    async with caller.open("GET", f"{stream}?offset=now&live=sse") as live:
        await live.until("upToDate")
        put(broker, tokens("a", 1, "y"), done("a", 2))
        await live.ended()
    (kind, first), *_ = live.answer.events()
    assert (kind, first["streamNextOffset"]) == ("control", found.headers[NEXT])
    assert texts(live_messages(live.answer)) == "y"


async def test_sse(broker: MemoryBroker, caller: Caller) -> None:
    """What is there, then what comes; a control event behind each tells where that leads."""
    stream = f"/v1/streams/{place(broker, 'a')}"
    put(broker, tokens("a", 0, "x"))
    async with caller.open("GET", f"{stream}?offset=-1&live=sse") as live:
        await live.until("upToDate")
        await live.until(": still there")
        put(broker, tokens("a", 1, "y"))
        await live.until('"y"')
        put(broker, done("a", 2))
        found = await live.ended()
    events = found.events()
    assert found.headers["content-type"].startswith("text/event-stream")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert [kind for kind, _ in events if kind == "data"] == ["data"] * 3
    messages: list[Any] = []
    for (kind, data), (behind, told) in itertools.pairwise(events):
        if kind == "data":
            assert behind == "control"
            messages += data
            rest = await caller.get(f"{stream}?offset={told['streamNextOffset']}")
            assert messages + rest.json() == (await caller.get(stream)).json()
    assert events[-1][1]["streamClosed"] is True
    assert "streamCursor" not in events[-1][1]
    closed = await caller.get(f"{stream}?offset={events[-1][1]['streamNextOffset']}&live=sse")
    ((kind, told),) = closed.events()
    assert (kind, told["streamClosed"]) == ("control", True)


async def test_long_poll(broker: MemoryBroker, caller: Caller) -> None:
    """What is there at once; else what comes first, or 204 when nothing does."""
    stream = f"/v1/streams/{place(broker, 'a')}"
    nothing = await caller.get(f"{stream}?offset=-1&live=long-poll")
    assert (nothing.status, nothing.body) == (204, b"")
    assert nothing.headers["stream-up-to-date"] == "true"
    offset, cursor = nothing.headers[NEXT], int(nothing.headers["stream-cursor"])
    waiting = asyncio.create_task(
        caller.get(f"{stream}?offset={offset}&live=long-poll&cursor={cursor}")
    )
    await asyncio.sleep(0.01)
    put(broker, tokens("a", 0, "x"))
    found = await waiting
    assert (found.status, texts(found.json())) == (200, "x")
    assert int(found.headers["stream-cursor"]) > cursor
    put(broker, done("a", 1))
    end = await caller.get(f"{stream}?offset={found.headers[NEXT]}&live=long-poll")
    assert [each["kind"] for each in end.json()] == ["done"]
    behind = await caller.get(f"{stream}?offset={end.headers[NEXT]}&live=long-poll")
    assert (behind.status, behind.headers["stream-closed"]) == (204, "true")


async def test_etag(broker: MemoryBroker, caller: Caller) -> None:
    """Unchanged is 304; an end that comes without a message changes it, too."""
    stream = f"/v1/streams/{place(broker, 'a')}"
    put(broker, tokens("a", 0, "x"))
    found = await caller.get(stream)
    same = await caller.get(stream, if_none_match=found.headers["etag"])
    assert (same.status, same.body) == (304, b"")
    put(broker, done("a", 1))
    changed = await caller.get(stream, if_none_match=found.headers["etag"])
    assert changed.status == 200
    tail = f"{stream}?offset={changed.headers[NEXT]}"
    assert (await caller.get(tail)).headers["etag"].endswith(':c"')


async def test_more_than_one_response_holds(broker: MemoryBroker, caller: Caller) -> None:
    """A long answer comes in parts, each of which says that there is more."""
    stream = f"/v1/streams/{place(broker, 'a')}"
    put(broker, *answer("a", ["x" * 150_000] * 20))
    first = await caller.get(stream)
    assert "stream-up-to-date" not in first.headers
    assert "stream-closed" not in first.headers
    assert len(first.body) < 1_300_000
    messages, offsets = await read_all(caller, stream)
    assert len(offsets) == 3
    assert offsets == sorted(offsets)
    assert texts(messages) == "x" * 3_000_000


async def test_what_retention_took(broker: MemoryBroker, caller: Caller) -> None:
    """Gone, and said to be; a reader who stands behind it reads on."""
    name = place(broker, "a")
    put(broker, *answer("a", ["x", "y"]))
    offset = (await caller.get(f"/v1/streams/{name}?offset=-1&live=long-poll")).headers[NEXT]
    broker.expire(int(name.partition(".")[0]), 2, topic="replies.acme")
    for path in (name, f"{name}?offset=now", f"{name}?offset=-1&live=sse"):
        found = await caller.get(f"/v1/streams/{path}")
        assert (found.status, found.headers["x-content-type-options"]) == (410, "nosniff")
    assert (await caller.ask("HEAD", f"/v1/streams/{name}")).status == 410
    behind = await caller.get(f"/v1/streams/{name}?offset={offset}")
    assert (behind.status, behind.headers["stream-closed"]) == (200, "true")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nonsense", 404),
        ("0.0.a%20b", 404),
        ("7.0.a", 404),
        ("0.99.a", 404),
        ("0.99.a?offset=now&live=sse", 404),
        ("0.99.a?offset=now&live=long-poll", 404),
        ("0.0.a?offset=", 400),
        ("0.0.a?offset=1&offset=2", 400),
        ("0.0.a?offset=0,1", 400),
        ("0.0.a?live=sse", 400),
        ("0.0.a?live=long-poll", 400),
        ("0.0.a?live=often&offset=-1", 400),
        (f"0.0.a?offset={'9' * 19}_0_0_1_1_0123456789ab", 400),
    ],
)
async def test_what_is_refused(caller: Caller, path: str, status: int) -> None:
    """What is no stream is 404, what is no offset of one is 400; each with the safe headers."""
    found = await caller.get(f"/v1/streams/{path}")
    assert found.status == status, found
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "error" in found.json()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_is_written(caller: Caller, method: str) -> None:
    """Streams are written by workers alone."""
    assert (await caller.ask(method, "/v1/streams/0.0.a")).status == 405


async def test_only_a_tenants_own(broker: MemoryBroker, tmp_path: Path) -> None:
    """Another tenant's id leads nowhere, or to a place in one's own log; never to its answer."""
    job = new_job("zeta")
    put(broker, *answer("beside", ["x"] * 5), tenant="acme")
    theirs, known = place(broker, job, "zeta"), place(broker, "a", "zeta")
    put(broker, *answer(job, ["secret"]), *answer("a", ["secret"]), tenant="zeta")
    async with gateway(broker, keys=tmp_path) as caller:
        for name in (theirs, known):
            own = await caller.get(f"/v1/streams/{name}", tenant="zeta")
            assert texts(own.json()) == "secret"
        assert (await caller.get(f"/v1/streams/{theirs}", tenant="acme")).status == 404
        other = await caller.get(f"/v1/streams/{known}", tenant="acme")
        assert b"secret" not in other.body
        assert "stream-closed" not in other.headers
        assert (await caller.get(f"/v1/streams/{theirs}")).status == 401


async def test_a_reader_that_stops_takes_nothing(broker: MemoryBroker) -> None:
    """Behind a caller that does not read, the log is the buffer: the inbox stays small."""
    stream = f"/v1/streams/{place(broker, 'a')}?offset=-1&live=sse"
    async with gateway(broker, inbox=4) as caller:
        async with caller.open("GET", stream) as live:
            await live.until("upToDate")
            live.stuck.clear()
            put(broker, *answer("a", [str(number) for number in range(200)]))
            await asyncio.sleep(0.3)
            before = len(live.answer.body)
            live.stuck.set()
            await live.ended()
        assert before < 500
        assert texts(live_messages(live.answer)) == "".join(map(str, range(200)))


async def test_who_leaves_is_forgotten(broker: MemoryBroker) -> None:
    """A live reader that hangs up leaves nothing behind, and its job runs on."""
    stream = f"/v1/streams/{place(broker, 'a')}?offset=-1&live=sse"
    async with gateway(broker) as caller:
        async with caller.open("GET", stream) as live:
            await live.until(": still there")
            assert caller.site.open == 1
            assert caller.site.connection.router.following
        assert caller.site.open == 0
        assert not caller.site.connection.router.following
        assert broker.jobs.empty()


def test_ids_of_jobs() -> None:
    """They tell when they were made, and to their tenant that they are its own."""
    job = new_job("acme")
    assert place_of(f"resp_1.2.{job}", "acme").job == job
    assert place_of(f"1.2.{job}.3", "acme").job == f"{job}.3"
    with pytest.raises(ValueError, match="for this tenant"):
        place_of(f"1.2.{job}", "zeta")
    wrong = job[:-1] + ("0" if job[-1] != "0" else "1")
    with pytest.raises(ValueError, match="for this tenant"):
        place_of(f"1.2.{wrong}", "acme")
    assert made_at(job) is not None
    assert made_at("a") is None


async def test_a_gateway_that_is_stopped(broker: MemoryBroker) -> None:
    """A live reader is let go without a word, and goes on at another gateway by its offset."""
    stream = f"/v1/streams/{place(broker, 'a')}"
    put(broker, tokens("a", 0, "x"))
    async with gateway(broker) as one, gateway(broker) as other:
        async with one.open("GET", f"{stream}?offset=-1&live=sse") as live:
            await live.until("upToDate")
            one.site.draining.set()
            one.site.end()
            events = (await live.ended()).events()
        assert {kind for kind, _ in events} == {"data", "control"}
        assert (await one.get(f"{stream}?offset=-1&live=sse")).status == 503
        put(broker, done("a", 1))
        rest = await other.get(f"{stream}?offset={events[-1][1]['streamNextOffset']}")
        assert [each["kind"] for each in rest.json()] == ["done"]
