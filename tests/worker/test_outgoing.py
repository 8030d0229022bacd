"""What waits for a broker is bounded: reading rests, and goes on when it was taken."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.harness import JOBS, Harness
from worker.jobs import Partition, Record
from worker.outgoing import Outgoing

OTHER = Partition("jobs", 1)
MAX_BYTES = 1 << 20


def record(source: Partition, size: int) -> Record:
    """Make a record of that many bytes."""
    return Record(source, 0, 0, None, b"x" * size, ())


def test_a_partition_rests_at_its_share_and_all_at_the_whole() -> None:
    """A flood on one partition stops that one; several together stop everybody."""
    outgoing = Outgoing(MAX_BYTES)
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
    outgoing = Outgoing(MAX_BYTES)
    with pytest.raises(OSError, match="gone"), outgoing.held(record(JOBS, 10)):
        raise OSError("gone")
    assert outgoing.bytes == 0


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"\xc1" * 1_000, id="rubbish, put aside"),
        pytest.param(
            b"\x85\xa1v\x01\xa4kind\xa3job\xa2id\xa1%c\xa6tenant\xa4acme\xa6prompt\xc0",
            id="refused, its tenant is told",
        ),
    ],
)
async def test_reading_rests_while_a_broker_takes_nothing(value: bytes) -> None:
    """A flood of records that never reach the backlog; once they are written it goes on."""
    async with Harness(lookahead_bytes=MAX_BYTES) as harness:
        harness.writer.held = asyncio.Event()
        sent = 0
        while not harness.service.is_full(JOBS):
            assert sent < 200
            for _ in range(10):
                harness.send(value.replace(b"%c", bytes([33 + sent])))
                sent += 1
            await harness.settle(1)
        assert sent >= 10
        assert not harness.service.is_full(OTHER)
        harness.service.tick()
        assert (harness.metrics.registry.get_sample_value("aril_outgoing_bytes") or 0) > 0
        harness.writer.held.set()
        await harness.settle()
        assert not harness.service.is_full(JOBS)
        assert harness.committable == sent


async def test_a_look_up_that_hangs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of tenants who were never met wait for an answer about their topic."""
    async with Harness(lookahead_bytes=MAX_BYTES) as harness:
        gate = asyncio.Event()

        async def hang(topic: str) -> None:  # noqa: ARG001 - the interface
            await gate.wait()

        monkeypatch.setattr(harness.writer, "partitions", hang)
        sent = 0
        while not harness.service.is_full(JOBS):
            assert sent < 60
            harness.send(
                b"\x85\xa1v\x01\xa4kind\xa3job\xa2id\xa1%c\xa6tenant\xa4acme\xa6prompt\xa1x".replace(
                    b"%c", bytes([33 + sent])
                )
            )
            sent += 1
            await asyncio.sleep(0)
        gate.set()
        await harness.settle()
        assert not harness.service.is_full(JOBS)
