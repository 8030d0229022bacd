"""What waits for a broker is bounded: reading rests, and goes on when it was taken."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgpack
import pytest

from aril.worker.job import Partition, Record
from aril.worker.replies.pending_bytes import PendingBytes
from tests.support.harness import JOBS, Harness

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = Partition("jobs", 1)
MAX_BYTES = 1 << 20


def record(source: Partition, size: int) -> Record:
    """Make a record of that many bytes."""
    return Record(source, 0, 0, None, b"x" * size, ())


def test_a_partition_rests_at_its_share_and_all_at_the_whole() -> None:
    """A flood on one partition stops that one; several together stop everybody."""
    outgoing = PendingBytes(MAX_BYTES)
    assert not outgoing.full(JOBS)
    with outgoing.held(record(JOBS, MAX_BYTES // 8)):
        assert outgoing.full(JOBS)
        assert not outgoing.full(OTHER)
        with outgoing.held(record(Partition("jobs", 2), 3 * MAX_BYTES // 8)):
            assert outgoing.full(OTHER)
        assert not outgoing.full(OTHER)
    assert outgoing.bytes == 0
    assert not outgoing.full(JOBS)


def test_what_fails_is_given_back() -> None:
    """The count must not grow by what went wrong."""
    outgoing = PendingBytes(MAX_BYTES)
    with pytest.raises(OSError, match="gone"), outgoing.held(record(JOBS, 10)):
        raise OSError("gone")
    assert outgoing.bytes == 0


def job(number: int, **more: object) -> bytes:
    """Encode a job of acme."""
    fields = {"v": 1, "kind": "job", "id": f"job-{number}", "tenant": "acme", "prompt": "x"}
    packed: bytes = msgpack.packb(fields | more)
    return packed


async def fill(harness: Harness, make: Callable[[int], bytes]) -> int:
    """Send until reading that partition rests; return how many that were."""
    for sent in range(200):
        if harness.lifecycle.is_full(JOBS):
            return sent
        harness.send(make(sent))
        await harness.settle(1)
    raise AssertionError("nothing rests")


@pytest.mark.parametrize("told", [False, True])
async def test_reading_rests_while_a_broker_takes_nothing(*, told: bool) -> None:
    """A flood of records that never reach the backlog; once they are written it goes on.

    Rubbish is put aside, and of a job that cannot be decoded its tenant is told as well.
    """
    async with Harness(lookahead_bytes=MAX_BYTES) as harness:
        harness.writer.held = asyncio.Event()
        sent = await fill(harness, lambda number: job(number, prompt=None) if told else b"\xc1")
        assert sent >= 10
        assert not harness.lifecycle.is_full(OTHER)
        harness.lifecycle.tick()
        assert (harness.metrics.registry.get_sample_value("aril_outgoing_bytes") or 0) > 0
        harness.writer.held.set()
        await harness.settle()
        assert not harness.lifecycle.is_full(JOBS)
        assert harness.committable == sent
        errors = sum(len(harness.replies("acme", f"job-{number}")) for number in range(sent))
        assert errors == (sent if told else 0)
        assert len(harness.dead_letters) == sent


async def test_a_look_up_that_hangs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of tenants who were never met wait for an answer about their topic."""
    async with Harness(lookahead_bytes=MAX_BYTES) as harness:
        gate = asyncio.Event()
        ask = harness.writer.partitions

        async def hang(topic: str) -> int | None:
            await gate.wait()
            return await ask(topic)

        monkeypatch.setattr(harness.writer, "partitions", hang)
        await fill(harness, job)
        assert not harness.engine.requests
        assert not harness.dead_letters
        gate.set()
        await harness.settle()
        assert not harness.lifecycle.is_full(JOBS)
        assert harness.engine.requests
