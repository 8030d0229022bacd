"""A job that came in JSON is answered in JSON, whoever answers and whatever is told."""

from __future__ import annotations

import json
from typing import Any

from aril.schemas import encode_request, reply_partition
from aril.schemas.job import Job
from aril.worker.engine.request import Output
from tests.support.harness import REPLY_PARTITIONS, Harness


def in_json(**fields: Any) -> bytes:
    """Return a job's record."""
    job = {"v": 1, "kind": "job", "id": "j1", "tenant": "acme", "prompt": "hi"}
    return json.dumps(job | {"reply_from": 0} | fields).encode()


def told(harness: Harness) -> list[dict[str, Any]]:
    """Return the job's replies as a reader of JSON sees them."""
    log = harness.writer.logs["replies.acme", reply_partition("j1", REPLY_PARTITIONS)]
    return [json.loads(value) for _, value, _ in log if value is not None]


async def test_tokens_and_the_end() -> None:
    """What a stream is made of."""
    async with Harness() as harness:
        harness.send(in_json())
        await harness.settle()
        harness.step(Output(harness.key_of("hi"), (1,), "é"))
        await harness.settle()
        harness.step(Output(harness.key_of("hi"), (2,), "b", finish="stop"))
        await harness.settle()
        assert [each["kind"] for each in told(harness)] == ["tokens", "tokens", "done"]
        assert told(harness)[0]["text"] == "é"
        assert harness.visible("acme", "j1").token_ids == [1, 2]


async def test_an_owner_that_goes_and_one_that_comes() -> None:
    """A release, a claim, and the tokens behind those that are read back from JSON."""
    async with Harness() as harness:
        offset = harness.send(in_json())
        await harness.settle()
        harness.step(Output(harness.key_of("hi"), (1,), "a"))
        await harness.settle()
        harness.revoke(harness.state)
        await harness.settle()
        later = harness.assign(generation=4, end_offset=1, member="other")
        harness.deliver(later, offset, in_json())
        await harness.settle()
        harness.step(Output(harness.key_of("hi"), (2,), "b", finish="stop"))
        await harness.settle()
        kinds = [each["kind"] for each in told(harness)]
        assert kinds == ["tokens", "release", "claim", "tokens", "done"]
        assert harness.visible("acme", "j1").token_ids == [1, 2]


async def test_an_error_a_redirect_and_a_conflict() -> None:
    """Refused by a limit of the service; sent again in JSON after msgpack."""
    async with Harness() as harness:
        harness.send(in_json(sampling={"max_tokens": 100_000}))
        await harness.settle()
        assert [each["code"] for each in told(harness)] == ["limit_exceeded"]
    async with Harness() as harness:
        harness.send(encode_request(Job(id="j1", tenant="acme", prompt="hi", reply_from=0)))
        await harness.settle()
        harness.send(in_json(reply_from=5))
        await harness.settle()
        assert [(each["kind"], each["reply_from"]) for each in told(harness)] == [("redirect", 0)]
        harness.send(in_json(reply_from=6, prompt="ho"))
        await harness.settle()
        assert [(each["kind"], each["reply_from"]) for each in told(harness)][1:] == [
            ("conflict", 6)
        ]
